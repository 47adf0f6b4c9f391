"""What an event and the scheduler's commands make of the book; and the derived rows that say so.

Synchronous and without I/O: the same entries on the same book give the same rows, which is what makes the tables
derived ones.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, assert_never

from flexai.adapters.sqlite import Statement, rows
from flexai.apps.pool.book import Book, JobRecord, MemberKey
from flexai.model import DeviceHealth, Grant, JobState, MemberState, Residence
from flexai.scheduling import SchedulerSettings
from flexai.scheduling import commands as c
from flexai.scheduling import events as e
from flexai.wire import store as w
from flexai.wire.store import Booked, LogEvent, Member, Stop, dumps, encode_value, to_plain


@dataclass(slots=True)
class Outcome:
    """Effects of some log entries, to be made durable before they are carried out.

    Attributes:
        rows: derived rows by what they describe, so that a later one replaces an earlier one.
        members: members that the driver should look at.
        jobs: jobs that changed, for those who wait on them.
        ended: jobs that became final.
        last_history: number of the latest line of history.
    """

    rows: dict[object, Statement] = field(default_factory=dict)
    members: set[MemberKey] = field(default_factory=set)
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    ended: list[JobRecord] = field(default_factory=list)
    last_history: int = 0


class Transitions:
    """Applies log entries to the book."""

    def __init__(self, book: Book, last_history: int) -> None:
        self._book, self.last_history = book, last_history
        self.outcome = Outcome()

    def take(self) -> Outcome:
        """The effects since the last call."""
        outcome, self.outcome = self.outcome, Outcome()
        for record in outcome.jobs.values():
            outcome.rows["job", record.id] = rows.put_job(record.row())
        outcome.last_history = self.last_history
        return outcome

    def event(self, event: LogEvent, extra: dict[str, Any]) -> None:
        """What the event itself changes, before the scheduler has seen it."""
        match event:
            case e.JobSubmitted(job=job):
                if record := self._book.active.get(job.id):
                    # Its row was written with the entry itself.
                    self._line(event.at_ms, record, "Submitted", {"state": record.state}, changed=False)
            case e.JobHeld() | e.JobReleased():
                if record := self._book.active.get(event.job_id):
                    self._book.held(record, isinstance(event, e.JobHeld))
                    self._line(event.at_ms, record, type(event).__name__.removeprefix("Job"), extra)
            case e.JobCancelled() | e.JobResizeAsked() | e.JobMembersAsked():
                if record := self._book.active.get(event.job_id):
                    self._line(event.at_ms, record, _ASKED[type(event)], extra)
                    if isinstance(event, e.JobCancelled):
                        record.cause = str(extra.get("cause") or "")
            case w.ClientFinished() | w.PauseAsked() | w.StopAsked():
                if record := self._book.active.get(event.job_id):
                    self._asked(record, event)
            case e.ParkAsked():
                if record := self._book.active.get(event.job_id):
                    self._line(event.at_ms, record, "ParkAsked" if event.parked else "WakeAsked", extra)
            case w.PoolStarted():
                self._line(event.at_ms, None, "PoolStarted", _chosen(event.scheduler))
            case e.MemberStarted():
                self._started(event)
            case e.MemberFinished():
                self._finished(event)
            case e.MemberParked() | e.MemberWoken():
                self._moved(event)
            case e.QueuePut(queue=queue):
                self._book.queues[queue.name] = queue
                self.outcome.rows["queue", queue.name] = rows.put_queue(queue.name, encode_value(queue))
                self._line(event.at_ms, None, "QueuePut", {"queue": queue.name})
            case e.QueueGone():
                self._book.queues.pop(event.name, None)
                self.outcome.rows["queue", event.name] = rows.drop_queue(event.name)
                self._line(event.at_ms, None, "QueueGone", {"queue": event.name})
            case e.NodePut(node=node):
                self._book.nodes[node.name] = node
            case e.NodeGone():
                self._book.nodes.pop(event.name, None)
            case e.DeviceChanged():
                self._device(event)
            case e.ForeignUsage():
                self._book.foreign[event.uuid] = event
            case _:
                pass  # measurements, ticks and restarts change nothing that the book keeps

    def commands(self, seq: int, at_ms: int, commands: Sequence[c.Command]) -> None:
        """What the scheduler decided."""
        for command in commands:
            if isinstance(command, c.NoteAdvance):
                at = command.queue, command.resource
                self._book.advances[at] = command
                self.outcome.rows["advance", *at] = rows.put_advance(*astuple(command))
                continue
            record = self._book.find(command.job_id)
            if record is None:
                continue
            self.outcome.jobs[record.id] = record
            match command:
                case c.Start():
                    self._start(at_ms, record, command)
                case c.Evict():
                    stop = Stop(command.grace_ms, command.requeue, command.cause, command.claimant)
                    self._change(record, command.member, stop=stop)
                    self._line(at_ms, record, "Evict", {"member": command.member, "cause": command.cause})
                case c.Resize():
                    self._regrant(at_ms, record, command.member, command.grants)
                    self._line(at_ms, record, "Resize", _grants_line(command.member, command.grants, command.cause))
                case c.Weigh():
                    self._change(record, command.member, grants=command.grants)
                    (weight,) = {grant.borrow_weight for grant in command.grants}
                    told = {"member": command.member, "cause": command.cause, "borrow_weight": weight}
                    self._line(at_ms, record, "Weigh", told)
                case c.Park() | c.Wake():
                    self._told_to_move(at_ms, record, command)
                    name = type(command).__name__
                    told = {"member": command.member, "cause": command.cause}
                    if isinstance(command, c.Wake) and command.grants:
                        told = _grants_line(command.member, command.grants, command.cause)
                    self._line(at_ms, record, name, told)
                case c.Book():
                    kept = Booked(seq, command.grants, command.hosts, command.claimed)
                    self._book_place(record, kept if command.grants or command.hosts else None)
                case c.SetJobState():
                    self._state(seq, at_ms, record, command)
                case _:
                    assert_never(command)

    def _book_place(self, record: JobRecord, booked: Booked | None) -> None:
        record.members[0] = replace(record.members[0], booked=booked)

    def _start(self, at_ms: int, record: JobRecord, start: c.Start) -> None:
        if record.members[0].booked is not None:
            self._book_place(record, None)
        before = record.members[start.member]
        record.members[start.member] = Member(MemberState.STARTING, before.run + 1, start.grants, node=start.node)
        self.outcome.members.add((record.id, start.member))
        self._hold(at_ms, record, start.member, start.grants)
        self._line(at_ms, record, "Start", _grants_line(start.member, start.grants, start.cause))

    def _started(self, event: e.MemberStarted) -> None:
        record = self._book.active.get(event.job_id)
        if record is None or record.members[event.member].state is not MemberState.STARTING:
            return
        self._change(record, event.member, state=MemberState.RUNNING, started_at_ms=event.at_ms)
        if record.started_at_ms is None:
            record.started_at_ms = event.at_ms
        self._line(event.at_ms, record, "Running", {"member": event.member})

    def _finished(self, event: e.MemberFinished) -> None:
        record = self._book.active.get(event.job_id)
        if record is None or not record.members[event.member].is_placed:
            return
        stop = record.members[event.member].stop
        again = (
            stop is not None and stop.requeue and event.exit_code != 0
        )  # its job goes on, or waits, and starts it anew
        self._change(
            record, event.member, state=MemberState.WAITING if again else MemberState.FINISHED, grants=(),
            exit_code=event.exit_code, stop=None, paused=False, parked=False, residence=Residence.ON_CARD,
        )  # fmt: skip
        # The first failure is the one to show; a requeued job starts clean.
        if again:
            pass
        elif event.exit_code != 0 and not record.exit_code:
            record.exit_code, record.cause = event.exit_code, record.cause or event.cause
        elif record.exit_code is None:
            record.exit_code = event.exit_code
        key = "usage end", record.id, event.member, record.members[event.member].run
        self.outcome.rows[key] = rows.close_usage(record.id, event.member, event.at_ms)
        body = {"member": event.member, "exit_code": event.exit_code, "cause": event.cause}
        self._line(event.at_ms, record, "Finished", body)

    def _told_to_move(self, at_ms: int, record: JobRecord, command: c.Park | c.Wake) -> None:
        leaves = isinstance(command, c.Park)
        residence = Residence.LEAVING if leaves else Residence.RETURNING
        claimant = command.claimant if isinstance(command, c.Park) else ""
        parked = leaves and (record.members[command.member].parked or not claimant)
        self._change(record, command.member, residence=residence, claimant=claimant, parked=parked)
        if isinstance(command, c.Park):
            self._change(record, command.member, host_bytes=command.host_bytes)
        if isinstance(command, c.Wake) and command.grants:
            self._change(record, command.member, grants=command.grants, left=record.members[command.member].grants)
        if not leaves:
            self._hold(at_ms, record, command.member, record.members[command.member].grants)

    def _moved(self, event: e.MemberParked | e.MemberWoken) -> None:
        """What moves has arrived, or stays: its place is free, or its own."""
        leaves = isinstance(event, e.MemberParked)
        record = self._book.active.get(event.job_id)
        wanted = Residence.LEAVING if leaves else Residence.RETURNING
        if record is None or record.members[event.member].residence is not wanted:
            return
        body: dict[str, Any] = {"member": event.member}
        if event.refused:
            body["refused"] = event.refused
        if leaves and event.refused:
            self._kept(record, parked=False)
        member, is_away = record.members[event.member], leaves is not bool(event.refused)
        if is_away:
            key = "usage end", record.id, event.member, event.at_ms
            self.outcome.rows[key] = rows.close_usage(record.id, event.member, event.at_ms)
        self._change(
            record, event.member, residence=Residence.IN_HOST if is_away else Residence.ON_CARD, left=(),
            grants=member.left if is_away and member.left else member.grants,
            away_at_ms=event.at_ms if is_away else None, host_bytes=member.host_bytes if is_away else None,
        )  # fmt: skip
        self._line(event.at_ms, record, "LeftCard" if leaves else "BackOnCard", body)

    def note(self, at_ms: int, record: JobRecord, kind: str, body: dict[str, Any]) -> None:
        """A line of history about something that changes nothing."""
        self._line(at_ms, record, kind, body, changed=False)

    def started(self, job_id: str) -> None:
        """The scheduler has heard of a start; after a restart it took what holds grants for running already."""
        record = self._book.active.get(job_id)
        if record is None or record.state is not JobState.STARTING:
            return
        if not any(member.state is MemberState.STARTING for member in record.members):
            self._book.set_state(record, JobState.RUNNING)
            self.outcome.jobs[record.id] = record

    def resized(self, event: e.JobResizeAsked | e.JobMembersAsked) -> None:
        """The scheduler has decided on a wish for other shares, or for another number of members."""
        if record := self._book.active.get(event.job_id):
            if isinstance(event, e.JobResizeAsked):
                self._book.resized(record, event)
            else:
                self._book.members_asked(record, event)
            self.outcome.jobs[record.id] = record

    def park_asked(self, event: e.ParkAsked) -> None:
        """The scheduler has decided on a wish to be in host memory until further notice, or back."""
        if record := self._book.active.get(event.job_id):
            away = all(member.is_parked for member in record.members if member.is_placed)
            self._kept(record, event.parked and away)

    def _kept(self, record: JobRecord, parked: bool) -> None:
        for number, member in enumerate(record.members):
            if member.is_placed and member.parked is not parked:
                self._change(record, number, parked=parked)

    def _asked(self, record: JobRecord, event: w.ClientFinished | w.PauseAsked | w.StopAsked) -> None:
        for number, member in enumerate(record.members):
            if not member.is_placed:
                continue
            match event:
                case w.ClientFinished():
                    self._change(record, number, client_exit=event.exit_code)
                case w.PauseAsked():
                    self._change(record, number, paused=event.paused)
                case w.StopAsked():
                    stop = Stop(event.grace_ms, requeue=False, cause=event.cause)
                    self._change(record, number, stop=member.stop or stop)
        match event:
            case w.PauseAsked():
                self._line(event.at_ms, record, "Paused" if event.paused else "Unpaused", {})
            case w.StopAsked():
                self._line(event.at_ms, record, "Stop", {"cause": event.cause})
            case w.ClientFinished():
                pass

    def _regrant(self, at_ms: int, record: JobRecord, member: int, grants: tuple[Grant, ...]) -> None:
        key = "usage end", record.id, member, at_ms
        self.outcome.rows[key] = rows.close_usage(record.id, member, at_ms)
        self._hold(at_ms, record, member, grants)
        self._change(record, member, grants=grants)

    def _hold(self, at_ms: int, record: JobRecord, member: int, grants: tuple[Grant, ...]) -> None:
        for grant in grants:
            run = record.members[member].run
            self.outcome.rows["usage", record.id, member, run, grant.device, at_ms] = rows.open_usage(
                record.id, member, run, grant.device, record.uid, record.job.user, record.job.queue,
                grant.compute_milli, grant.memory_bytes, at_ms,
            )  # fmt: skip

    def _state(self, seq: int, at_ms: int, record: JobRecord, command: c.SetJobState) -> None:
        if record.state is command.state or record.state.is_final:
            return
        self._book.set_state(record, command.state)
        match command.state:
            case JobState.QUEUED | JobState.HELD:
                record.started_at_ms = record.exit_code = None
                record.cause = ""
                record.members = [
                    replace(member, state=MemberState.WAITING) if not member.grants else member
                    for member in record.members
                ]
            case JobState.SUCCEEDED | JobState.FAILED | JobState.CANCELLED:
                record.finished_at_ms, record.ended_seq = at_ms, seq
                self._give_back(at_ms, record)
                record.cause = record.cause or command.cause
                self._book.end(record)
                self.outcome.ended.append(record)
            case _:
                pass
        body: dict[str, Any] = {"state": command.state.value, "cause": command.cause}
        if command.reason is not None:
            body["reason"] = to_plain(command.reason)
        if record.ended_seq is not None:
            body["exit_code"] = record.exit_code
        self._line(at_ms, record, "State", body)

    def _give_back(self, at_ms: int, record: JobRecord) -> None:
        """A job that is over holds nothing, even if nobody saw its processes end."""
        for number, member in enumerate(record.members):
            if member.grants:
                record.members[number] = replace(member, grants=(), state=MemberState.FINISHED)
                self.outcome.rows["usage end", record.id, number, member.run] = rows.close_usage(
                    record.id, number, at_ms
                )
                self.outcome.members.add((record.id, number))

    def _device(self, event: e.DeviceChanged) -> None:
        if event.cordoned:
            self._book.cordoned.add(event.uuid)
        else:
            self._book.cordoned.discard(event.uuid)
        (self._book.ill.discard if event.health is DeviceHealth.HEALTHY else self._book.ill.add)(event.uuid)
        self.outcome.rows["device", event.uuid] = rows.put_device(event.uuid, event.cordoned)
        body = {"device": event.uuid, "health": event.health, "cordoned": event.cordoned, "drain": event.drain}
        self._line(event.at_ms, None, "Device", body)

    def _change(self, record: JobRecord, member: int, **changes: Any) -> None:
        record.members[member] = replace(record.members[member], **changes)
        self.outcome.jobs[record.id] = record
        self.outcome.members.add((record.id, member))
        self._book.version += 1

    def _line(
        self, at_ms: int, record: JobRecord | None, kind: str, body: dict[str, Any], *, changed: bool = True
    ) -> None:
        self.last_history += 1
        job_id, uid = (record.id, record.uid) if record else ("", -1)
        if record and changed:
            self.outcome.jobs[record.id] = record
        self.outcome.rows["history", self.last_history] = rows.put_history(
            self.last_history, at_ms, job_id, uid, kind, dumps(body)
        )


def _chosen(settings: SchedulerSettings) -> dict[str, Any]:
    """Settings that differ from what a pool does by itself."""
    usual = to_plain(SchedulerSettings())
    return {"scheduler": {name: value for name, value in to_plain(settings).items() if value != usual[name]}}


_ASKED = {e.JobCancelled: "CancelAsked", e.JobResizeAsked: "ResizeAsked", e.JobMembersAsked: "ResizeAsked"}


def _grants_line(member: int, grants: tuple[Grant, ...], cause: str) -> dict[str, Any]:
    return {
        "member": member,
        "cause": cause,
        "grants": [
            {name: getattr(g, name) for name in ("device", "compute_milli", "limit_milli", "memory_bytes")}
            for g in grants
        ],
    }
