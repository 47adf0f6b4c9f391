"""What can happen to the scheduler. Every event says when (``at_ms``); the core has no clock of its own.

After a restart the pool tells first what it knows, in this order: ``QueuePut``, ``AdvanceTold``, ``DeviceChanged``
(cordons), ``GrantsFound`` (what runs), ``JobSubmitted`` (what waits), and last ``NodePut``. The earlier ones may name
nodes and devices that are not known yet; nothing can be placed before their ``NodePut``, so nothing is decided on half
a picture.
"""

from dataclasses import dataclass

from flexai.model import DeviceHealth, Grant, Job, Node, Queue, Residence


@dataclass(frozen=True, slots=True)
class NodePut:
    """A node appeared or changed (its cards, CPUs or memory)."""

    at_ms: int
    node: Node


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node vanished; what ran there is lost."""

    at_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device's health or cordon changed. ``drain`` evicts what runs there; a cordon only keeps new work away."""

    at_ms: int
    uuid: str
    health: DeviceHealth = DeviceHealth.HEALTHY
    cordoned: bool = False
    drain: bool = False


@dataclass(frozen=True, slots=True)
class ForeignUsage:
    """Memory (bytes) and compute (thousandths) that programs outside the pool hold on a device."""

    at_ms: int
    uuid: str
    memory_bytes: int
    compute_milli: int = 0


@dataclass(frozen=True, slots=True)
class QueuePut:
    """A queue was created or changed. The wire layer has checked the tree."""

    at_ms: int
    queue: Queue


@dataclass(frozen=True, slots=True)
class QueueGone:
    """A queue was removed; its pending jobs wait with ``UnknownQueue``."""

    at_ms: int
    name: str


@dataclass(frozen=True, slots=True)
class JobSubmitted:
    """A job was acknowledged to its user."""

    at_ms: int
    job: Job


@dataclass(frozen=True, slots=True)
class JobHeld:
    """Its user asked a queued job to wait."""

    at_ms: int
    job_id: str


@dataclass(frozen=True, slots=True)
class JobReleased:
    """Its user let a held job go on."""

    at_ms: int
    job_id: str


@dataclass(frozen=True, slots=True)
class JobCancelled:
    """Its user gave the job up, queued or running."""

    at_ms: int
    job_id: str


@dataclass(frozen=True, slots=True)
class JobResizeAsked:
    """Its user wants other shares: of a queued job the request changes; of a running one its grants, if they fit.

    A running job that does not fit keeps what it has: then there is no ``Resize`` among the commands. Of a job with
    roles ``role`` says which of them is meant.
    """

    at_ms: int
    job_id: str
    compute_milli: int
    limit_milli: int
    role: str = ""


@dataclass(frozen=True, slots=True)
class JobMembersAsked:
    """Its user wants so many members of an elastic job, or of a role of it, at once: the least to all of them."""

    at_ms: int
    job_id: str
    n_members: int
    role: str = ""


@dataclass(frozen=True, slots=True)
class ParkAsked:
    """Its user wants a running job in host memory until further notice, and its place for others; or wants it back.

    One that cannot be parked stays where it is: then there is no ``Park`` among the commands.
    """

    at_ms: int
    job_id: str
    parked: bool


@dataclass(frozen=True, slots=True)
class MemberStarted:
    """A member's process runs."""

    at_ms: int
    job_id: str
    member: int


@dataclass(frozen=True, slots=True)
class MemberFinished:
    """A member's processes are gone and its grants are free again. ``exit_code`` 0 is success.

    ``cause`` is for people: ``exited``, ``signal 9``, ``time limit``, ``lost``.
    """

    at_ms: int
    job_id: str
    member: int
    exit_code: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class MemberParked:
    """The device memory of a member is in host memory, as it was told; or, with ``refused``, still on its card."""

    at_ms: int
    job_id: str
    member: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class MemberWoken:
    """The device memory of a member is back on its card, as it was told; or, with ``refused``, still on the host."""

    at_ms: int
    job_id: str
    member: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class GrantsFound:
    """After a restart: these grants exist on the nodes and are held; they are truth, not wishes.

    ``evicted`` names the members that were being stopped to be queued again, ``waiting`` those that had not started or
    were to start again: an elastic job grows by them. ``away`` says where the memory of members is that were parked.
    ``claimed`` says for which job members are being stopped or parked: it is told later, and has their place. A job
    that its user gave up before the restart is given up again (``JobCancelled``) after this. ``hosts`` are the members
    that run without a card, each with its node. ``kept_away``: its user has it in host memory until further notice.
    ``left`` is what members had that are being woken on other cards. ``away_at_ms``: since when those that were parked
    for others are in host memory; -1 where there are none, and it may come back at once. ``host_bytes``: host memory
    booked for the device memory of members that were parked; of one without, its whole cap.
    """

    at_ms: int
    job: Job
    grants: tuple[Grant, ...]
    evicted: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    away: tuple[tuple[int, Residence], ...] = ()
    hosts: tuple[tuple[int, str], ...] = ()
    claimed: tuple[tuple[int, str], ...] = ()
    kept_away: bool = False
    left: tuple[Grant, ...] = ()
    away_at_ms: int = -1
    host_bytes: tuple[tuple[int, int], ...] = ()

    @property
    def members(self) -> set[int]:
        """Members that hold something."""
        return {grant.member for grant in self.grants} | {member for member, _ in self.hosts}


@dataclass(frozen=True, slots=True)
class PlaceBooked:
    """After a restart: this place was booked for a job that waits (``commands.Book``); told after the job itself."""

    at_ms: int
    job_id: str
    grants: tuple[Grant, ...] = ()
    hosts: tuple[tuple[int, str], ...] = ()
    claimed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class AdvanceTold:
    """After a restart: what a queue's large jobs had beyond its share, and did not make up for (``NoteAdvance``).

    Told before ``GrantsFound``: what these jobs hold is counted as it is found.
    """

    at_ms: int
    queue: str
    resource: str
    share_milli: int
    owed: int
    most_saved: int


@dataclass(frozen=True, slots=True)
class UsageMeasured:
    """Measured compute use of grants over the last window: (job, member, device uuid, thousandths used)."""

    at_ms: int
    window_ms: int
    used: tuple[tuple[str, int, str, int], ...]


@dataclass(frozen=True, slots=True)
class MemoryMeasured:
    """Device memory that running members hold now, of all their cards together: (job, member, bytes)."""

    at_ms: int
    held: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed. ``steps`` is the search budget that the caller derived from its clock; it is recorded."""

    at_ms: int
    steps: int = 10_000


Event = (
    NodePut
    | NodeGone
    | DeviceChanged
    | ForeignUsage
    | QueuePut
    | QueueGone
    | JobSubmitted
    | JobHeld
    | JobReleased
    | JobCancelled
    | JobResizeAsked
    | JobMembersAsked
    | ParkAsked
    | MemberStarted
    | MemberFinished
    | MemberParked
    | MemberWoken
    | GrantsFound
    | PlaceBooked
    | AdvanceTold
    | UsageMeasured
    | MemoryMeasured
    | Tick
)
