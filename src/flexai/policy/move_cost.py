"""What does it cost to stop a job and to start it again, or to park and to wake it? Measured, never asked.

A stop lasts from the order until the member is gone (its checkpoint is written then), a start from the command until it
runs. What it does before it works again (a checkpoint is read) nobody sees; the setting stands for it. Jobs of one
queue, user and size are alike; while one class has not been seen often enough, all jobs stand in, and before any was
seen, what the caller says. Units: ms.

To park (device memory moves to the host) and to wake (it moves back) takes the longer the larger the memory. Before any
was seen it is taken from an unprepared PyTorch process on an H200 (driver 580.159.04): 8.8 GiB 5.0 s out and 1.9 s in,
32.7 GiB 17 and 6.2 s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIN_SEEN = 3
KEPT = 16
"""A new one counts for at least one part in so many: checkpoints grow with their models."""

PARK_MS_PER_GIB, WAKE_MS_PER_GIB = 540, 210


@dataclass(slots=True)
class _Mean:
    n: int = 0
    mean_ms: int = 0

    def add(self, ms: int) -> None:
        self.n = min(self.n + 1, KEPT)
        self.mean_ms += (ms - self.mean_ms) // self.n


@dataclass(slots=True)
class MoveCosts:
    """Means of stops and starts, and of parks and wakes, of each class of jobs and of all."""

    _stops: dict[tuple[str, int], _Mean] = field(default_factory=dict)
    _starts: dict[tuple[str, int], _Mean] = field(default_factory=dict)
    _parks: dict[tuple[str, int], _Mean] = field(default_factory=dict)
    _wakes: dict[tuple[str, int], _Mean] = field(default_factory=dict)

    def stopped(self, queue: str, n_cards: int, took_ms: int) -> None:
        """Learn from a member that stopped when told to."""
        _learn(self._stops, queue, n_cards, took_ms)

    def started(self, queue: str, n_cards: int, took_ms: int) -> None:
        """Learn from a member that runs."""
        _learn(self._starts, queue, n_cards, took_ms)

    def parked(self, queue: str, n_cards: int, took_ms: int) -> None:
        """Learn from a member whose memory is on the host."""
        _learn(self._parks, queue, n_cards, took_ms)

    def woken(self, queue: str, n_cards: int, took_ms: int) -> None:
        """Learn from a member whose memory is back on its card."""
        _learn(self._wakes, queue, n_cards, took_ms)

    def stay_ms(self, queue: str, n_cards: int, memory_bytes: int) -> int:
        """Park and wake of one job, of whose members the largest holds so much device memory."""
        park, wake = (_known(means, queue, n_cards) for means in (self._parks, self._wakes))
        if park is None or wake is None:
            return memory_bytes * (PARK_MS_PER_GIB + WAKE_MS_PER_GIB) >> 30
        return park + wake

    def move_ms(self, queue: str, n_cards: int, otherwise_ms: int) -> int:
        """Stop and start of one job; ``otherwise_ms`` while there is nothing to go by."""
        stop, start = _known(self._stops, queue, n_cards), _known(self._starts, queue, n_cards)
        return otherwise_ms if stop is None or start is None else stop + start


def _learn(means: dict[tuple[str, int], _Mean], queue: str, n_cards: int, ms: int) -> None:
    for key in ((queue, n_cards), ("", 0)):
        means.setdefault(key, _Mean()).add(max(0, ms))


def _known(means: dict[tuple[str, int], _Mean], queue: str, n_cards: int) -> int | None:
    for key in ((queue, n_cards), ("", 0)):
        mean = means.get(key)
        if mean is not None and mean.n >= MIN_SEEN:
            return mean.mean_ms
    return None
