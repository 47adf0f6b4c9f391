"""Whom to evict so that a member fits: per node the cheapest set, by work lost.

The cost of a victim is the card time it would repeat. On one node victims are taken cheapest per freed compute first
until the member fits, then those that turn out not to be needed are spared, dearest first. Nodes are then taken in
order of their cost. On small instances this is within a tenth of the exact optimum (tested against
``cheapest_reference``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flexai.cluster import Books, Hold


@dataclass(frozen=True, slots=True)
class Victim:
    """A job that may be evicted: its holds on all nodes, and the card time lost with it (ms x thousandths)."""

    job_id: str
    holds: tuple[Hold, ...]
    lost: int

    def freed_milli(self, row: int) -> int:
        """Compute it frees on one node."""
        return sum(hold.compute_milli * len(hold.columns) for hold in self.holds if hold.row == row)


def cheapest_on(books: Books, row: int, victims: Sequence[Victim], fits: Callable[[], bool]) -> list[Victim] | None:
    """A cheap set of victims on ``row`` after whose end a member fits there; None if all do not suffice.

    The books are as before when this returns. ``fits`` says whether the member fits on the row now.
    """
    order = sorted(victims, key=lambda each: (each.lost / max(1, each.freed_milli(row)), each.job_id))
    taken: list[Victim] = []
    for victim in order:
        if fits():
            break
        _give(books, victim, row)
        taken.append(victim)
    found = fits()
    if found:
        for victim in sorted(taken, key=lambda each: (-each.lost, each.job_id)):
            _take(books, victim, row)
            if fits():
                taken.remove(victim)
            else:
                _give(books, victim, row)
    for victim in taken:
        _take(books, victim, row)
    return taken if found else None


def cheapest_reference(
    books: Books, row: int, victims: Sequence[Victim], fits: Callable[[], bool]
) -> list[Victim] | None:
    """The exact optimum by trying every set; for tests on small instances."""
    best: list[Victim] | None = None
    for n in range(len(victims) + 1):
        for some in combinations(victims, n):
            for victim in some:
                _give(books, victim, row)
            if fits() and (best is None or sum(v.lost for v in some) < sum(v.lost for v in best)):
                best = list(some)
            for victim in some:
                _take(books, victim, row)
    return best


def _give(books: Books, victim: Victim, row: int) -> None:
    for hold in victim.holds:
        if hold.row == row:
            books.give(hold)


def _take(books: Books, victim: Victim, row: int) -> None:
    for hold in victim.holds:
        if hold.row == row:
            books.take(hold)
