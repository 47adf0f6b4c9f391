"""What came of a run, in numbers: waits, use, allocation. Each with its definition, since they are easily mixed up.

*Wait* is all time between submission and end in which a job did not run. *Use* is granted card time over capacity and
span: it says that cards were given out, not that programs kept them busy. *Allocation* is the part of all card compute
granted at one moment. Jobs that never ended are counted apart and left out of means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flexai.simulation.packing import Typical, fragmentation, model_index, nodes_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flexai.model import Node
    from flexai.simulation.kernel import Booked, Outcome, Sample

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits of a group of jobs, in hours; NaN for an empty group."""

    n_jobs: int
    mean_h: float
    p50_h: float
    p99_h: float
    most_h: float

    @staticmethod
    def of(books: Iterable[Booked]) -> Waits:
        """Summarise the jobs that ended."""
        waited = np.array([book.waited_ms for book in books if book.finished_ms >= 0], dtype=np.float64) / HOUR_MS
        if not len(waited):
            return Waits(0, *(float("nan"),) * 4)
        p50, p99 = np.percentile(waited, [50, 99])
        return Waits(len(waited), float(waited.mean()), float(p50), float(p99), float(waited.max()))


@dataclass(frozen=True, slots=True)
class Summary:
    """A run in one row."""

    waits: Waits
    big: Waits
    n_unfinished: int
    n_evictions: int
    lost_card_hours: float
    use: float
    makespan_h: float


BIG_CARDS = 16


def summarise(outcome: Outcome, capacity_milli: int) -> Summary:
    """Waits of all and of jobs of ``BIG_CARDS`` and more; use of the cards from first submission to last end."""
    first_ms = min((book.submitted_ms for book in outcome.jobs), default=0)
    last_ms = max((book.finished_ms for book in outcome.jobs), default=0)
    return Summary(
        waits=Waits.of(outcome.jobs),
        big=Waits.of(book for book in outcome.jobs if book.n_cards >= BIG_CARDS),
        n_unfinished=sum(book.finished_ms < 0 for book in outcome.jobs),
        n_evictions=outcome.n_evictions,
        lost_card_hours=sum(book.lost_ms * book.n_cards for book in outcome.jobs) / HOUR_MS,
        use=mean_granted_milli(outcome.samples, first_ms, last_ms) / capacity_milli,
        makespan_h=max(0, last_ms - first_ms) / HOUR_MS,
    )


def mean_granted_milli(samples: Sequence[Sample], from_ms: int, to_ms: int) -> float:
    """Compute granted, averaged over [from_ms, to_ms)."""
    if to_ms <= from_ms:
        return 0.0
    at = np.array([sample.at_ms for sample in samples], dtype=np.int64)
    granted = np.array([sample.granted_milli for sample in samples], dtype=np.int64)
    start = np.clip(at, from_ms, to_ms)
    end = np.clip(np.append(at[1:], to_ms), from_ms, to_ms)
    return float((granted * (end - start)).sum() / (to_ms - from_ms))


def by_group(outcome: Outcome, key: Callable[[Booked], str]) -> dict[str, Waits]:
    """Waits of each group, in the groups' sorted order."""
    groups: dict[str, list[Booked]] = {}
    for book in outcome.jobs:
        groups.setdefault(key(book), []).append(book)
    return {name: Waits.of(groups[name]) for name in sorted(groups)}


def size_class(book: Booked) -> str:
    """A job's size for tables: cards in powers of two."""
    cards = book.job.asked_milli / 1000
    if cards < 1:
        return "a <1 card"
    for at, name in ((1, "b 1"), (2, "c 2"), (4, "d 3-4"), (8, "e 5-8"), (15, "f 9-15")):
        if cards <= at:
            return name
    return "g >=16"


def fragmented_over_time(outcome: Outcome, nodes: Sequence[Node], n_points: int) -> list[tuple[int, float]]:
    """Free compute that a typical job of the trace cannot use, per cent of capacity, at moments evenly spread.

    Empty when the policy names no cards of these nodes (a pool of like cards has no fragments).
    """
    places = {
        device.uuid: (row, column) for row, node in enumerate(nodes) for column, device in enumerate(node.devices)
    }
    spans = [span for span in outcome.spans if span.grants and span.grants[0].device in places]
    if not spans:
        return []
    index = model_index(nodes)
    rows = {node.name: row for row, node in enumerate(nodes)}
    at = nodes_of(nodes, Typical.of(shape_of(book.job, index) for book in outcome.jobs))
    capacity = int(np.maximum(at.free_milli, 0).sum())
    edges = [(span.from_ms, 1, number) for number, span in enumerate(spans)]
    edges += [(span.to_ms, 0, number) for number, span in enumerate(spans)]
    edges.sort()
    out, done = [], 0
    for moment in np.linspace(edges[0][0], edges[-1][0], n_points).astype(np.int64).tolist():
        while done < len(edges) and edges[done][0] <= moment:
            _, begins, number = edges[done]
            span, sign = spans[number], -1 if begins else 1
            for grant in span.grants:
                at.free_milli[places[grant.device]] += sign * grant.compute_milli
            at.cpu_milli[rows[span.grants[0].node]] += sign * span.job.role_of(span.grants[0].member).cpu_milli
            done += 1
        useless = fragmentation(at.cpu_milli, at.free_milli, at.model, at.typical).sum()
        out.append((moment, 100.0 * float(useless) / capacity))
    return out


def bootstrap_weeks(
    books: Sequence[Booked], statistic: Callable[[Sequence[float]], float], picks: Sequence[Sequence[int]]
) -> tuple[float, float]:
    """Spread of a statistic of the waits (hours) over resampled weeks: its 5 % and 95 % quantile.

    ``picks`` holds one list of random numbers per resample, as many as there are weeks; a week is chosen by the number
    modulo the count. A single trace gives no seeds: this says how much the figure owes to one week.
    """
    week_ms = 7 * 24 * HOUR_MS
    weeks: dict[int, list[float]] = {}
    for book in books:
        if book.finished_ms >= 0:
            weeks.setdefault(book.submitted_ms // week_ms, []).append(book.waited_ms / HOUR_MS)
    lists = [weeks[week] for week in sorted(weeks)]
    values = [statistic([wait for number in pick for wait in lists[number % len(lists)]]) for pick in picks]
    low, high = np.percentile(np.array(values), [5, 95])
    return float(low), float(high)
