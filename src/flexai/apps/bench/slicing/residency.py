"""Card time over windows by the card's context-switch log, with exact edges; and when that log cannot tell it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from flexai.wire.timeline import Kind, spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.wire.timeline import Record, Span

_LATE_NS = 1_000_000_000
"""The log is read that late at most: while a driver makes contexts."""
_MOSTLY = 0.8


@dataclass(frozen=True, slots=True)
class Residency:
    """Card time of each tenant (ns) in each window; ``doubt``: why the log cannot tell it, empty where it can."""

    held_ns: tuple[tuple[int, ...], ...]
    doubt: str


def by_log(told: Sequence[Record], tenants: Sequence[str], edges_ns: Sequence[int]) -> Residency:
    """Card time of tenants (by name) in the windows from one edge to the next (``CLOCK_MONOTONIC``).

    A context that has the card alone writes nothing, whether it works or not: where one tenant alone came on the card
    and was never stopped, only the arbiter's tests of it (in its accounts) know. One that is stopped writes its END
    with the stop, so a lone tenant under a limit is told exactly.
    """
    from_ns, to_ns = edges_ns[0], edges_ns[-1]
    near = _since(told, from_ns - _LATE_NS)
    runs = _runs(near, from_ns, to_ns)
    held = tuple(
        tuple(_overlap_ns((span for span in runs if span.tenant == name), begin_ns, end_ns) for name in tenants)
        for begin_ns, end_ns in pairwise(edges_ns)
    )
    return Residency(held, _doubt(near, runs, from_ns, to_ns))


@dataclass(frozen=True, slots=True)
class Periods:
    """Whole periods of a limit within a window, from one stop to another: part of the card's time held in them."""

    n: int
    seconds: float
    part: float


def between_stops(told: Sequence[Record], tenant: str, from_ns: int, to_ns: int) -> Periods | None:
    """From a tenant's first stop in a window to its last; None where these are not most of it.

    A window that is cut anywhere holds a part of a period at each end: of periods of 90 ms at a limit of 50 % that is
    up to 0.4 point of 5 s, although nothing was held too long.
    """
    near = _since(told, from_ns - _LATE_NS)
    stops = sorted(
        span.begin_ns for span in spans(near, from_ns, to_ns)
        if span.what == "stopped" and span.tenant == tenant and span.begin_ns > from_ns
    )  # fmt: skip
    if len(stops) < 2 or stops[-1] - stops[0] < _MOSTLY * (to_ns - from_ns):
        return None
    runs = [span for span in _runs(near, from_ns, to_ns) if span.tenant == tenant]
    took_ns = stops[-1] - stops[0]
    return Periods(len(stops) - 1, took_ns / 1e9, _overlap_ns(runs, stops[0], stops[-1]) / took_ns)


def _since(told: Sequence[Record], at_ns: int) -> Sequence[Record]:
    """From who had the card then on: all that came before ended with it."""
    for place in range(len(told) - 1, -1, -1):
        if told[place].kind in {Kind.RUNS, Kind.BEGAN} and told[place].at_ns < at_ns:
            return told[place:]
    return told


def _runs(told: Sequence[Record], from_ns: int, to_ns: int) -> list[Span]:
    return [span for span in spans(told, from_ns, to_ns) if span.what == "runs"]


def _overlap_ns(runs: Iterable[Span], begin_ns: int, end_ns: int) -> int:
    return sum(max(0, min(span.end_ns, end_ns) - max(span.begin_ns, begin_ns)) for span in runs)


def _doubt(told: Sequence[Record], runs: Sequence[Span], from_ns: int, to_ns: int) -> str:
    if not any(record.kind is Kind.RUNS for record in told):
        return "the card has no log"
    n_lost = sum(record.context for record in told if record.kind is Kind.LOST and record.at_ns >= from_ns)
    if n_lost:
        return f"{n_lost} records of the card's log were lost"
    if any(record.kind is Kind.BEGAN and from_ns <= record.at_ns < to_ns for record in told):
        return "the arbiter began anew"
    stopped = any(record.kind is Kind.STOPPED and from_ns <= record.at_ns < to_ns for record in told)
    if len({span.tenant for span in runs}) < 2 and not stopped:
        return "one context alone, of which the log says nothing"
    return ""
