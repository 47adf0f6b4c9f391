"""A reservation: capacity held in the future for a job that is too big to start now.

Its *shadow time* is when, by predicted ends of what runs, enough will be free (EASY backfill: Lifka, JSSPP 1995, with
learned quantiles in place of users' estimates). Others may start meanwhile if they are likely over by then, or if the
job still fits at the shadow time beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flexai.cluster import Books, Hold, Shape

NEVER_MS = 2**62


@dataclass(slots=True)
class Reservation:
    """Held for ``job_id``; ``future`` are the books as they should be at the shadow time, before it starts."""

    job_id: str
    shape: Shape
    n_members: int
    shadow_ms: int
    future: Books

    def lets_pass(self, holds: Iterable[Hold], ends_ms: int) -> bool:
        """Whether members with these holds, likely over at ``ends_ms``, may start now. If so they are booked."""
        if ends_ms <= self.shadow_ms:
            return True
        taken = list(holds)
        for hold in taken:
            self.future.take(hold)
        if fits_together(self.future, self.shape, self.n_members):
            return True
        for hold in taken:
            self.future.give(hold)
        return False


def fits_together(books: Books, shape: Shape, n_members: int) -> bool:
    """Whether ``n_members`` of ``shape`` would fit at the same time."""
    if n_members == 1:
        return bool(books.fits(shape).any())
    return int(books.n_fit(shape).sum()) >= n_members


def reserve(
    job_id: str, shape: Shape, n_members: int, now: Books, now_ms: int, ends: Iterable[tuple[int, Hold]]
) -> Reservation:
    """Find the shadow time: let what runs end in order of its predicted end until the job fits.

    ``ends`` are (predicted end in ms, hold) of every member that runs.
    """
    future = now.copy()
    asked = shape.asked_milli * n_members
    free = int(future.free_milli[future.free_milli > 0].sum())
    shadow_ms = now_ms
    for end_ms, hold in sorted(ends, key=lambda pair: pair[0]):
        if free >= asked and fits_together(future, shape, n_members):
            return Reservation(job_id, shape, n_members, shadow_ms, future)
        future.give(hold)
        free += hold.compute_milli * len(hold.columns)
        shadow_ms = max(now_ms, end_ms)
    if fits_together(future, shape, n_members):
        return Reservation(job_id, shape, n_members, shadow_ms, future)
    return Reservation(job_id, shape, n_members, NEVER_MS, future)
