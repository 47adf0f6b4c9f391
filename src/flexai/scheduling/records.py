"""What the scheduler remembers of jobs: records of their members, and lines of alike jobs that wait."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.model import JobState, MemberState, Residence
from flexai.policy.gang import Need, Together

if TYPE_CHECKING:
    from flexai.cluster import Hold, Shape
    from flexai.model import Grant, Job, PendingReason, Role
    from flexai.policy.run_time import Burst


@dataclass(frozen=True, slots=True)
class Waiting:
    """Members of one role that wait.

    Attributes:
        index: place of the role among the job's.
        role: the role.
        shape: what each of them asks for.
        numbers: which members they are.
        together: how many of them must fit at once, and where.
    """

    index: int
    role: Role
    shape: Shape
    numbers: tuple[int, ...]
    together: Together


@dataclass(slots=True)
class MemberRecord:
    """One member: what it holds (and its compute by class of card) and how it stands.

    ``home`` is what it held on its cards before it was parked, and comes back to; None for one that was not. ``left``:
    the home that it had before, while it is being woken on other cards. ``held_bytes`` is what it was measured to hold
    of its cards, -1 while nobody did; ``host_bytes`` what is booked for that on the host.
    """

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
    residence: Residence = Residence.ON_CARD
    home: Hold | None = None
    left: Hold | None = None
    held_bytes: int = -1
    host_bytes: int = 0
    moved_at_ms: int = 0


@dataclass(slots=True)
class JobRecord:
    """One job that is not over.

    ``parked_for`` is the job that it was parked for, if it was for one; ``kept_away``: its user has it in host memory
    until further notice; ``why_refused``: why its latest wake was, of ``n_refused_wakes`` in a row; ``cannot_move``:
    why it was not woken on other cards than its own, and waits for these.
    """

    job: Job
    shapes: tuple[Shape, ...]
    burst: Burst
    state: JobState
    members: list[MemberRecord]
    started_at_ms: int = -1
    stops_at_ms: int = -1
    away_at_ms: int = -1
    woken_at_ms: int = -(10**15)
    wakes_from_ms: int = 0
    n_short_stays: int = 0
    back_ms: int = 0
    predicted_at_ms: int = -(10**15)
    cannot_park: bool = False
    cannot_move: str = ""
    parked_for: str = ""
    kept_away: bool = False
    n_refused_wakes: int = 0
    why_refused: str = ""
    n_evictions: int = 0
    exit_code: int = 0
    cause: str = ""
    cancelled: bool = False
    moved_at_ms: int = -(10**15)
    reason: PendingReason | None = None
    waits_on: set[str] = field(default_factory=set)
    line: LineKey | None = None
    counts_in: tuple[str, str] | None = None

    @property
    def shape(self) -> Shape:
        """What each member asks for; of several roles, the members of the one that ``Job.request`` is of."""
        if len(self.shapes) == 1:
            return self.shapes[0]
        return next((one for one in self.shapes if one.n_devices), self.shapes[0])

    def shape_of(self, member: int) -> Shape:
        """What one member asks for."""
        return self.shapes[self.job.role_index(member)]

    @property
    def n_cards(self) -> int:
        """Cards of all members."""
        return self.job.n_cards

    @property
    def n_to_start(self) -> int:
        """Members that wait, and may run beside those that do."""
        if len(self.members) == 1:
            return int(self.members[0].hold is None)
        if self.job.most_at_once or any(role.most_at_once for role in self.job.roles):
            return sum(len(each.numbers) for each in self.waiting())
        return sum(map(_waits, self.members))

    @property
    def n_needed(self) -> int:
        """Members that must start together: ``min_member`` at first; then an elastic job grows one by one."""
        if len(self.members) == 1:
            return 1
        if self.job.roles:
            return self.need.least(lambda _: 1)
        if self.is_placed:
            return max(1, self.job.subgroup_size)
        return min(self.job.min_member, max(1, self.n_to_start))

    @property
    def together(self) -> Together:
        """Where the members of its one role must go."""
        job = self.job
        return Together(self.n_needed, job.required_level, job.subgroup_size, job.subgroup_level)

    @property
    def need(self) -> Need:
        """What must fit at the same time now."""
        if not self.job.roles:
            return Need.of(self.shape, self.together)
        roles = self.needed_roles()
        grows = self.is_placed or not any(each.together.n_members for each in roles)
        parts = [
            (each.shape, replace(each.together, n_members=max(1, each.together.n_members)) if grows else each.together)
            for each in roles
        ]
        return Need(tuple(parts), self.job.required_level, grows)

    def members_of(self, role: int) -> list[MemberRecord]:
        """The members of one role."""
        first = self.job.first_of(role)
        return self.members[first : first + self.job.parts[role].n_members]

    def waiting(self) -> list[Waiting]:
        """Members that wait, role by role: of each as many as may run beside those that do."""
        out: list[Waiting] = []
        first, placed = 0, self.is_placed
        for index, (role, shape) in enumerate(zip(self.job.parts, self.shapes, strict=True)):
            some = range(first, first + role.n_members)
            numbers = tuple(number for number in some if _waits(self.members[number]))
            if role.most_at_once:
                n_held = sum(self.members[number].hold is not None for number in some)
                numbers = numbers[: max(0, role.most_at_once - n_held)]
            first += role.n_members
            least = min(role.min_member, len(numbers) if self.job.roles else max(1, len(numbers)))
            needed = max(1, role.subgroup_size) if placed else least
            where = Together(needed, role.required_level, role.subgroup_size, role.subgroup_level)
            out.append(Waiting(index, role, shape, numbers, where))
        return out

    def needed_roles(self) -> list[Waiting]:
        """Roles of which members are needed: the parts of ``need``, in order."""
        waiting = self.waiting()
        grows = self.is_placed or not any(each.together.n_members for each in waiting)
        return [each for each in waiting if each.numbers and (grows or each.together.n_members)]

    def alone(self) -> list[JobRecord]:
        """Each role of which members are needed, as a job of its own."""
        need = self.need
        return [
            JobRecord(
                replace(
                    self.job, request=each.role.request, n_members=len(each.numbers),
                    min_member=max(each.together.n_members, need.grows), cpu_milli=each.role.cpu_milli,
                    ram_bytes=each.role.ram_bytes, required_level=each.role.required_level or self.job.required_level,
                    preferred_level=each.role.preferred_level, subgroup_size=each.role.subgroup_size,
                    subgroup_level=each.role.subgroup_level, roles=(), most_at_once=0,
                ),
                (each.shape,), self.burst, self.state, [self.members[number] for number in each.numbers],
            )
            for each in self.needed_roles()
        ]  # fmt: skip

    @property
    def asked_milli(self) -> int:
        """Compute of all members."""
        return sum(role.n_members * shape.asked_milli for role, shape in zip(self.job.parts, self.shapes, strict=True))

    @property
    def needed_milli(self) -> int:
        """Compute of the members that must start together."""
        if self.job.roles:
            return self.need.least(lambda shape: shape.asked_milli)
        return self.n_needed * self.shape.asked_milli

    @property
    def held_milli(self) -> int:
        """Compute granted now."""
        return sum(member.hold.compute_milli * len(member.hold.columns) for member in self.members if member.hold)

    @property
    def home_milli(self) -> int:
        """Compute that it held on its cards before it was parked."""
        homes = [member.home for member in self.members if member.home is not None]
        return sum(home.compute_milli * len(home.columns) for home in homes)

    @property
    def is_away(self) -> bool:
        """Whether the memory of any member is not, or not surely, on its card."""
        return any(member.residence is not Residence.ON_CARD for member in self.members)

    def ran_ms(self, now_ms: int) -> int:
        """How long it has run, in which it was in host memory left out."""
        return max(0, (now_ms if self.away_at_ms < 0 else self.away_at_ms) - self.started_at_ms)

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
    roles: tuple[tuple[Shape, int, Together], ...] = ()
    """Of unlike members, each role's shape, how many, and of which so many are needed: the fields above are of all."""
    grows: bool = False
    need: Need = field(init=False, repr=False, compare=False)
    """What has to be free at once for a job of the line to start."""
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Lines are looked up many times a step: hash once, and name the need once."""
        if self.roles:
            parts = tuple((shape, where) for shape, _, where in self.roles if where.n_members)
            need = Need(parts, self.required_level, self.grows)
        else:
            where = Together(self.min_member, self.required_level, self.subgroup_size, self.subgroup_level)
            need = Need.of(self.shape, where)
        object.__setattr__(self, "need", need)
        key = (
            self.queue, self.user, self.n_members, self.priority, self.burst.number, self.preferred_level, self.roles,
            need,
        )  # fmt: skip
        object.__setattr__(self, "_hash", hash(key))

    def __hash__(self) -> int:
        return self._hash

    @property
    def asked_milli(self) -> int:
        """Compute that one job of the line waits for."""
        if self.roles:
            return sum(n * shape.asked_milli for shape, n, _ in self.roles)
        return self.n_members * self.shape.asked_milli

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What its members ask for, role by role."""
        return tuple(shape for shape, _, _ in self.roles) or (self.shape,)


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


def cost_class(record: JobRecord) -> tuple[str, int]:
    """Jobs that cost about the same to stop and to start, to park and to wake."""
    return f"{record.job.queue}/{record.job.user}", record.n_cards


def line_key(record: JobRecord) -> LineKey:
    """The line that a job waits in."""
    job = record.job
    if job.roles:
        need = record.need
        needed = {each.index: where for each, (_, where) in zip(record.needed_roles(), need.parts, strict=True)}
        roles = tuple(
            (each.shape, len(each.numbers), needed.get(each.index, each.together))
            for each in record.waiting()
            if each.numbers
        )
        return LineKey(
            job.queue, job.user, record.shape, record.n_to_start, record.n_needed, job.priority, record.burst,
            job.required_level, job.preferred_level, roles=roles, grows=need.grows,
        )  # fmt: skip
    return LineKey(
        job.queue, job.user, record.shape, record.n_to_start, record.n_needed, job.priority, record.burst,
        job.required_level, job.preferred_level, job.subgroup_size, job.subgroup_level,
    )  # fmt: skip


def _waits(member: MemberRecord) -> bool:
    return member.state is MemberState.WAITING and member.hold is None
