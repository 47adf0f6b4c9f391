"""Jobs, what each asks for, and what it was granted."""

from dataclasses import dataclass, replace
from enum import StrEnum


class TenantClass(StrEnum):
    """How a tenant's work is ordered against its neighbours' on one card."""

    LATENCY = "latency"
    """Runs first; its request bounds how much."""
    GUARANTEED = "guaranteed"
    """Gets its request, and what is idle up to its limit."""
    BEST_EFFORT = "best_effort"
    """Gets only what is idle."""


class JobState(StrEnum):
    """Where a job stands."""

    HELD = "held"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    PARKED = "parked"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to the job."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class MemberState(StrEnum):
    """Where one member of a job stands."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


class Residence(StrEnum):
    """Where the device memory of a member is that its scheduler may have moved."""

    ON_CARD = "card"
    LEAVING = "leaving"
    """It is being moved to the host: the member holds its place on the card and host memory for it."""
    IN_HOST = "host"
    """In host memory; what it held of the card is others'."""
    RETURNING = "returning"
    """It is being moved back: the place is held again, and the host memory still."""


@dataclass(frozen=True, slots=True)
class SliceRequest:
    """What one member asks of each of its ``n_devices`` cards.

    Attributes:
        compute_milli: guaranteed compute, 1..1000; 1000 on every card means whole cards.
        limit_milli: ceiling, ``compute_milli``..1000.
        memory_bytes: memory cap per card; 0 means all of the card's memory (only with whole cards).
        tenant_class: order against neighbours.
        n_devices: cards of one node, all different.
        models: product names allowed; empty allows all.
        partition: hardware profile asked for by name; its size then takes the place of compute and memory above.
    """

    compute_milli: int
    limit_milli: int
    memory_bytes: int
    tenant_class: TenantClass = TenantClass.GUARANTEED
    n_devices: int = 1
    models: tuple[str, ...] = ()
    partition: str = ""

    @property
    def is_whole(self) -> bool:
        """Whether the member takes its cards for itself."""
        return self.compute_milli == 1000 and self.memory_bytes == 0 and not self.partition


@dataclass(frozen=True, slots=True)
class Role:
    """Members of a job that are alike: its leader, its workers (a subgroup of a PodGroup).

    Attributes:
        name: unique in its job; empty where the job names no roles.
        request: what each member asks of its cards.
        n_members: members wanted.
        min_member: members without which the job does not run, 0..n_members.
        cpu_milli: host CPU per member, thousandths of a core.
        ram_bytes: host memory per member.
        required_level: topology level that its members must share; empty for none.
        preferred_level: level they should share if they can; empty for none.
        subgroup_size: its members come in equal subgroups of so many, in order of their numbers; 0 for none. Both
            ``n_members`` and ``min_member`` are multiples of it.
        subgroup_level: topology level that the members of each subgroup must share.
        most_at_once: so many of its members run at the same time at most, whole subgroups; 0 for all. Not below the
            ``min_member`` nor 1.
    """

    name: str
    request: SliceRequest
    n_members: int = 1
    min_member: int = 1
    cpu_milli: int = 0
    ram_bytes: int = 0
    required_level: str = ""
    preferred_level: str = ""
    subgroup_size: int = 0
    subgroup_level: str = ""
    most_at_once: int = 0

    @property
    def n_cards(self) -> int:
        """Cards of all its members."""
        return self.n_members * self.request.n_devices

    @property
    def is_elastic(self) -> bool:
        """Whether the job can do without some of its members, one by one."""
        return self.min_member < self.n_members and not self.subgroup_size


