"""Virtual time over a decider: plays jobs whose durations the decider does not know, and books what came of it.

The decider is the production scheduler, or a baseline with the same ``step``. It sees exactly the events that a pool
would send: submissions, starts, ends, ticks. Durations stay here. Two events at one moment keep the order in which they
were caused; the same input gives the same commands, and ``Outcome.digest`` says so.

Model of the world: a member starts at once when commanded; an evicted member ends after its grace; when it starts again
it pays ``restart_ms`` and repeats the work since its last checkpoint (all of it, unless the job is checkpointable). A
member that is parked or woken does no work while its memory moves, at the rates of an H200, and none in host memory; if
it is evicted there, what it had not saved is lost. No other cost is charged; start-up, data loading and interference
between neighbours are not modelled.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, assert_never

from flexai.policy.move_cost import PARK_MS_PER_GIB, WAKE_MS_PER_GIB
from flexai.scheduling.commands import Book, Command, Evict, NoteAdvance, Park, Resize, SetJobState, Start, Wake, Weigh
from flexai.scheduling.events import (
    Event,
    JobSubmitted,
    MemberFinished,
    MemberParked,
    MemberStarted,
    MemberWoken,
    Tick,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flexai.model import Grant, Job

EVICTED_EXIT_CODE = 143
WATCH_EVERY = 1000
GIVE_UP_AFTER_IDLE_TICKS = 100
"""Nothing runs, nothing comes and the decider stays silent this often: what waits will wait for ever."""


class Decider(Protocol):
    """Anything that turns events into commands: ``flexai.scheduling`` or a baseline."""

    def step(self, event: Event) -> list[Command]:
        """Take one event; say what to do."""


@dataclass(frozen=True, slots=True)
class SimulatedJob:
    """A job and how long each of its members runs, in ms of work at its full request."""

    job: Job
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What an eviction costs: a restart, and the work since the last checkpoint; and what a park and a wake cost."""

    restart_ms: int = 60_000
    checkpoint_every_ms: int = 1_800_000
    park_ms_per_gib: int = PARK_MS_PER_GIB
    wake_ms_per_gib: int = WAKE_MS_PER_GIB


@dataclass(slots=True)
class Booked:
    """What became of one job. ``waited_ms`` is all time between submission and end in which it did not run."""

    job: Job
    duration_ms: int
    submitted_ms: int
    started_ms: int = -1
    finished_ms: int = -1
    ran_ms: int = 0
    n_evictions: int = 0
    lost_ms: int = 0

    @property
    def waited_ms(self) -> int:
        """Time not running, -1 if the job never ended."""
        return -1 if self.finished_ms < 0 else self.finished_ms - self.submitted_ms - self.ran_ms

    @property
    def n_cards(self) -> int:
        """Cards over all members."""
        return self.job.n_cards


@dataclass(frozen=True, slots=True)
class Sample:
    """The state between two events: compute granted (thousandths of a card) and members waiting."""

    at_ms: int
    granted_milli: int
    n_waiting: int


@dataclass(frozen=True, slots=True)
class Span:
    """One run of one member, from start to end or eviction, and what it held meanwhile."""

    job: Job
    from_ms: int
    to_ms: int
    grants: tuple[Grant, ...]


@dataclass(slots=True)
class Outcome:
    """A finished run: every job's book, who held what when, the state over time, and a digest of all commands."""

    jobs: list[Booked]
    spans: list[Span]
    samples: list[Sample]
    digest: str
    n_events: int
    n_starts: int
    n_evictions: int
    end_ms: int
    n_parks: int = 0


@dataclass(slots=True)
class _Member:
    booked: Booked
    index: int
    left_ms: int
    owed_ms: int = 0
    run: int = 0
    started_ms: int = -1
    grants: tuple[Grant, ...] = ()
    unsaved_ms: int = 0
    is_away: bool = False
    held_from_ms: int = -1

    @property
    def granted_milli(self) -> int:
        return sum(grant.compute_milli for grant in self.grants)

    @property
    def memory_bytes(self) -> int:
        return sum(grant.memory_bytes for grant in self.grants)


