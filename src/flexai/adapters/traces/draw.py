"""Seeded chance for packing experiments."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

from flexai.simulation.workload import jobs_by_amount

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.model import Job, Node
    from flexai.simulation.workload import Work


def shuffled_arrivals(works: Sequence[Work], capacity_milli: int, arrival: float, seed: int) -> list[Job]:
    """The works in an order drawn from ``seed``, then random repeats, until ``arrival`` times capacity is asked for."""
    chance = random.Random(seed)  # noqa: S311 -- a seeded experiment, nothing secret
    order = list(works)
    chance.shuffle(order)
    mean_milli = max(1, sum(work.asked_milli for work in works) // len(works))
    n_repeats = 2 * int(arrival * capacity_milli / mean_milli) + 100
    return jobs_by_amount(order, capacity_milli, arrival, [chance.randrange(len(order)) for _ in range(n_repeats)])


def nodes_in_drawn_order(nodes: Sequence[Node], seed: int) -> tuple[Node, ...]:
    """The nodes in an order drawn from ``seed``, with names that sort like it: the first by name is so by chance.

    So the published simulator of FGD does (``syncClusterResourceList`` of hkust-adsl/kubernetes-scheduler-simulator).
    """
    order = list(nodes)
    random.Random(f"nodes {seed}").shuffle(order)  # noqa: S311 -- a seeded experiment, nothing secret
    return tuple(replace(node, name=f"{place:06d}-{node.name}") for place, node in enumerate(order))


def draws(seed: int) -> Iterator[int]:
    """Numbers without end, for rules that leave equals to chance."""
    chance = random.Random(seed)  # noqa: S311 -- a seeded experiment, nothing secret
    return (chance.getrandbits(30) for _ in count())
