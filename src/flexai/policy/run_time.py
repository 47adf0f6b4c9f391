"""How long will it run? Learned from what finished, and from siblings still running; never from the user's word.

Jobs of one queue and size that are submitted within minutes of each other are mostly one sweep, and alike. So beside
the mean of each (queue, size) stands the mean of each *burst* of submissions, in which a sibling that has already
outlived the mean counts with what it has run so far; both are joined by shrinkage. What has *not* finished yet carries
most of the news (docs/adr/0003). Quantiles, for backfill, come from the (queue, size) alone: bursts are too few to have
tails.

Units: ms. History is bounded, the oldest goes first, so that a pool that runs for years forgets.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field
from itertools import islice

UNKNOWN_MS = 3_600_000
"""Expected run time while nothing comparable has finished."""
MIN_SEEN = 5
"""So many finished jobs make a class's own statistics; below, the size's over all queues, then all jobs', stand in."""
BURST_GAP_MS = 600_000
SHRINKAGE = 3.0
MAX_HISTORY = 4096
MAX_SIBLINGS = 20
"""So many running siblings are looked at: more add cost, not news."""


@dataclass(slots=True)
class _History:
    """The last finished run times of one class, sorted and in order of arrival, and their sum."""

    sorted_ms: list[int] = field(default_factory=list)
    arrived_ms: deque[int] = field(default_factory=deque)
    total_ms: int = 0

    def add(self, ran_ms: int) -> None:
        bisect.insort(self.sorted_ms, ran_ms)
        self.arrived_ms.append(ran_ms)
        self.total_ms += ran_ms
        if len(self.arrived_ms) > MAX_HISTORY:
            oldest = self.arrived_ms.popleft()
            del self.sorted_ms[bisect.bisect_left(self.sorted_ms, oldest)]
            self.total_ms -= oldest

    def mean_ms(self) -> float:
        return self.total_ms / len(self.sorted_ms)

    def quantile_ms(self, q: float, above_ms: int = 0) -> int:
        """Quantile among those that ran longer than ``above_ms``; there must be one."""
        first = bisect.bisect_right(self.sorted_ms, above_ms) if above_ms else 0
        n = len(self.sorted_ms) - first
        return self.sorted_ms[first + min(n - 1, int(q * n))]

    def n_above(self, ms: int) -> int:
        return len(self.sorted_ms) - bisect.bisect_right(self.sorted_ms, ms)


@dataclass(frozen=True, slots=True)
class Burst:
    """One sweep: jobs of one queue and size, each submitted soon after the one before."""

    queue: str
    n_cards: int
    number: int


@dataclass(slots=True)
class _BurstState:
    n_finished: int = 0
    finished_ms: int = 0
    started_at_ms: dict[str, int] = field(default_factory=dict)
    n_open: int = 0


@dataclass(slots=True)
class RunTimes:
    """What is known of run times. Tell it of every submission, start and end, in order."""

    burst_gap_ms: int = BURST_GAP_MS
    _of_queue: dict[tuple[str, int], _History] = field(default_factory=dict)
    _of_size: dict[int, _History] = field(default_factory=dict)
    _of_all: _History = field(default_factory=_History)
    _last: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    _bursts: dict[Burst, _BurstState] = field(default_factory=dict)

    def submitted(self, queue: str, n_cards: int, at_ms: int) -> Burst:
        """Say which burst a new job belongs to."""
        last_ms, number = self._last.get((queue, n_cards), (None, 0))
        if last_ms is None or at_ms - last_ms > self.burst_gap_ms:
            self._drop_if_over(Burst(queue, n_cards, number))
            number += 1
        self._last[queue, n_cards] = (at_ms, number)
        burst = Burst(queue, n_cards, number)
        self._bursts.setdefault(burst, _BurstState()).n_open += 1
        return burst

    def started(self, burst: Burst, job_id: str, at_ms: int) -> None:
        """Say that a job of the burst runs now."""
        self._bursts[burst].started_at_ms[job_id] = at_ms

    def stopped(self, burst: Burst, job_id: str) -> None:
        """Say that a job was evicted: it will start again, and how long it takes is not known."""
        self._bursts[burst].started_at_ms.pop(job_id, None)

    def finished(self, burst: Burst, job_id: str, ran_ms: int) -> None:
        """Learn from a job that ended by itself after ``ran_ms``."""
        state = self._bursts[burst]
        state.n_finished += 1
        state.finished_ms += ran_ms
        for history in (
            self._of_queue.setdefault((burst.queue, burst.n_cards), _History()),
            self._of_size.setdefault(burst.n_cards, _History()),
            self._of_all,
        ):
            history.add(ran_ms)
        self.forget(burst, job_id)

    def forget(self, burst: Burst, job_id: str) -> None:
        """Let go of a job that will not come back (ended, or cancelled); a burst without jobs goes with its last."""
        state = self._bursts[burst]
        state.started_at_ms.pop(job_id, None)
        state.n_open -= 1
        if self._last[burst.queue, burst.n_cards][1] != burst.number:
            self._drop_if_over(burst)

    def _drop_if_over(self, burst: Burst) -> None:
        state = self._bursts.get(burst)
        if state is not None and state.n_open <= 0:
            del self._bursts[burst]

    def expected_ms(self, burst: Burst, now_ms: int) -> float:
        """Mean run time that a job of the burst will need, from its start."""
        prior_ms = self._mean_ms(burst)
        state = self._bursts[burst]
        # One that runs longer than expected counts as one more of at least that length; a younger one adds its time
        # without its head: it can only raise the mean, since it will run longer than it has.
        elapsed_ms = [now_ms - at_ms for at_ms in islice(state.started_at_ms.values(), MAX_SIBLINGS)]
        total_ms = state.finished_ms + sum(elapsed_ms)
        n = state.n_finished + sum(ms > prior_ms for ms in elapsed_ms)
        return (SHRINKAGE * prior_ms + total_ms) / (SHRINKAGE + n)

    def quantile_ms(self, burst: Burst, q: float) -> int:
        """Run time that a job like this stays under with probability ``q``."""
        history = self._history(burst)
        return history.quantile_ms(q) if history else UNKNOWN_MS

    def remaining_ms(self, burst: Burst, ran_ms: int, q: float) -> int:
        """Time that a job which has run ``ran_ms`` still needs, as a quantile of those that ran longer.

        Older than nearly all that finished: as long again as it has run (at least 10 minutes), since long run times
        have no scale of their own.
        """
        history = self._of_queue.get((burst.queue, burst.n_cards))
        if history is None or len(history.sorted_ms) < MIN_SEEN:
            history = self._of_size.get(burst.n_cards)
        if history is None or history.n_above(ran_ms) < 3:
            return max(ran_ms, 600_000)
        return history.quantile_ms(q, above_ms=ran_ms) - ran_ms

    def _history(self, burst: Burst) -> _History | None:
        for history in (
            self._of_queue.get((burst.queue, burst.n_cards)),
            self._of_size.get(burst.n_cards),
            self._of_all,
        ):
            if history is not None and len(history.sorted_ms) >= MIN_SEEN:
                return history
        return None

    def _mean_ms(self, burst: Burst) -> float:
        history = self._history(burst)
        return history.mean_ms() if history else float(UNKNOWN_MS)