@dataclass(slots=True)
class Simulation:
    """One run. Give set-up events (nodes, queues) and jobs, then call ``play`` once."""

    decider: Decider
    costs: Costs = field(default_factory=Costs)
    tick_ms: int = 60_000
    steps_per_tick: int = 10_000
    watch: Callable[[float], None] = lambda _: None
    """Told now and then which part of the jobs has ended."""
    _heap: list[tuple[int, int, Event, int]] = field(default_factory=list)
    _members: dict[tuple[str, int], _Member] = field(default_factory=dict)
    _spans: list[Span] = field(default_factory=list)
    _samples: list[Sample] = field(default_factory=list)
    _order: int = 0
    _granted_milli: int = 0
    _n_waiting: int = 0
    _n_starts: int = 0
    _n_evictions: int = 0
    _n_parks: int = 0
    _n_ended: int = 0

    def play(self, setup: Iterable[Event], jobs: Sequence[SimulatedJob], until_ms: int | None = None) -> Outcome:
        """Run to the end of the last job, or to ``until_ms``; jobs that can never start end the run as waiting."""
        digest, n_events = hashlib.sha256(), 0
        for event in setup:
            self._push(event.at_ms, event)
        booked = [Booked(entry.job, entry.duration_ms, entry.job.submitted_at_ms) for entry in jobs]
        for book in booked:
            self._push(book.submitted_ms, JobSubmitted(book.submitted_ms, book.job))
            for index in range(book.job.n_members):
                self._members[book.job.id, index] = _Member(book, index, book.duration_ms)
        now_ms, n_idle_ticks = 0, 0
        while self._heap:
            now_ms, _, event, run = heapq.heappop(self._heap)
            if until_ms is not None and now_ms > until_ms:
                break
            if isinstance(event, MemberFinished) and not self._finish(event, run):
                continue
            if isinstance(event, MemberParked | MemberWoken) and not self._arrive(event, run):
                continue
            if isinstance(event, JobSubmitted):
                self._n_waiting += event.job.n_members
            n_events += 1
            if n_events % WATCH_EVERY == 0:
                self.watch(self._n_ended / max(len(self._members), 1))
            commands = self.decider.step(event)
            for command in commands:
                digest.update(repr(command).encode())
                self._obey(command, now_ms)
            self._sample(now_ms)
            idle = isinstance(event, Tick) and not commands and not self._heap
            n_idle_ticks = n_idle_ticks + 1 if idle else 0
            quiet = not self._heap or self._heap[0][0] > now_ms + self.tick_ms
            if self._n_waiting and quiet and n_idle_ticks < GIVE_UP_AFTER_IDLE_TICKS:
                self._push(now_ms + self.tick_ms, Tick(now_ms + self.tick_ms, self.steps_per_tick))
        for member in self._members.values():
            self._close(member, now_ms)
        return Outcome(
            booked, self._spans, self._samples, digest.hexdigest(), n_events, self._n_starts, self._n_evictions, now_ms,
            self._n_parks,
        )  # fmt: skip

    def _push(self, at_ms: int, event: Event, run: int = 0) -> None:
        self._order += 1
        heapq.heappush(self._heap, (at_ms, self._order, event, run))

    def _obey(self, command: Command, now_ms: int) -> None:
        match command:
            case Start():
                self._start(command, now_ms)
            case Evict():
                self._evict(command, now_ms)
            case Park():
                self._park(command, now_ms)
            case Wake():
                self._wake(command, now_ms)
            case Resize() | Weigh() | Book() | NoteAdvance() | SetJobState():
                pass
            case _:
                assert_never(command)

    def _start(self, command: Start, now_ms: int) -> None:
        member = self._members[command.job_id, command.member]
        assert member.started_ms < 0, f"{command.job_id}.{command.member} was started twice"
        member.run += 1
        member.started_ms = member.held_from_ms = now_ms
        member.grants = command.grants
        self._granted_milli += member.granted_milli
        self._n_waiting -= 1
        self._n_starts += 1
        if member.booked.started_ms < 0:
            member.booked.started_ms = now_ms
        self._push(now_ms, MemberStarted(now_ms, command.job_id, command.member))
        self._plan_end(member, now_ms)

    def _plan_end(self, member: _Member, now_ms: int) -> None:
        end_ms = now_ms + member.owed_ms + member.left_ms
        self._push(end_ms, MemberFinished(end_ms, member.booked.job.id, member.index, 0), member.run)

    def _park(self, command: Park, now_ms: int) -> None:
        """It stops working now, and has left its cards when its memory has."""
        member = self._members[command.job_id, command.member]
        if member.started_ms < 0:
            return
        member.run += 1
        ran_ms = now_ms - member.started_ms
        worked_ms = max(0, ran_ms - member.owed_ms)
        member.owed_ms = max(0, member.owed_ms - ran_ms)
        member.left_ms -= worked_ms
        member.unsaved_ms += worked_ms
        member.is_away = True
        if member.index == 0:
            member.booked.ran_ms += ran_ms
        self._n_parks += 1
        gone_ms = now_ms + (member.memory_bytes * self.costs.park_ms_per_gib >> 30)
        self._push(gone_ms, MemberParked(gone_ms, command.job_id, command.member), member.run)

    def _wake(self, command: Wake, now_ms: int) -> None:
        """Its place is its own again, and it works when its memory is there."""
        member = self._members[command.job_id, command.member]
        member.held_from_ms, member.grants = now_ms, command.grants or member.grants
        self._granted_milli += member.granted_milli
        self._n_waiting -= 1
        back_ms = now_ms + (member.memory_bytes * self.costs.wake_ms_per_gib >> 30)
        self._push(back_ms, MemberWoken(back_ms, command.job_id, command.member), member.run)

    def _arrive(self, event: MemberParked | MemberWoken, run: int) -> bool:
        """Its memory is where it was to go; not if it was evicted meanwhile."""
        member = self._members[event.job_id, event.member]
        if run != member.run:
            return False
        if isinstance(event, MemberParked):
            self._leave(member, event.at_ms)
            self._n_waiting += 1
        else:
            member.is_away, member.started_ms = False, event.at_ms
            self._plan_end(member, event.at_ms)
        return True

    def _evict(self, command: Evict, now_ms: int) -> None:
        member = self._members[command.job_id, command.member]
        if member.started_ms < 0:
            return
        member.run += 1  # the end that was planned will not come
        end_ms = now_ms + command.grace_ms
        done = MemberFinished(end_ms, command.job_id, command.member, EVICTED_EXIT_CODE)
        self._push(end_ms, done, member.run)
        worked_ms = 0 if member.is_away else max(0, end_ms - member.started_ms - member.owed_ms)
        member.left_ms += member.unsaved_ms
        worked_ms += member.unsaved_ms
        member.unsaved_ms = 0
        every_ms = self.costs.checkpoint_every_ms
        kept_ms = worked_ms // every_ms * every_ms if member.booked.job.checkpointable else 0
        kept_ms = min(kept_ms, member.left_ms)
        member.left_ms -= kept_ms
        member.owed_ms = self.costs.restart_ms
        self._n_evictions += 1
        if member.index == 0:
            member.booked.n_evictions += 1
            member.booked.lost_ms += worked_ms - kept_ms

    def _finish(self, event: MemberFinished, run: int) -> bool:
        member = self._members[event.job_id, event.member]
        if run != member.run:
            return False
        if member.index == 0 and not member.is_away:
            member.booked.ran_ms += event.at_ms - member.started_ms
        waits = member.held_from_ms < 0
        self._leave(member, event.at_ms)
        member.started_ms, member.grants, member.is_away = -1, (), False
        if event.exit_code == EVICTED_EXIT_CODE:
            self._n_waiting += not waits
        else:
            self._n_ended += 1
            member.booked.finished_ms = max(member.booked.finished_ms, event.at_ms)
        return True

    def _leave(self, member: _Member, now_ms: int) -> None:
        """It holds nothing of its cards any more."""
        if member.held_from_ms >= 0:
            self._granted_milli -= member.granted_milli
        self._close(member, now_ms)

    def _close(self, member: _Member, now_ms: int) -> None:
        if member.held_from_ms >= 0:
            self._spans.append(Span(member.booked.job, member.held_from_ms, now_ms, member.grants))
        member.held_from_ms = -1

    def _sample(self, now_ms: int) -> None:
        if self._samples and self._samples[-1].at_ms == now_ms:
            self._samples.pop()
        self._samples.append(Sample(now_ms, self._granted_milli, self._n_waiting))