@dataclass(frozen=True, slots=True)
class Job:
    """Something to run: one member, or several that start together (a PodGroup).

    Where members are unlike, ``roles`` says what those of each role are: they are numbered role after role,
    ``n_members`` and ``min_member`` are the sums over the roles, ``required_level`` holds for all of them together, and
    ``request`` is that of the first role that asks for cards. Else the job's own fields describe its one role.

    Attributes:
        id: unique, never reused.
        user: who pays.
        queue: name of its queue.
        request: what each member asks of its cards.
        n_members: members wanted.
        min_member: members that must start together, 1..n_members.
        cpu_milli: host CPU per member, thousandths of a core.
        ram_bytes: host memory per member.
        priority: higher runs first inside its queue.
        preemptible: whether it may be evicted for others.
        submitted_at_ms: wall time of submission; ties in order are broken by ``seq``.
        seq: order of acknowledgement by the pool.
        time_limit_ms: ceiling on its run time; 0 for none.
        after: job ids that must have succeeded first.
        held: wait until released.
        required_level: topology level that all members must share; empty for none.
        preferred_level: level they should share if they can; empty for none.
        subgroup_size: members come in subgroups of so many, in order of their numbers; 0 for none. Both ``n_members``
            and ``min_member`` are multiples of it.
        subgroup_level: topology level that the members of each subgroup must share.
        min_runtime_ms: not evicted before it has run this long.
        checkpointable: loses only the work since its last checkpoint when evicted.
        grace_ms: time it gets to save its work once it is asked to end; 0 for the pool's own.
        roles: where its members are unlike: at least two, each with a name of its own; empty where they are alike.
        parkable: may be moved to host memory instead of being evicted, in a pool that does so.
        most_at_once: so many of its members run at the same time at most; 0 for all. Roles say it each for itself.
    """

    id: str
    user: str
    queue: str
    request: SliceRequest
    n_members: int = 1
    min_member: int = 1
    cpu_milli: int = 0
    ram_bytes: int = 0
    priority: int = 0
    preemptible: bool = True
    submitted_at_ms: int = 0
    seq: int = 0
    time_limit_ms: int = 0
    after: tuple[str, ...] = ()
    held: bool = False
    required_level: str = ""
    preferred_level: str = ""
    subgroup_size: int = 0
    subgroup_level: str = ""
    min_runtime_ms: int = 0
    checkpointable: bool = False
    grace_ms: int = 0
    roles: tuple[Role, ...] = ()
    parkable: bool = True
    most_at_once: int = 0

    @property
    def parts(self) -> tuple[Role, ...]:
        """Its roles, also where it names none."""
        return self.roles or (
            Role(
                "", self.request, self.n_members, self.min_member, self.cpu_milli, self.ram_bytes, self.required_level,
                self.preferred_level, self.subgroup_size, self.subgroup_level, self.most_at_once,
            ),
        )  # fmt: skip

    @property
    def n_cards(self) -> int:
        """Cards of all members."""
        if self.roles:
            return sum(role.n_cards for role in self.roles)
        return self.n_members * self.request.n_devices

    @property
    def asked_milli(self) -> int:
        """Compute asked for by all members, as their requests say (a partition's size is its profile's)."""
        return sum(role.n_cards * role.request.compute_milli for role in self.parts)

    def request_of(self, member: int) -> SliceRequest:
        """What one member asks of its cards."""
        return self.role_of(member).request if self.roles else self.request

    def role_of(self, member: int) -> Role:
        """The role of a member; members are numbered role after role."""
        return self.parts[self.role_index(member)]

    def role_named(self, name: str) -> int:
        """Place of a role among ``parts``, by its name (empty: of the one without a name); -1 if there is none."""
        return next((index for index, role in enumerate(self.parts) if role.name == name), -1)

    def first_of(self, index: int) -> int:
        """Number of the first member of a role."""
        return sum(role.n_members for role in self.roles[:index])

    def with_part(self, index: int, role: Role) -> "Job":
        """The same job, one of whose roles has another request, or runs with another number of members at once."""
        if not self.roles:
            return replace(self, request=role.request, most_at_once=role.most_at_once)
        roles = (*self.roles[:index], role, *self.roles[index + 1 :])
        request = next((each.request for each in roles if each.request.n_devices), roles[0].request)
        return replace(self, roles=roles, request=request)

    def role_index(self, member: int) -> int:
        """Place of a member's role among ``parts``."""
        first = 0
        for index, role in enumerate(self.roles):
            first += role.n_members
            if member < first:
                return index
        return 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What one member was given on one card, and is held to.

    ``partition`` names the hardware profile to cut out of the card, from place ``partition_start`` on, if it is one.
    ``borrow_weight``: of one without compute, beside others of its card that borrow, 1..1000; 0 where none was set.
    """

    job_id: str
    member: int
    node: str
    device: str
    compute_milli: int
    limit_milli: int
    memory_bytes: int
    tenant_class: TenantClass
    partition: str = ""
    partition_start: int = -1
    borrow_weight: int = 0
