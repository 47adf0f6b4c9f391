"""Queueing baselines over one pool of like cards: what the scheduler is compared with on Philly.

Written from how they are described, as deciders like the scheduler itself: FIFO gangs (the head blocks everyone behind
it), greedy backfill (anyone who fits may pass), shortest first (by true durations given in, an oracle; or by the
running median per queue and size). No topology, no preemption, no slices.
"""

from __future__ import annotations

import bisect
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.model import Grant
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodePut

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flexai.model import Job
    from flexai.scheduling.commands import Command
    from flexai.scheduling.events import Event

UNKNOWN_MS = 3_600_000
QUEUE_ORDERS = ("fifo", "greedy", "shortest", "shortest-predicted")


@dataclass(slots=True)
class PoolBaseline:
    """Orders jobs of one pool. ``order`` is one of ``QUEUE_ORDERS``; ``durations_ms`` only for the oracle."""

    order: str
    durations_ms: Mapping[str, int] = field(default_factory=dict)
    _free: int = 0
    _waiting: dict[tuple[str, int], deque[Job]] = field(default_factory=dict)
    _oracle: list[tuple[int, int, Job]] = field(default_factory=list)
    _running: dict[str, tuple[Job, int, int]] = field(default_factory=dict)
    _finished_ms: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def step(self, event: Event) -> list[Command]:
        """Take one event; start what the order allows."""
        match event:
            case NodePut():
                self._free += len(event.node.devices)
            case JobSubmitted():
                self._arrive(event.job)
            case MemberFinished():
                self._leave(event)
            case _:
                return []
        return self._start_all(event.at_ms)

    def _arrive(self, job: Job) -> None:
        if self.order == "shortest":
            bisect.insort(self._oracle, (self.durations_ms[job.id], job.seq, job))
        elif self.order == "fifo":
            self._waiting.setdefault(("", 0), deque()).append(job)
        else:
            self._waiting.setdefault((job.queue, _n_cards(job)), deque()).append(job)

    def _leave(self, event: MemberFinished) -> None:
        job, started_ms, left = self._running[event.job_id]
        if left > 1:
            self._running[event.job_id] = (job, started_ms, left - 1)
            return
        del self._running[event.job_id]
        self._free += _n_cards(job)
        bisect.insort(self._finished_ms.setdefault((job.queue, _n_cards(job)), []), event.at_ms - started_ms)

    def _start_all(self, now_ms: int) -> list[Command]:
        commands: list[Command] = []
        while (job := self._next()) is not None:
            self._free -= _n_cards(job)
            self._running[job.id] = (job, now_ms, job.n_members)
            commands.extend(Start(job.id, member, _grants(job, member), self.order) for member in range(job.n_members))
        return commands

    def _next(self) -> Job | None:
        if self.order == "shortest":
            for place, (_, _, job) in enumerate(self._oracle):
                if _n_cards(job) <= self._free:
                    del self._oracle[place]
                    return job
                if self._free == 0:
                    return None
            return None
        heads = [(self._rank(key, line[0]), key) for key, line in self._waiting.items() if line]
        heads = [head for head in heads if _n_cards(self._waiting[head[1]][0]) <= self._free]
        return self._waiting[min(heads)[1]].popleft() if heads else None

    def _rank(self, key: tuple[str, int], head: Job) -> tuple[int, int]:
        if self.order != "shortest-predicted":
            return (0, head.seq)
        seen = self._finished_ms.get(key, ())
        return (seen[len(seen) // 2] if seen else UNKNOWN_MS, head.seq)


def _n_cards(job: Job) -> int:
    return job.n_cards


def _grants(job: Job, member: int) -> tuple[Grant, ...]:
    request = job.request_of(member)
    grant = Grant(
        job.id, member, "pool", "any", request.compute_milli, request.limit_milli, request.memory_bytes,
        request.tenant_class,
    )  # fmt: skip
    return (grant,) * request.n_devices
