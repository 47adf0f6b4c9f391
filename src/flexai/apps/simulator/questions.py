"""Planning questions: how few cards would do?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai.simulation.workload import add_cards, capacity_milli
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flexai.model import Node
    from flexai.simulation.experiment import TimedRun

_GOAL = re.compile(r"\s*(mean|p50|p99)\s+wait\s*<=?\s*([0-9.]+)\s*(min|h|d)\s*\Z")
_UNIT_H = {"min": 1 / 60, "h": 1.0, "d": 24.0}
MAX_DOUBLINGS = 8


@dataclass(frozen=True, slots=True)
class Goal:
    """A wait not to be exceeded, in hours."""

    statistic: str
    most_h: float

    def met_by(self, run: TimedRun) -> bool:
        """Whether the run stays under it, with every job ended."""
        waits = run.summary.waits
        got = {"mean": waits.mean_h, "p50": waits.p50_h, "p99": waits.p99_h}[self.statistic]
        return got <= self.most_h and not run.summary.n_unfinished


def parse_goal(text: str) -> Goal:
    """Read ``mean wait < 1h``.

    Raises:
        BadInput: not of that form.
    """
    match = _GOAL.match(text)
    if match is None:
        raise BadInput("--smallest-for", text, "is no goal", 'Write for example "mean wait < 1h" or "p99 wait < 30min"')
    return Goal(match[1], float(match[2]) * _UNIT_H[match[3]])


def resized(nodes: Sequence[Node], n_cards: int) -> tuple[Node, ...]:
    """The cluster with ``n_cards`` in all: nodes dropped from the end or added like the last."""
    have = capacity_milli(nodes) // 1000
    if n_cards >= have:
        return add_cards(nodes, n_cards - have)
    out: list[Node] = []
    for node in nodes:
        if len(node.devices) > n_cards:
            break
        out.append(node)
        n_cards -= len(node.devices)
    return tuple(out)


def smallest(nodes: Sequence[Node], goal: Goal, run: Callable[[Sequence[Node]], TimedRun]) -> list[TimedRun]:
    """Runs tried on the way to the smallest cluster that meets the goal, which is the last; empty if none does.

    Bisection in steps of one node like the last. It takes waits to fall with cards; backfill can break that by a
    little, so the answer is exact to the neighbourhood, and every run tried is shown.
    """
    step = len(nodes[-1].devices)
    n_high = capacity_milli(nodes) // 1000 // step
    tried: dict[int, TimedRun] = {}

    def meets(n: int) -> bool:
        if n not in tried:
            tried[n] = run(resized(nodes, n * step))
        return goal.met_by(tried[n])

    for _ in range(MAX_DOUBLINGS):
        if meets(n_high):
            break
        n_high *= 2
    else:
        return []
    n_low = 0
    while n_high - n_low > 1:
        middle = (n_high + n_low) // 2
        if meets(middle):
            n_high = middle
        else:
            n_low = middle
    best = tried.pop(n_high)
    return [*(tried[n] for n in sorted(tried)), best]
