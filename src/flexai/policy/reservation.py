"""A reservation: capacity held in the future for a job that is too big to start now.

Its *shadow time* is when, by predicted ends of what runs, enough will be free (EASY backfill: Lifka, JSSPP 1995, with
learned quantiles in place of users' estimates). Others may start meanwhile if they are likely over by then, or if the
job still fits at the shadow time beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.room import Room

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.cluster import Books, Hold
    from flexai.policy.gang import Need

NEVER_MS = 2**62


@dataclass(slots=True)
class Reservation:
    """Held for ``job_id``; ``future`` is the room that it should find at the shadow time, before it starts.

    Attributes:
        over: holds that are over by then: ``future`` does not count them any more. By identity.
        made_at_ms: when the ends were predicted.
        has_news: something ended since the job was last tried.
    """

    job_id: str
    need: Need
    shadow_ms: int
    future: Room
    made_at_ms: int = 0
    has_news: bool = False
    over: dict[int, Hold] = field(default_factory=dict)

    def lets_pass(self, holds: Iterable[Hold], ends_ms: int) -> bool:
        """Whether members with these holds, likely over at ``ends_ms``, may start now. If so they are booked."""
        taken = list(holds)
        if ends_ms <= self.shadow_ms:
            self.over.update((id(hold), hold) for hold in taken)
            return True
        for hold in taken:
            self.future.take(hold)
        if self.future.suffices():
            return True
        for hold in taken:
            self.future.give(hold)
        return False

    def ended(self, hold: Hold) -> None:
        """Say that a hold ended now: it is free at the shadow time too."""
        if self.over.pop(id(hold), None) is None:
            self.future.give(hold)


def reserve(
    job_id: str,
    need: Need,
    now: Books,
    now_ms: int,
    ends: Iterable[tuple[int, Hold]],
) -> Reservation:
    """Find the shadow time: let what runs end in order of its predicted end until the job fits.

    ``ends`` are (predicted end in ms, hold) of every member that runs. More free never fits less, so the first end
    after which the job fits is found by halving; from the first after which there is compute enough, in steps that
    double, since it is near to that one and every hold given back costs.
    """
    order: Sequence[tuple[int, Hold]] = sorted(ends, key=lambda pair: pair[0])
    future, given = Room(now.copy(), need), 0

    def give_up_to(count: int) -> None:
        nonlocal given
        for at in range(given, count):
            future.give(order[at][1])
        for at in range(given - 1, count - 1, -1):
            future.take(order[at][1])
        given = count

    low, high = _enough_after(need, now, order), len(order) + 1
    middle, step = low, 1
    while low < high:
        give_up_to(min(middle, len(order)))
        if middle > len(order) or future.suffices():
            high, step = middle, 0
        else:
            low = middle + 1
        middle, step = (min(low + step, high), 2 * step) if step else ((low + high) // 2, 0)
    give_up_to(min(low, len(order)))
    never = low > len(order)
    shadow_ms = NEVER_MS if never else max([now_ms, *(end_ms for end_ms, _ in order[:low])])
    over = {id(hold): hold for _, hold in order[: min(low, len(order))]}
    return Reservation(job_id, need, shadow_ms, future, now_ms, over=over)


def _enough_after(need: Need, now: Books, order: Sequence[tuple[int, Hold]]) -> int:
    """After how many ends as much compute is free as the job asks for, wherever it is: it cannot fit before."""
    lacks_milli = need.least(lambda shape: shape.asked_milli) - int(np.maximum(now.free_milli, 0).sum())
    count = 0
    while lacks_milli > 0 and count < len(order):
        hold = order[count][1]
        lacks_milli -= hold.compute_milli * len(hold.columns)
        count += 1
    return count
