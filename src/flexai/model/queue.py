"""Queues: who may use how much."""

from dataclasses import dataclass

OVER_CAP = ("warn", "stop", "kill")
"""What can become of a job over its cap of device memory: it is told of, frozen where it is, or ended."""
ROOT_QUEUE = ""
"""Parent of top-level queues; it has no limits of its own."""


@dataclass(frozen=True, slots=True)
class ClassTerms:
    """What a queue may use of the cards of one class (a product name); compare ``Queue``, units likewise."""

    device_class: str
    quota_milli: int = 0
    limit_milli: int = -1
    weight: int = 1000
    priority: int = 0


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
        classes: terms for single classes of cards, beside those above, which count every card.
        users: users, and groups written ``@name``, who may submit; empty for all.
        user_limit_milli: compute one user may hold in it; -1 for no limit.
        over_cap: what becomes of its jobs that hold more device memory than their cap: one of ``OVER_CAP``; empty for
            what holds above it, at the top the pool's setting.
    """

    name: str
    parent: str = ROOT_QUEUE
    quota_milli: int = 0
    limit_milli: int = -1
    weight: int = 1000
    priority: int = 0
    classes: tuple[ClassTerms, ...] = ()
    users: tuple[str, ...] = ()
    user_limit_milli: int = -1
    over_cap: str = ""

    def terms(self, device_class: str) -> ClassTerms:
        """The terms for one class of cards, or for all of them with an empty name.

        A class that the queue says nothing about is guaranteed nothing there and limited by nothing; what is left over
        of it goes by the queue's own weight and priority.
        """
        if device_class:
            for terms in self.classes:
                if terms.device_class == device_class:
                    return terms
            return ClassTerms(device_class, weight=self.weight, priority=self.priority)
        return ClassTerms("", self.quota_milli, self.limit_milli, self.weight, self.priority)
