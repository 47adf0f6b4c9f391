"""How long will it run? Learned from what finished, and from siblings still running; never from the user's word.

Jobs of one queue and size that are submitted soon after each other are alike, the sooner the more: one script within a
minute, one sweep within ten, one session within the hour. So a job stands in *bursts* inside each other. What is
expected of the widest starts from the mean of the (queue, size), of each other from the one around it. A burst's own
experience is joined to that by shrinkage: run times are taken for exponential with an unknown mean, so a sibling that
still runs adds the time that it has run and counts as one only when it is over. What has *not* finished yet carries
most of the news (docs/adr/0003). Quantiles, for backfill, come from the (queue, size) alone: bursts are too few to have
tails.

Units: ms. History is bounded, the oldest goes first, so that a pool that runs for years forgets.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field

UNKNOWN_MS = 3_600_000
"""Expected run time while nothing comparable has finished."""
MIN_SEEN = 5
"""So many finished jobs make a class's own statistics; below, the size's over all queues, then all jobs', stand in."""
BURST_GAPS_MS = (3_600_000, 600_000, 60_000)
"""A longer pause between two submissions of one queue and size begins a new burst; the widest first."""
FEW_LONGER = 3
"""So many that ran longer say how long one still needs; fewer say nothing."""
SHRINKAGE = 3.0
"""What is expected of the burst around, or of the class, weighs as much as so many finished siblings."""
MAX_HISTORY = 4096


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

    def quantile_ms(self, q: float) -> int:
        """Quantile; there must be one that finished."""
        n = len(self.sorted_ms)
        return self.sorted_ms[min(n - 1, int(q * n))]

    def longer_ms(self, q: float, above_ms: int) -> int:
        """Quantile among those that ran longer than ``above_ms``; -1 if these are fewer than three."""
        above = self.sorted_ms
        first = bisect.bisect_right(above, above_ms)
        n = len(above) - first
        if n < FEW_LONGER:
            return -1
        if not above_ms:  # those that ended at once say as much as any of one that starts now
            first, n = 0, len(above)
        return above[first + min(n - 1, int(q * n))]


@dataclass(frozen=True, slots=True)
class Burst:
    """One script's jobs: of one queue and size, each submitted soon after the one before (the tightest gap)."""

    queue: str
    n_cards: int
    number: int


@dataclass(slots=True)
class _Siblings:
    """What the jobs of one burst ran, those of the bursts inside it too."""

    n_finished: int = 0
    finished_ms: int = 0
    n_running: int = 0
    started_ms: int = 0
    """Sum of the moments at which those that run started."""

    def finished(self, ran_ms: int) -> None:
        self.n_finished += 1
        self.finished_ms += ran_ms
        if self.n_finished > MAX_HISTORY:  # a queue without a pause is one burst for ever: it too forgets
            self.n_finished //= 2
            self.finished_ms //= 2

    def ran_ms(self, now_ms: int) -> int:
        return self.finished_ms + self.n_running * now_ms - self.started_ms


@dataclass(slots=True)
class _BurstState:
    """A burst of the tightest gap: its siblings in bursts of each gap, the widest first, and its jobs."""

    siblings: tuple[_Siblings, ...]
    started_at_ms: dict[str, int] = field(default_factory=dict)
    n_open: int = 0

    def stop(self, job_id: str) -> None:
        started_ms = self.started_at_ms.pop(job_id, None)
        if started_ms is not None:
            for each in self.siblings:
                each.n_running -= 1
                each.started_ms -= started_ms


@dataclass(slots=True)
class _Last:
    """The last submission of a (queue, size), and the bursts that it belongs to."""

    at_ms: int
    number: int
    siblings: tuple[_Siblings, ...]


@dataclass(slots=True)
class RunTimes:
    """What is known of run times. Tell it of every submission, start and end, in order."""

    _of_queue: dict[tuple[str, int], _History] = field(default_factory=dict)
    _of_size: dict[int, _History] = field(default_factory=dict)
    _of_all: _History = field(default_factory=_History)
    _last: dict[tuple[str, int], _Last] = field(default_factory=dict)
    _bursts: dict[Burst, _BurstState] = field(default_factory=dict)

    def submitted(self, queue: str, n_cards: int, at_ms: int) -> Burst:
        """Say which burst a new job belongs to."""
        last = self._last.get((queue, n_cards))
        number, pause_ms = (last.number, at_ms - last.at_ms) if last is not None else (0, BURST_GAPS_MS[0] + 1)
        kept = last.siblings[: sum(pause_ms <= gap_ms for gap_ms in BURST_GAPS_MS)] if last is not None else ()
        if len(kept) < len(BURST_GAPS_MS):
            self._drop_if_over(Burst(queue, n_cards, number))
            number += 1
        siblings = kept + tuple(_Siblings() for _ in BURST_GAPS_MS[len(kept) :])
        self._last[queue, n_cards] = _Last(at_ms, number, siblings)
        burst = Burst(queue, n_cards, number)
        self._bursts.setdefault(burst, _BurstState(siblings)).n_open += 1
        return burst

    def started(self, burst: Burst, job_id: str, at_ms: int) -> None:
        """Say that a job of the burst runs now."""
        state = self._bursts[burst]
        state.stop(job_id)
        state.started_at_ms[job_id] = at_ms
        for each in state.siblings:
            each.n_running += 1
            each.started_ms += at_ms

    def stopped(self, burst: Burst, job_id: str) -> None:
        """Say that a job was evicted: it will start again, and how long it takes is not known."""
        self._bursts[burst].stop(job_id)

    def finished(self, burst: Burst, job_id: str, ran_ms: int) -> None:
        """Learn from a job that ended by itself after ``ran_ms``."""
        for each in self._bursts[burst].siblings:
            each.finished(ran_ms)
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
        state.stop(job_id)
        state.n_open -= 1
        if self._last[burst.queue, burst.n_cards].number != burst.number:
            self._drop_if_over(burst)

    def _drop_if_over(self, burst: Burst) -> None:
        state = self._bursts.get(burst)
        if state is not None and state.n_open <= 0:
            del self._bursts[burst]

    def expected_ms(self, burst: Burst, now_ms: int) -> float:
        """Mean run time that a job of the burst will need, from its start."""
        expected_ms = self._mean_ms(burst)
        for each in self._bursts[burst].siblings:
            expected_ms = (SHRINKAGE * expected_ms + each.ran_ms(now_ms)) / (SHRINKAGE + each.n_finished)
        return expected_ms

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
        left_ms = history.longer_ms(q, ran_ms) if history is not None else -1
        return left_ms - ran_ms if left_ms >= 0 else max(ran_ms, 600_000)

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
