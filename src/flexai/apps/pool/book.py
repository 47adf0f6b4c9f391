"""The pool's memory of jobs and queues: what the log amounts to so far. The derived tables are written from it."""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.adapters.sqlite.rows import JobRow
from flexai.model import Device, Job, JobState, Node, Queue, TenantClass
from flexai.scheduling.events import ForeignUsage, JobMembersAsked, JobResizeAsked
from flexai.wire.api import Submission
from flexai.wire.queue import DEFAULT_QUEUE
from flexai.wire.store import Member, decode_job, decode_members, encode_job, encode_members

if TYPE_CHECKING:
    from flexai.scheduling.commands import NoteAdvance

MemberKey = tuple[str, int]
"""(job id, member)."""


@dataclass(slots=True)
class JobRecord:
    """One job as the pool knows it.

    Attributes:
        job: what the scheduler was told.
        number: of the submission; the id of an array.
        submission: what its user sent, without the environment (that stays in the store until it is needed).
        array_index: its element number, or None.
        ended_seq: log entry that ended it; None while it is active.
    """

    job: Job
    number: int
    uid: int
    gid: int
    submission: Submission
    array_index: int | None = None
    state: JobState = JobState.QUEUED
    cause: str = ""
    started_at_ms: int | None = None
    finished_at_ms: int | None = None
    ended_seq: int | None = None
    exit_code: int | None = None
    members: list[Member] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Its id."""
        return self.job.id

    @property
    def stands(self) -> str:
        """Where it is, as the end of a sentence: ``is queued``, ``has failed``, ``was cancelled``."""
        if self.state is JobState.CANCELLED:
            return "was cancelled"
        return f"{'has' if self.state.is_final else 'is'} {self.state.value}"

    @property
    def is_run(self) -> bool:
        """Whether its command is its caller's own child."""
        return self.submission.kind == "run"

    @property
    def is_placed(self) -> bool:
        """Whether any member has its place on a node."""
        return any(member.is_placed for member in self.members)

    def has_shares(self, role: int, compute_milli: int) -> bool:
        """Whether what the members of a role hold, if any do, is that share; what is lent counts for nothing yet."""
        first = self.job.first_of(role)
        some = self.members[first : first + self.job.parts[role].n_members]
        return all(grant.compute_milli in {0, compute_milli} for member in some for grant in member.grants)

    def row(self) -> JobRow:
        """Its row in the derived table."""
        return JobRow(
            seq=self.job.seq,
            id=self.job.id,
            number=self.number,
            uid=self.uid,
            user=self.job.user,
            queue=self.job.queue,
            state=self.state.value,
            started_at_ms=self.started_at_ms,
            finished_at_ms=self.finished_at_ms,
            ended_seq=self.ended_seq,
            exit_code=self.exit_code,
            cause=self.cause,
            job=encode_job(self.job),
            members=encode_members(tuple(self.members)),
        )


def record_of(row: JobRow, gid: int, submission: Submission) -> JobRecord:
    """A record from its row; raises BadInput on a damaged one."""
    _, _, index = row.id.partition("_")
    return JobRecord(
        job=decode_job(row.job),
        number=row.number,
        uid=row.uid,
        gid=gid,
        submission=submission,
        array_index=int(index) if index else None,
        state=JobState(row.state),
        cause=row.cause,
        started_at_ms=row.started_at_ms,
        finished_at_ms=row.finished_at_ms,
        ended_seq=row.ended_seq,
        exit_code=row.exit_code,
        members=list(decode_members(row.members)),
    )


