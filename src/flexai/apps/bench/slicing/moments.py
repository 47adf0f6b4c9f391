"""Moments in the card's log: from when on a tenant had the card for itself, when it came on it, when it was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.wire.timeline import spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.wire.timeline import Record, Span

STRETCH_NS = 20_000_000


def runs_of(told: Sequence[Record], tenant: str, begin_ns: int, end_ns: int) -> list[Span]:
    """Stretches in which a tenant had the card, in order."""
    return [span for span in spans(told, begin_ns, end_ns) if span.what == "runs" and span.tenant == tenant]


def full_from_ns(runs: Sequence[Span], after_ns: int, part: float, stretch_ns: int = STRETCH_NS) -> int | None:
    """First moment from ``after_ns`` on from which these runs take a part of the stretch that follows; None: never."""
    starts = sorted({after_ns, *(span.begin_ns for span in runs if span.begin_ns > after_ns)})
    for start_ns in starts:
        end_ns = start_ns + stretch_ns
        held_ns = sum(
            min(span.end_ns, end_ns) - max(span.begin_ns, start_ns)
            for span in runs
            if span.end_ns > start_ns and span.begin_ns < end_ns
        )
        if held_ns >= part * stretch_ns:
            return start_ns
    return None


def first_run_ns(runs: Sequence[Span], after_ns: int) -> int | None:
    """When it had the card first, from then on."""
    return next((max(span.begin_ns, after_ns) for span in runs if span.end_ns > after_ns), None)


def max_min(shares: Sequence[float], demands: Sequence[float], whole: float = 1.0) -> list[float]:
    """What each is owed: by its share, but no more than it can use; what it leaves goes to the others by theirs."""
    owed = [0.0] * len(shares)
    open_ = [i for i, share in enumerate(shares) if share > 0]
    left = whole
    while open_:
        total = sum(shares[i] for i in open_)
        full = [i for i in open_ if demands[i] <= left * shares[i] / total]
        if not full:
            for i in open_:
                owed[i] = left * shares[i] / total
            break
        for i in full:
            owed[i] = demands[i]
            left -= demands[i]
        open_ = [i for i in open_ if i not in full]
    return owed
