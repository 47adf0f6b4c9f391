"""The one door through which things happen: durable first, then decided, then durable again, then done.

    post(event) -> log entry committed -> scheduler.step -> book -> derived rows committed -> driver, watchers

What waits behind a commit is released by it, so a process killed between any two arrows finds on restart everything
that was acknowledged, and has done nothing that it does not remember.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from flexai.adapters.sqlite import Entry, Journal, Statement, StoreError, rows
from flexai.apps.pool.book import Book, JobRecord
from flexai.apps.pool.retelling import retell
from flexai.apps.pool.transitions import Outcome, Transitions
from flexai.model import JobState, PendingReason, Reason
from flexai.policy.borrowing import Due
from flexai.scheduling import Blocker
from flexai.scheduling.commands import Command, NoteAdvance, SetJobState
from flexai.scheduling.events import (
    Event,
    JobMembersAsked,
    JobResizeAsked,
    JobSubmitted,
    MemberStarted,
    NodePut,
    ParkAsked,
    Tick,
)
from flexai.wire.store import LogEvent, PoolEvent, decode_event, encode_event

log = logging.getLogger("flexai.pool")

_SLICE_S = 0.005
"""The loop goes back to its clients after deciding for this long."""
_RETRY_S = 1.0
_MANY = 100


class DecisionCore(Protocol):
    """What the pool needs of Hi Scheduler."""

    def step(self, event: Event) -> Sequence[Command]:
        """Take one event; answer what to do."""
        ...

    def reason_for(self, job_id: str) -> PendingReason | None:
        """Why a job has not started; None if it has, or is not known."""
        ...

    def why_not_park(self, job_id: str) -> str:
        """Why its user cannot have a job moved to host memory now, as the end of a sentence; empty if he can."""
        ...

    def why_not_resize(self, event: JobResizeAsked) -> PendingReason | None:
        """Why the running members of a job cannot have other shares now; None if they can, or none runs."""
        ...

    def due_of(self, job_id: str) -> Mapping[int, tuple[Due, str]]:
        """What members of a job that borrow are due of what is idle, and why, by member."""
        ...

    def what_must_end(self, job_id: str) -> Sequence[Blocker]:
        """Jobs whose end would let a waiting one start."""
        ...


@dataclass(slots=True)
class _Pending:
    event: LogEvent
    extra: dict[str, Any] = field(default_factory=dict)
    added: JobRecord | None = None
    committed: asyncio.Future[None] | None = None
    applied: asyncio.Future[None] | None = None


class Core:
    """Orders events, keeps the scheduler and the book in step with the log."""

    def __init__(
        self,
        new_scheduler: Callable[[], DecisionCore],
        book: Book,
        clock: Callable[[], int],
        meta: dict[str, int],
        last_seq: int,
    ) -> None:
        self._new_scheduler = new_scheduler
        self.clock = clock
        self.scheduler = new_scheduler()
        self.book = book
        self.transitions = Transitions(book, meta.get("history", 0))
        self.agent_is_away: Callable[[], bool] = lambda: False
        self.on_durable: list[Callable[[Outcome], None]] = []
        self.told: Sequence[Event] = ()
        self.tick_us = 0
        self.decision_us: deque[int] = deque(maxlen=20_000)
        self._journal: Journal | None = None
        self._seq = last_seq
        self._applied_seq = meta.get("applied_seq", 0)
        self._committed: deque[tuple[int, _Pending]] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._stored: list[asyncio.Future[None]] = []
        self._n_flushed = self._n_stored = 0
        self._watchers: dict[str, list[asyncio.Future[None]]] = {}

    # -- the start ------------------------------------------------------------------------------------------------

    def recover(self, tail: Sequence[tuple[int, str, str]], ended_at_ms: int) -> None:
        """Bring scheduler and book to the end of the log, at ``ended_at_ms``: what the tables say, and what came after.

        No node is known yet, so nothing is decided; the agent's arrival does that.
        """
        self.told = self._tell_scheduler(ended_at_ms)
        for seq, kind, body in tail:
            event = decode_event(kind, body)
            # A job's row is written with its submission: the tables have told it already.
            if not isinstance(event, JobSubmitted):
                self._apply(seq, event, {})
            self._applied_seq = seq

    def attach(self, journal: Journal) -> None:
        """Everything from now on is written here."""
        self._journal = journal

    def _tell_scheduler(self, ended_at_ms: int | None = None) -> Sequence[Event]:
        """Tell a new scheduler all that the book knows, in the order of ``scheduling.events``; returns what.

        ``ended_at_ms``: from then to now there was no pool; None if there always was one.
        """
        self.scheduler = self._new_scheduler()
        now_ms = self.clock()
        told = retell(self.book, now_ms, now_ms if ended_at_ms is None else ended_at_ms)
        for event in told:
            # These are known already and decide nothing, but for a job that can never start.
            self.transitions.commands(self._seq, now_ms, [c for c in self._guarded(event) if _is_news(c)])
        for node in self.book.nodes.values():
            self.transitions.commands(self._seq, now_ms, self._guarded(NodePut(now_ms, node)))
        return told

    def _guarded(self, event: Event) -> Sequence[Command]:
        """A step that a new scheduler must survive; a job that makes it fail ends, and says so."""
        try:
            return self.scheduler.step(event)
        except Exception:
            log.exception("the scheduler cannot take %s", event)
        if isinstance(event, JobSubmitted):
            return [SetJobState(event.job.id, JobState.FAILED, "internal error of the scheduler; see the pool's log")]
        return []

    # -- the way of an event --------------------------------------------------------------------------------------

    async def post(self, event: LogEvent, extra: dict[str, Any] | None = None) -> None:
        """Make an event durable and decide; returns when the book shows the result.

        Raises:
            StoreError: it could not be written, and has not happened.
        """
        applied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._append(_Pending(event, extra or {}, applied=applied))
        await applied

    async def post_surely(self, event: LogEvent, extra: dict[str, Any] | None = None) -> None:
        """The same for what has happened anyway (a process ended): waits for room on the disk if it must."""
        while True:
            try:
                return await self.post(event, extra)
            except StoreError as error:
                log.warning("cannot record %s yet: %s", event, error)
                await asyncio.sleep(_RETRY_S)

    async def submit(self, records: Sequence[JobRecord], statements: tuple[Statement, ...]) -> None:
        """Acknowledge jobs: returns when they are durable, in one transaction; the decisions follow.

        Raises:
            StoreError: they could not be written; none of them exists.
        """
        loop = asyncio.get_running_loop()
        # Writing out a large array takes long; a thread does it, so that decisions go on.
        written = _written(records) if len(records) < _MANY else await loop.run_in_executor(None, _written, records)
        committed: asyncio.Future[None] = loop.create_future()
        entries = []
        for record, (kind, body, statement) in zip(records, written, strict=True):
            self._seq += 1
            pending = _Pending(JobSubmitted(record.job.submitted_at_ms, record.job), added=record)
            if record is records[-1]:
                pending.committed = committed
            entries.append(Entry(self._seq, record.job.submitted_at_ms, kind, body, (*statements, statement), pending))
            statements = ()
        self._attached().append(*entries)
        await committed

    def _append(self, pending: _Pending) -> None:
        self._seq += 1
        kind, body = encode_event(pending.event)
        self._attached().append(Entry(self._seq, pending.event.at_ms, kind, body, (), pending))

    def _attached(self) -> Journal:
        assert self._journal is not None, "nothing happens before the journal is attached"
        return self._journal

    def on_commit(self, entries: Sequence[Entry], error: StoreError | None) -> None:
        """The journal's report; called in the loop, in order."""
        for entry in entries:
            pending = entry.context
            if not isinstance(pending, _Pending):
                raise TypeError(f"not ours: {entry}")
            if error is None:
                if pending.added is not None:
                    self.book.add(pending.added)
                self._committed.append((entry.seq, pending))
                _resolve(pending.committed, None)
            else:
                _resolve(pending.committed, error)
                _resolve(pending.applied, error)
        self._wake.set()

    async def run(self) -> None:
        """Decide, in the order of the log, as long as the process lives."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._committed:
                slice_end = time.perf_counter() + _SLICE_S
                waiting = []
                while self._committed and time.perf_counter() < slice_end:
                    seq, pending = self._committed.popleft()
                    self._apply(seq, pending.event, pending.extra)
                    self._applied_seq = seq
                    waiting.append(pending)
                self.flush()
                for pending in waiting:
                    _resolve(pending.applied, None)
                await asyncio.sleep(0)
            self._idle.set()

    def flush(self) -> None:
        """Hand the effects so far to the journal; watchers and driver follow when they are durable."""
        outcome = self.transitions.take()
        for job_id in outcome.jobs:
            for watcher in self._watchers.pop(job_id, ()):
                _resolve(watcher, None)
        if self._journal is None:
            raise RuntimeError("nothing happens before the journal is attached")
        changed = list(outcome.rows.items())
        self._n_flushed += 1
        if changed:
            changed.append(("meta history", rows.put_meta("history", outcome.last_history)))
        self._journal.derive(changed, self._applied_seq, lambda: self._durable(outcome), urgent=bool(outcome.members))

    @property
    def applied_seq(self) -> int:
        """The last log entry that the book shows."""
        return self._applied_seq

    async def decided(self, timeout_s: float = 0.5) -> None:
        """Returns when all that is acknowledged is decided, or late when that takes longer."""
        if self._committed:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._idle.wait()

    async def stored(self, timeout_s: float = 0.5) -> None:
        """Returns when the tables say what has happened until now, or late when the disk does not let them."""
        deadline = time.monotonic() + timeout_s
        await self.decided(timeout_s)
        wanted = self._n_flushed
        while self._n_stored < wanted and (left_s := deadline - time.monotonic()) > 0:
            self._stored.append(asyncio.get_running_loop().create_future())
            await asyncio.wait([self._stored[-1]], timeout=left_s)

    def _durable(self, outcome: Outcome) -> None:
        self._n_stored += 1
        for record in outcome.ended:
            self.book.ended.pop(record.id, None)
        stored, self._stored = self._stored, []
        for waiter in stored:
            _resolve(waiter, None)
        for callback in self.on_durable:
            callback(outcome)

    def _apply(self, seq: int, event: LogEvent, extra: dict[str, Any]) -> None:
        self.transitions.event(event, extra)
        if isinstance(event, PoolEvent):
            return
        began = time.perf_counter()
        commands = self._step(event)
        took_us = int((time.perf_counter() - began) * 1e6)
        self.decision_us.append(took_us)
        if isinstance(event, Tick):
            self.tick_us = took_us
        self.transitions.commands(seq, event.at_ms, commands)
        if isinstance(event, JobResizeAsked | JobMembersAsked):
            self.transitions.resized(event)
        elif isinstance(event, ParkAsked):
            self.transitions.park_asked(event)
        elif isinstance(event, MemberStarted):
            self.transitions.started(event.job_id)

    def _step(self, event: Event) -> Sequence[Command]:
        try:
            return self.scheduler.step(event)
        except Exception:
            # A bug of ours must neither take the pool down nor leave half a decision behind.
            log.exception("the scheduler failed on %s; a new one is told what the book knows", event)
            self._tell_scheduler()
            return []

    def reason_for(self, record: JobRecord) -> PendingReason | None:
        """Why a job has not started, now; None for one that has."""
        if record.state not in {JobState.QUEUED, JobState.HELD, JobState.STARTING, JobState.PARKED}:
            return None
        if self.agent_is_away() and record.state is not JobState.HELD:
            message = "The agent, which holds the cards, is not running; the job goes on when it is back."
            return PendingReason(Reason.AGENT_AWAY, message)
        return self.scheduler.reason_for(record.id)

    def note(self, job_id: str, kind: str, body: dict[str, Any]) -> None:
        """Put a line into a job's history; nothing depends on it, so nobody waits for the disk."""
        if (record := self.book.active.get(job_id)) is not None:
            self.transitions.note(self.clock(), record, kind, body)
            self.flush()

    # -- those who wait -------------------------------------------------------------------------------------------

    def changed(self, job_id: str) -> asyncio.Future[None]:
        """Done when something about the job changes."""
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.setdefault(job_id, []).append(watcher)
        return watcher


def _is_news(command: Command) -> bool:
    """Whether the book must know what a scheduler made of what it was told."""
    return isinstance(command, NoteAdvance) or (isinstance(command, SetJobState) and command.state.is_final)


def _written(records: Sequence[JobRecord]) -> list[tuple[str, str, Statement]]:
    """(kind, body, row) of the log entries that acknowledge jobs."""
    return [
        (*encode_event(JobSubmitted(record.job.submitted_at_ms, record.job)), rows.put_job(record.row()))
        for record in records
    ]


def monotone_wall_clock() -> Callable[[], int]:
    """Wall time in milliseconds that never goes back while the process lives."""
    last_ms = 0

    def now_ms() -> int:
        nonlocal last_ms
        last_ms = max(last_ms, time.time_ns() // 1_000_000)
        return last_ms

    return now_ms


def _resolve(future: asyncio.Future[None] | None, error: Exception | None) -> None:
    if future is None or future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
