"""Where in a card's lane each job is drawn: pure. A lane is one card, 0 to 1000 thousandths high."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.apps.demo.morning import WHOLE_MILLI

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.apps.demo.outcome import JobOutcome

Strip = tuple[int, int]
"""From, to: thousandths of the card."""


def lanes(jobs: Sequence[JobOutcome]) -> dict[str, list[tuple[JobOutcome, list[Strip]]]]:
    """For each card its jobs in order of start, with the lowest part of the lane that is free while they run.

    A job's part may lie in several strips where what ran beside it left holes; the strips add up to its share unless
    the card was granted beyond a whole (which the pool never does).
    """
    cards: dict[str, list[tuple[JobOutcome, list[Strip]]]] = {}
    for job in sorted(jobs, key=lambda one: (one.started_s, one.name)):
        if job.device:
            drawn = cards.setdefault(job.device, [])
            taken = sorted(strip for other, strips in drawn if other.ended_s > job.started_s for strip in strips)
            drawn.append((job, _lowest(taken, job.asked_milli)))
    return dict(sorted(cards.items(), key=lambda card: (len(card[0]), card[0])))  # card 2 before card 10


def filled(strips: Sequence[Strip], milli: int) -> list[Strip]:
    """The lowest ``milli`` thousandths of some strips: the part of a slice that was used."""
    parts: list[Strip] = []
    for low, high in strips:
        if milli > 0:
            parts.append((low, min(high, low + milli)))
            milli -= high - low
    return parts


def _lowest(taken: Sequence[Strip], milli: int) -> list[Strip]:
    free, at = [], 0
    for low, high in [*taken, (WHOLE_MILLI, WHOLE_MILLI)]:
        if low > at:
            free.append((at, low))
        at = max(at, high)
    # In one piece where one is large enough: it is easier to see.
    whole = next(((low, low + milli) for low, high in free if high - low >= milli), None)
    return [whole] if whole else filled(free, milli)
