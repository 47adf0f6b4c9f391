"""What the node asks its process to do."""

from dataclasses import dataclass

from flexai.node.tenant import Key, LaunchSpec, Tenant


@dataclass(frozen=True, slots=True)
class Save:
    """Make the checkpoint durable before the next command."""


@dataclass(frozen=True, slots=True)
class MakePlace:
    """Make the member's shared region and cgroup, or put those that are there right."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class AddTenant:
    """Tell the arbiter of the member; ``paused`` included."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class SetLimits:
    """Rewrite the limits in the member's region."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the member under a supervisor, which takes the token or does nothing."""

    tenant: Tenant
    launch: LaunchSpec


@dataclass(frozen=True, slots=True)
class Admit:
    """Put this process (and so its future children) under the member's grant."""

    tenant: Tenant
    pid: int


@dataclass(frozen=True, slots=True)
class Forbid:
    """Take the token, so that no supervisor still on its way can start the member."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class End:
    """Send the signal; after ``grace_ms`` kill everything of the member. ``grace_ms`` -1: never."""

    tenant: Tenant
    signal: int
    grace_ms: int


@dataclass(frozen=True, slots=True)
class SetFrozen:
    """Freeze or thaw every process of the member."""

    tenant: Tenant
    frozen: bool


@dataclass(frozen=True, slots=True)
class Park:
    """Move device memory to the host, so much at most (-1: any); answered by ``Parked`` or an error to the asker."""

    tenant: Tenant
    most_bytes: int = -1


@dataclass(frozen=True, slots=True)
class Wake:
    """Move device memory back; answered by ``Parked`` or an error to the asker."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class DropTenant:
    """The arbiter forgets the member."""

    key: Key


@dataclass(frozen=True, slots=True)
class RemovePlace:
    """Remove the member's region and cgroup."""

    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Say:
    """Tell subscribers: ``started`` or ``finished`` of the member."""

    event: str
    tenant: Tenant


@dataclass(frozen=True, slots=True)
class Refusal:
    """The event changed nothing.

    Attributes:
        code: stable PascalCase code.
        message: one sentence.
        remedy: what helps.
    """

    code: str
    message: str
    remedy: str = ""


Command = (
    Save
    | MakePlace
    | AddTenant
    | SetLimits
    | Launch
    | Admit
    | Forbid
    | End
    | SetFrozen
    | Park
    | Wake
    | DropTenant
    | RemovePlace
    | Say
)
