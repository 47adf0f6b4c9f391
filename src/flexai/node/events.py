"""What can happen to a member on its node."""

from dataclasses import dataclass

from flexai.model import Grant
from flexai.node.tenant import Key, LaunchSpec, Tenant


@dataclass(frozen=True, slots=True)
class PrepareAsked:
    """The pool wants the slice made; ``tenant`` says what it is, in phase ``prepared``."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class StartAsked:
    """The pool wants the member started, unless this token was used."""

    key: Key
    token: str
    launch: LaunchSpec


@dataclass(frozen=True, slots=True)
class AttachAsked:
    """The owner made the first process itself and wants it put under the grant."""

    key: Key
    pid: int


@dataclass(frozen=True, slots=True)
class Attached:
    """The process is under the grant now."""

    key: Key
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Began:
    """A supervisor holds the token: the member runs."""

    key: Key
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """The supervisor could not be made at all; the token is still free."""

    key: Key
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """All processes of the member are gone."""

    key: Key
    exit_code: int | None
    signal: int
    cause: str


@dataclass(frozen=True, slots=True)
class SignalAsked:
    """Send ``signal``; after ``grace_ms`` (unless 0) end what is left."""

    key: Key
    signal: int
    grace_ms: int
    cause: str = ""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Freeze the member, or let it go on; ``cause`` is why, where nobody asked for it."""

    key: Key
    paused: bool
    cause: str = ""


@dataclass(frozen=True, slots=True)
class ParkAsked:
    """Move the member's device memory to the host, or back.

    Attributes:
        grants: back on these cards, one for each of its own; empty: on its own.
        host_bytes: host memory that is booked for it; -1: it is not said.
    """

    key: Key
    parked: bool
    grants: tuple[Grant, ...] = ()
    host_bytes: int = -1


@dataclass(frozen=True, slots=True)
class ProgramLeaves:
    """A program of the member is about to be moved to the host from these cards, in the member's numbering."""

    key: Key
    pid: int
    cards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parked:
    """That was done."""

    key: Key
    parked: bool


@dataclass(frozen=True, slots=True)
class ResizeAsked:
    """The member is held to other numbers on the same cards."""

    key: Key
    grants: tuple[Grant, ...]


@dataclass(frozen=True, slots=True)
class UnprepareAsked:
    """The pool is done with the member."""

    key: Key


@dataclass(frozen=True, slots=True)
class Recovered:
    """The agent starts and finds this in its checkpoint; ``began`` tells who holds the token, if someone does.

    Attributes:
        began: (pid, start_ticks) out of the token file; None when the token is free.
        alive: whether anything of the member runs.
        ended: what its exit record says; None when there is none.
    """

    tenant: Tenant
    began: tuple[int, int] | None
    alive: bool
    ended: Ended | None


Event = (
    PrepareAsked
    | StartAsked
    | AttachAsked
    | Attached
    | Began
    | LaunchFailed
    | Ended
    | SignalAsked
    | PauseAsked
    | ParkAsked
    | Parked
    | ProgramLeaves
    | ResizeAsked
    | UnprepareAsked
    | Recovered
)
