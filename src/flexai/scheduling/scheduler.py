"""``Scheduler``: one event in, commands out.

The order of actions in a step: book the event; start what can start (``placing``); evict for who is owed
(``evicting``); gather scattered free cards (``consolidating``); start best-effort work on idle compute (``lending``).
Unknown, duplicate and late events change nothing: an event says what is, and what is already so is not news.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from flexai.model import DeviceHealth, JobState, MemberState
from flexai.scheduling import consolidating, evicting, lending, placing, reasons
from flexai.scheduling.commands import Evict, Resize
from flexai.scheduling.events import (
    DeviceChanged,
    Event,
    ForeignUsage,
    GrantsFound,
    JobCancelled,
    JobHeld,
    JobReleased,
    JobResizeAsked,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodeGone,
    NodePut,
    QueueGone,
    QueuePut,
    Tick,
    UsageMeasured,
)
from flexai.scheduling.records import JobRecord, MemberRecord
from flexai.scheduling.settings import SchedulerSettings
from flexai.scheduling.state import State

if TYPE_CHECKING:
    from flexai.model import Grant, Job, PendingReason
    from flexai.scheduling.commands import Command

SMALL_POOL = 64
"""Nodes below which a job of a quarter of the pool is big, whatever ``reserve_cards`` says."""


class Scheduler:
    """Hi Scheduler. ``step`` is all there is to it; ``reason_for`` reads."""

    def __init__(self, settings: SchedulerSettings | None = None, *, check: bool = False) -> None:
        """``check`` asserts the invariants after each step (tests)."""
        self._state = State(settings or SchedulerSettings())
        self._check = check

    @property
    def state(self) -> State:
        """To look at, not to change."""
        return self._state

    @property
    def n_waiting(self) -> int:
        """Jobs that could start if there were room (held and dependent ones apart)."""
        return sum(len(line.jobs) for line in self._state.lines.values())

    def step(self, event: Event) -> list[Command]:
        """Take one event; answer what to do."""
        state = self._state
        state.now_ms = max(state.now_ms, event.at_ms)
        state.out = []
        self._book(event)
        placing.run_round(state)
        if isinstance(event, Tick):
            evicting.run(state, list(state.lines.values()), event.steps)
            consolidating.run(state)
        elif isinstance(event, JobSubmitted) and (record := state.jobs.get(event.job.id)) is not None:
            line = state.lines.get(record.line) if record.line is not None else None
            evicting.run(state, [line] if line is not None else [], evicting.STEPS)
        if isinstance(event, UsageMeasured | Tick):
            lending.run(state)
        state.compact()
        if self._check:
            state.books.check()
        return state.out

    def reason_for(self, job_id: str) -> PendingReason | None:
        """Why a job has not started; None if it has, or is not known."""
        return reasons.reason_for(self._state, job_id)

    def _book(self, event: Event) -> None:
        state = self._state
        state.settling = isinstance(event, NodePut | NodeGone | DeviceChanged | ForeignUsage)
        if state.settling:
            state.reservation = None
        match event:
            case NodePut():
                self._put_node(event)
            case NodeGone():
                self._evict_from(set(state.books.drop_node(event.name)), "node is gone")
            case DeviceChanged():
                self._device(event)
            case ForeignUsage():
                state.books.set_foreign(event.uuid, event.compute_milli, event.memory_bytes)
            case QueuePut():
                state.queues.put(event.queue)
                state.ready.update(state.deferred)
                state.deferred.clear()
            case QueueGone():
                state.queues.drop(event.name)
            case JobSubmitted():
                self._submit(event.job)
            case JobHeld() | JobReleased():
                self._hold(event.job_id, held=isinstance(event, JobHeld))
            case JobCancelled():
                self._cancel(event.job_id)
            case JobResizeAsked():
                self._resize(event)
            case MemberStarted():
                self._started(event)
            case MemberFinished():
                self._finished(event)
            case GrantsFound():
                self._found(event)
            case UsageMeasured():
                state.measured_milli = {(job, member, uuid): milli for job, member, uuid, milli in event.used}
            case Tick():
                self._age()
            case _:
                assert_never(event)

    def _put_node(self, event: NodePut) -> None:
        state = self._state
        n_models = len(state.books.models)
        row = state.books.row_of.get(event.node.name)
        before = set() if row is None else set(state.books.uuids[row])
        state.books.put_node(event.node)
        self._evict_from(before - {device.uuid for device in event.node.devices}, "card is gone")
        if len(state.books.models) != n_models:
            self._reshape()
        for job_id in state.found_on.pop(event.node.name, ()):
            grants = state.found.get(job_id)
            if grants and all(
                grant.node in state.books.row_of and grant.device in state.books.place_of for grant in grants
            ):
                del state.found[job_id]
                self._take_found(state.jobs[job_id], grants)
        self._set_big()

    def _set_big(self) -> None:
        """What counts as a big job depends on the size of a small pool."""
        state, books = self._state, self._state.books
        n_cards = sum(len(node.devices) for node in books.nodes.values()) if len(books.nodes) < SMALL_POOL else 10**6
        big_from = min(state.settings.reserve_cards, max(2, n_cards // 4))
        if big_from != state.big_from:
            state.big_from = big_from
            for record in [each for each in state.jobs.values() if not each.is_placed]:
                self._mark_big(record)

    def _device(self, event: DeviceChanged) -> None:
        books = self._state.books
        for why, closed in (("ill", event.health is not DeviceHealth.HEALTHY), ("cordoned", event.cordoned)):
            (books.close if closed else books.open)(event.uuid, why)
        if event.drain:
            self._evict_from({event.uuid}, "card is drained")

    def _submit(self, job: Job) -> None:
        state = self._state
        if job.id in state.jobs or job.id in state.ended:
            return
        record = self._record(job)
        state.mix.add(record.shape, job.n_members)
        failed = [name for name in job.after if state.ended.get(name) is False]
        record.waits_on = {name for name in job.after if name not in state.ended}
        for name in record.waits_on:
            state.dependants.setdefault(name, []).append(job.id)
        if failed:
            self._end(record, JobState.CANCELLED, f"job {failed[0]} did not succeed")
        elif job.held:
            record.state = JobState.HELD
        elif not record.waits_on:
            state.wait(record)
            self._mark_big(record)

    def _record(self, job: Job) -> JobRecord:
        state = self._state
        burst = state.run_times.submitted(
            f"{job.queue}/{job.user}", job.n_members * job.request.n_devices, state.now_ms
        )
        members = [MemberRecord() for _ in range(job.n_members)]
        record = state.jobs[job.id] = JobRecord(job, state.shape_of(job), burst, JobState.QUEUED, members)
        return record

    def _hold(self, job_id: str, *, held: bool) -> None:
        state = self._state
        record = state.jobs.get(job_id)
        if record is None or record.is_placed or (record.state is JobState.HELD) == held:
            return
        if held and not record.waits_on:
            state.leave(record)
        record.job = replace(record.job, held=held)
        state.set_state(record, JobState.HELD if held else JobState.QUEUED, "its user asked")
        if not held and not record.waits_on:
            state.wait(record)
            self._mark_big(record)

    def _cancel(self, job_id: str) -> None:
        state = self._state
        record = state.jobs.get(job_id)
        if record is None or record.cancelled:
            return
        record.cancelled = True
        if job_id in state.found:  # its processes may live on a node that is not back yet
            for index in sorted({grant.member for grant in state.found[job_id]}):
                record.members[index].evicting, record.members[index].requeue = True, False
                state.out.append(Evict(job_id, index, state.settings.grace_ms, requeue=False, cause="cancelled"))
            state.set_state(record, JobState.STOPPING, "cancelled")
            return
        if not record.is_placed:
            state.leave(record)
            self._end(record, JobState.CANCELLED, "cancelled")
            return
        state.leave(record)
        for index, member in enumerate(record.members):
            if member.hold is not None:
                member.evicting, member.requeue = True, False
                state.out.append(Evict(job_id, index, state.settings.grace_ms, requeue=False, cause="cancelled"))
        state.set_state(record, JobState.STOPPING, "cancelled")

    def _resize(self, event: JobResizeAsked) -> None:
        state = self._state
        record = state.jobs.get(event.job_id)
        if record is None or record.job.request.n_devices == 0:
            return
        request = replace(
            record.job.request, compute_milli=event.compute_milli,
            limit_milli=max(event.limit_milli, event.compute_milli),
        )  # fmt: skip
        if not record.is_placed:
            waits = record.line is not None
            if waits:
                state.leave(record)
            record.job = replace(record.job, request=request)
            record.shape = state.shape_of(record.job)
            if waits:
                state.wait(record)
            return
        growth = event.compute_milli - record.job.request.compute_milli
        placed = [
            (index, member)
            for index, member in enumerate(record.members)
            if member.hold is not None and not member.lent
        ]
        for _, member in placed:
            hold = member.hold
            assert hold is not None
            if any(state.books.free_milli[hold.row, column] < growth for column in hold.columns):
                return
        if growth > 0 and state.queues.over_limit(record.job.queue, growth * record.n_cards):
            return
        grows = record.line is not None
        state.leave(record)
        record.job = replace(record.job, request=request)
        record.shape = state.shape_of(record.job)
        if grows:
            state.wait(record)
        for index, member in placed:
            hold = member.hold
            assert hold is not None
            state.books.give(hold)
            state.unhold(record, member)
            resized = replace(hold, compute_milli=event.compute_milli)
            state.books.take(resized)
            state.hold(record, member, resized)
            state.reservation = None
            member.grants = state.grants_of(record, index, resized)
            state.out.append(Resize(record.job.id, index, member.grants, "its user asked"))

    def _started(self, event: MemberStarted) -> None:
        record = self._state.jobs.get(event.job_id)
        if record is None or event.member >= len(record.members):
            return
        member = record.members[event.member]
        if member.hold is None or member.evicting:
            return
        member.state = MemberState.RUNNING
        if all(each.state is not MemberState.STARTING for each in record.members):
            self._state.set_state(record, JobState.RUNNING, "started")

    def _finished(self, event: MemberFinished) -> None:
        state = self._state
        record = state.jobs.get(event.job_id)
        if record is None or event.member >= len(record.members):
            return
        member = record.members[event.member]
        if member.hold is None and not self._forget_found(event):
            return
        state.free(record, member)
        requeued = member.evicting and member.requeue and event.exit_code != 0 and not record.cancelled
        member.evicting, member.requeue = False, False
        member.state = MemberState.WAITING if requeued else MemberState.FINISHED
        if not requeued and event.exit_code and not record.exit_code:
            record.exit_code, record.cause = event.exit_code, event.cause
        if record.is_placed or event.job_id in state.found:
            # A gang that lost a member cannot go on: the others are stopped, and all start again or none.
            if not requeued and event.exit_code and record.job.min_member == record.job.n_members > 1:
                evicting.stop_rest(state, record, "another member failed")
            return
        state.note_running(record, runs=False)
        if any(each.state is MemberState.WAITING for each in record.members) and not record.cancelled:
            if requeued or not record.exit_code:
                self._requeue(record, evicted=requeued)
                return
            state.leave(record)  # an elastic job whose members failed grows no more
        ran_ms = max(0, state.now_ms - record.started_at_ms)
        if record.exit_code == 0 and not record.cancelled:
            state.run_times.finished(record.burst, record.job.id, ran_ms)
            self._end(record, JobState.SUCCEEDED, event.cause or "exited", known=False)
        elif record.cancelled:
            self._end(record, JobState.CANCELLED, event.cause or "cancelled")
        else:
            state.run_times.finished(record.burst, record.job.id, ran_ms)
            self._end(record, JobState.FAILED, record.cause or event.cause, known=False)

    def _requeue(self, record: JobRecord, *, evicted: bool) -> None:
        """Nothing of the job runs, and it is not over: a gang starts again as a whole, an elastic job its rest."""
        state = self._state
        state.leave(record)
        state.run_times.stopped(record.burst, record.job.id)
        record.n_evictions += evicted
        record.exit_code, record.cause, record.started_at_ms = 0, "", -1
        if record.job.min_member == record.job.n_members:
            for member in record.members:
                member.state = MemberState.WAITING
        cause = "evicted; keeps its place in the queue" if evicted else "the rest of its members wait"
        state.set_state(record, JobState.QUEUED, cause)
        state.wait(record)
        self._mark_big(record)

    def _end(self, record: JobRecord, final: JobState, cause: str, *, known: bool = True) -> None:
        state = self._state
        job_id = record.job.id
        if known:
            state.run_times.forget(record.burst, job_id)
        del state.jobs[job_id]
        if state.reservation is not None and state.reservation.job_id == job_id:
            state.reservation = None
            state.ready.update(state.deferred)
            state.deferred.clear()
        state.set_state(record, final, cause)
        succeeded = final is JobState.SUCCEEDED
        state.ended[job_id] = succeeded
        for name in state.dependants.pop(job_id, ()):
            waiting = state.jobs.get(name)
            if waiting is None or job_id not in waiting.waits_on:
                continue
            if not succeeded:
                self._end(waiting, JobState.CANCELLED, f"job {job_id} did not succeed")
                continue
            waiting.waits_on.discard(job_id)
            if not waiting.waits_on and waiting.state is JobState.QUEUED:
                state.wait(waiting)
                self._mark_big(waiting)

    def _found(self, event: GrantsFound) -> None:
        state, job, grants = self._state, event.job, event.grants
        if job.id in state.jobs:
            return
        record = self._record(job)
        for index in event.evicted:
            record.members[index].evicting = record.members[index].requeue = True
        record.state, record.started_at_ms = JobState.RUNNING, state.now_ms
        state.note_running(record, runs=True)
        if all(grant.node in state.books.row_of and grant.device in state.books.place_of for grant in grants):
            self._take_found(record, list(grants))
        else:
            state.found[job.id] = list(grants)
            for grant in grants:
                state.found_on.setdefault(grant.node, {})[job.id] = None

    def _forget_found(self, event: MemberFinished) -> bool:
        """A member found after a restart ended before its node came back; whether it was one of those."""
        found = self._state.found.get(event.job_id, [])
        left = [grant for grant in found if grant.member != event.member]
        if left:
            self._state.found[event.job_id] = left
        else:
            self._state.found.pop(event.job_id, None)
        return len(left) < len(found)

    def _take_found(self, record: JobRecord, grants: list[Grant]) -> None:
        """Book grants that exist: they are truth, even on a card that is cordoned."""
        state = self._state
        by_member: dict[int, list[Grant]] = {}
        for grant in grants:
            by_member.setdefault(grant.member, []).append(grant)
        for index, member in enumerate(record.members):
            held = by_member.get(index)
            if not held:
                member.state = MemberState.FINISHED
                continue
            places = [state.books.place_of[grant.device] for grant in held]
            shape = record.shape
            hold = placing.hold_of(
                places, held[0].compute_milli, tuple(grant.memory_bytes for grant in held), shape.cpu_milli,
                shape.ram_bytes,
            )  # fmt: skip
            state.books.take(hold)
            if shape.compute_milli and not hold.compute_milli:
                member.lent = True
                state.lent[record.job.id, index] = None
            state.hold(record, member, hold)
            member.state, member.grants = MemberState.RUNNING, tuple(held)
        state.run_times.started(record.burst, record.job.id, state.now_ms)

    def _evict_from(self, uuids: set[str], cause: str) -> None:
        """Stop everything that holds one of these cards; it is requeued."""
        if not uuids:
            return
        for record in list(self._state.jobs.values()):
            if any(grant.device in uuids for member in record.members for grant in member.grants):
                evicting.evict_job(self._state, record, cause)

    def _reshape(self) -> None:
        """Models became known: shapes that name them mean something else now."""
        state = self._state
        for record in state.jobs.values():
            if record.job.request.models and not record.is_placed:
                waits = record.line is not None
                if waits:
                    state.leave(record)
                record.shape = state.shape_of(record.job)
                if waits:
                    state.wait(record)

    def _mark_big(self, record: JobRecord) -> None:
        """Note whether the job is one that gets a reservation at once."""
        state = self._state
        if record.n_cards >= state.big_from and record.state is JobState.QUEUED and not record.waits_on:
            state.big[record.job.id] = None

    def _age(self) -> None:
        """A job that has waited very long gets a reservation, whatever its size."""
        state = self._state
        for line in state.lines.values():
            head = line.head
            if state.now_ms - head.job.submitted_at_ms >= state.settings.reserve_after_ms:
                state.big.setdefault(head.job.id, None)
        if state.deferred or state.big:
            state.ready.update(state.deferred)
            state.deferred.clear()
            state.reservation = None
