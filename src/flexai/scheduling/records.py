"""What the scheduler remembers of jobs: records of their members, and lines of alike jobs that wait."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.model import JobState, MemberState
from flexai.policy.gang import Together

if TYPE_CHECKING:
    from flexai.cluster import Hold, Shape
    from flexai.model import Grant, Job, PendingReason
    from flexai.policy.run_time import Burst


Need = tuple["Shape", Together]
"""Members of a shape that must fit together, and where."""


@dataclass(slots=True)
class MemberRecord:
    """One member: what it holds (and its compute by class of card) and how it stands."""

    state: MemberState = MemberState.WAITING
    hold: Hold | None = None
    by_class: dict[str, int] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    evicting: bool = False
    requeue: bool = False
    failed: bool = False
    started_at_ms: int = 0
    stopped_at_ms: int = 0
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
    line: LineKey | None = None

    @property
    def n_cards(self) -> int:
        """Cards of all members."""
        return self.job.n_members * self.job.request.n_devices

    @property
    def n_to_start(self) -> int:
        """Members that wait."""
        if len(self.members) == 1:
            return int(self.members[0].hold is None)
        return sum(member.state is MemberState.WAITING and member.hold is None for member in self.members)

    @property
    def n_needed(self) -> int:
        """Members that must start together: ``min_member`` at first; then an elastic job grows one by one."""
        if len(self.members) == 1:
            return 1
        if self.is_placed:
            return max(1, self.job.subgroup_size)
        return min(self.job.min_member, max(1, self.n_to_start))

    @property
    def together(self) -> Together:
        """Where they must go."""
        job = self.job
        return Together(self.n_needed, job.required_level, job.subgroup_size, job.subgroup_level)

    @property
    def asked_milli(self) -> int:
        """Compute of all members."""
        return self.job.n_members * self.shape.asked_milli

    @property
    def needed_milli(self) -> int:
        """Compute of the members that must start together."""
        return self.n_needed * self.shape.asked_milli

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
    subgroup_size: int = 0
    subgroup_level: str = ""
    need: Need = field(init=False, repr=False, compare=False)
    """What has to be free at once for a job of the line to start."""
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Lines are looked up many times a step: hash once, and name the need once."""
        where = Together(self.min_member, self.required_level, self.subgroup_size, self.subgroup_level)
        object.__setattr__(self, "need", (self.shape, where))
        key = (
            self.queue, self.user, self.shape, self.n_members, self.min_member, self.priority, self.burst.number,
            self.required_level, self.preferred_level, self.subgroup_size, self.subgroup_level,
        )  # fmt: skip
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    @property
    def asked_milli(self) -> int:
        """Compute that one job of the line waits for."""
        return self.n_members * self.shape.asked_milli


@dataclass(slots=True)
class Line:
    """Waiting jobs that are alike, in order of submission."""

    key: LineKey
    jobs: list[JobRecord] = field(default_factory=list)

    def add(self, record: JobRecord) -> None:
        """Put a job in its place (a requeued one goes back to where it was)."""
        bisect.insort(self.jobs, record, key=lambda each: each.job.seq)

    def remove(self, record: JobRecord) -> None:
        """Take a job out."""
        at = bisect.bisect_left(self.jobs, record.job.seq, key=lambda each: each.job.seq)
        while self.jobs[at] is not record:
            at += 1
        del self.jobs[at]

    @property
    def head(self) -> JobRecord:
        """The first."""
        return self.jobs[0]


def line_key(record: JobRecord) -> LineKey:
    """The line that a job waits in."""
    job = record.job
    return LineKey(
        job.queue, job.user, record.shape, record.n_to_start, record.n_needed, job.priority, record.burst,
        job.required_level, job.preferred_level, job.subgroup_size, job.subgroup_level,
    )  # fmt: skip
