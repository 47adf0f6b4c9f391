"""What the scheduler remembers of jobs: records of their members, and lines of alike jobs that wait."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.model import JobState, MemberState

if TYPE_CHECKING:
    from flexai.cluster import Hold, Shape
    from flexai.model import Grant, Job, PendingReason
    from flexai.policy.run_time import Burst


Need = tuple["Shape", int, str]
"""Members of a shape that must fit together, and the level whose one group must take them."""


@dataclass(slots=True)
class MemberRecord:
    """One member: what it holds and how it stands."""

    state: MemberState = MemberState.WAITING
    hold: Hold | None = None
    grants: tuple[Grant, ...] = ()
    evicting: bool = False
    requeue: bool = False
    lent: bool = False
    parked: bool = False


@dataclass(slots=True)
class JobRecord:
    """One job that is not over."""

    job: Job
    shape: Shape
    burst: Burst
    state: JobState
    members: list[MemberRecord]
    started_at_ms: int = -1
    stops_at_ms: int = -1
    ran_ms: int = 0
    n_evictions: int = 0
    exit_code: int = 0
    cause: str = ""
    cancelled: bool = False
    moved_at_ms: int = -(10**15)
    reason: PendingReason | None = None
    waits_on: set[str] = field(default_factory=set)

    @property
    def n_cards(self) -> int:
        """Cards of all members."""
        return self.job.n_members * self.job.request.n_devices

    @property
    def asked_milli(self) -> int:
        """Compute of all members."""
        return self.job.n_members * self.shape.asked_milli

    @property
    def held_milli(self) -> int:
        """Compute granted now."""
        return sum(member.hold.compute_milli * len(member.hold.columns) for member in self.members if member.hold)

    @property
    def is_placed(self) -> bool:
        """Whether any member holds something."""
        return any(member.hold is not None for member in self.members)


@dataclass(frozen=True, slots=True)
class LineKey:
    """Jobs with equal keys are alike to the scheduler: if the first cannot start, none can."""

    queue: str
    user: str
    shape: Shape
    n_members: int
    min_member: int
    priority: int
    burst: Burst
    required_level: str
    preferred_level: str

    @property
    def need(self) -> Need:
        """What has to be free at once for a job of the line to start."""
        return self.shape, self.min_member, self.required_level


@dataclass(slots=True)
class Line:
    """Waiting jobs that are alike, in order of submission."""

    key: LineKey
    jobs: list[JobRecord] = field(default_factory=list)
    expected_ms: float = 0.0
    expected_at_ms: int = -(10**15)

    def add(self, record: JobRecord) -> None:
        """Put a job in its place (a requeued one goes back to where it was)."""
        bisect.insort(self.jobs, record, key=lambda each: each.job.seq)

    @property
    def head(self) -> JobRecord:
        """The first."""
        return self.jobs[0]


def line_key(record: JobRecord) -> LineKey:
    """The line that a job waits in."""
    job = record.job
    return LineKey(
        job.queue, job.user, record.shape, job.n_members, job.min_member, job.priority, record.burst,
        job.required_level, job.preferred_level,
    )  # fmt: skip
