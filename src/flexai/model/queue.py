"""Queues: who may use how much."""

from dataclasses import dataclass

ROOT_QUEUE = ""
"""Parent of top-level queues; it has no limits of its own."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue of the tree.

    Attributes:
        name: unique.
        parent: name of its parent; ``ROOT_QUEUE`` for a top-level queue.
        quota_milli: compute it is guaranteed, in thousandths of a card; 0 guarantees nothing.
        limit_milli: compute it may never exceed; -1 for no limit.
        weight: its part of what is left over, relative to its siblings, in thousandths (1000 is the default).
        priority: siblings of higher priority are served first from what is left over.
        device_class: product name the numbers count; empty for every card.
        users: users, and groups written ``@name``, who may submit; empty for all.
        user_limit_milli: compute one user may hold in it; -1 for no limit.
    """

    name: str
    parent: str = ROOT_QUEUE
    quota_milli: int = 0
    limit_milli: int = -1
    weight: int = 1000
    priority: int = 0
    device_class: str = ""
    users: tuple[str, ...] = ()
    user_limit_milli: int = -1