class Book:
    """What is known now: jobs, queues, nodes, cordons and news of cards.

    Attributes:
        active: jobs that are not over.
        ended: jobs that are, and are not yet in the tables.
        borrowers: the active best-effort jobs.
        advances: what queues' large jobs had beyond their share, as it was noted last, by queue and resource.
    """

    def __init__(self) -> None:
        self.active: dict[str, JobRecord] = {}
        self.ended: dict[str, JobRecord] = {}
        self.borrowers: dict[str, JobRecord] = {}
        self.queues: dict[str, Queue] = {DEFAULT_QUEUE: Queue(DEFAULT_QUEUE)}
        self.nodes: dict[str, Node] = {}
        self.cordoned: set[str] = set()
        self.ill: set[str] = set()
        self.foreign: dict[str, ForeignUsage] = {}
        self.advances: dict[tuple[str, str], NoteAdvance] = {}
        self.version = 0
        self._lines: defaultdict[str, list[tuple[int, int, int]]] = defaultdict(list)

    def add(self, record: JobRecord) -> None:
        """A job was acknowledged."""
        self.active[record.id] = record
        if record.job.request.tenant_class is TenantClass.BEST_EFFORT:
            self.borrowers[record.id] = record
        if record.state is JobState.QUEUED:
            insort(self._lines[record.job.queue], _place(record))
        self.version += 1

    def find(self, job_id: str) -> JobRecord | None:
        """A job in memory; None for one that only the store may know."""
        return self.active.get(job_id) or self.ended.get(job_id)

    def set_state(self, record: JobRecord, state: JobState) -> None:
        """A job changed its state; it stands in its queue's line while it is queued."""
        line, place = self._lines[record.job.queue], _place(record)
        if record.state is JobState.QUEUED:
            at = bisect_left(line, place)
            if at < len(line) and line[at] == place:
                del line[at]
        record.state = state
        if state is JobState.QUEUED:
            insort(line, place)
        self.version += 1

    def position(self, record: JobRecord) -> int | None:
        """Its place in the line of its queue, from 1; None if it does not stand there."""
        if record.state is not JobState.QUEUED:
            return None
        return bisect_left(self._lines[record.job.queue], _place(record)) + 1

    def end(self, record: JobRecord) -> None:
        """A job became final; it stays in memory until its row is durable."""
        self.active.pop(record.id, None)
        self.borrowers.pop(record.id, None)
        self.ended[record.id] = record

    def devices(self) -> Iterator[tuple[Node, Device]]:
        """All cards known, node by node."""
        for node in self.nodes.values():
            for device in node.devices:
                yield node, device

    def elements(self, number: int) -> list[JobRecord]:
        """The jobs of one submission that are in memory."""
        known = (*self.active.values(), *self.ended.values())
        return [record for record in known if record.number == number]

    def held(self, record: JobRecord, held: bool) -> None:
        """A user held or released a job; remembered in the job itself, so that a restart tells the scheduler."""
        record.job = replace(record.job, held=held)

    def resized(self, record: JobRecord, event: JobResizeAsked) -> None:
        """A user changed what a job asks for: at once while it waits, with its grants once it runs."""
        index = record.job.role_named(event.role)
        if index >= 0 and record.has_shares(index, event.compute_milli):
            role = record.job.parts[index]
            request = replace(role.request, compute_milli=event.compute_milli, limit_milli=event.limit_milli)
            record.job = record.job.with_part(index, replace(role, request=request))

    def members_asked(self, record: JobRecord, event: JobMembersAsked) -> None:
        """A user said how many members of a job run at once."""
        index = record.job.role_named(event.role)
        if index >= 0:
            role = record.job.parts[index]
            most = 0 if event.n_members == role.n_members else event.n_members
            record.job = record.job.with_part(index, replace(role, most_at_once=most))

    def waiting(self) -> Iterator[JobRecord]:
        """Jobs that stand in the lines of their queues."""
        return (record for record in self.active.values() if record.state is JobState.QUEUED)

    def holders(self) -> Iterator[tuple[JobRecord, int, Member]]:
        """Members that have their place on a node."""
        for record in self.active.values():
            for number, member in enumerate(record.members):
                if member.is_placed:
                    yield record, number, member


def _place(record: JobRecord) -> tuple[int, int, int]:
    return -record.job.priority, record.job.submitted_at_ms, record.job.seq
