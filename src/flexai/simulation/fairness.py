"""What each queue asked for and got, in card time, until the last submission: afterwards nothing competes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flexai.simulation.kernel import Outcome


@dataclass(frozen=True, slots=True)
class QueueShare:
    """Parts of all card time asked for, and of all got."""

    asked: float
    got: float


def queue_shares(outcome: Outcome) -> dict[str, QueueShare]:
    """By queue, in sorted order."""
    last_ms = max((book.submitted_ms for book in outcome.jobs), default=0)
    asked: dict[str, float] = {}
    for book in outcome.jobs:
        milli = book.job.asked_milli
        asked[book.job.queue] = asked.get(book.job.queue, 0.0) + milli * book.duration_ms
    got = card_time(outcome, 0, last_ms)
    all_asked, all_got = max(sum(asked.values()), 1.0), max(sum(got.values()), 1.0)
    return {name: QueueShare(asked[name] / all_asked, got.get(name, 0.0) / all_got) for name in sorted(asked)}


def card_time(outcome: Outcome, from_ms: int, to_ms: int) -> dict[str, float]:
    """Compute granted to each queue in [from_ms, to_ms), in thousandths of a card times ms."""
    got: dict[str, float] = {}
    for span in outcome.spans:
        inside_ms = min(span.to_ms, to_ms) - max(span.from_ms, from_ms)
        if inside_ms > 0:
            milli = sum(grant.compute_milli for grant in span.grants)
            got[span.job.queue] = got.get(span.job.queue, 0.0) + milli * inside_ms
    return got
