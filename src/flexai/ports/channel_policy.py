"""The arbiter, as the agent sees it."""

from dataclasses import dataclass
from typing import Protocol

from flexai.model import Grant


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What the arbiter holds one tenant to.

    Attributes:
        directory: of its shared region.
        cgroup: as in ``/proc/<pid>/cgroup``; empty when there is none.
        root_pid: where there is no cgroup, this process and its descendants; 0 for none.
        suspended: its work is stopped in place.
    """

    tenant: str
    directory: str
    cgroup: str
    root_pid: int
    grants: tuple[Grant, ...]
    suspended: bool = False


class ChannelPolicy(Protocol):
    """Says what should be; it is sent as soon as the arbiter is there, and again to each new arbiter."""

    is_connected: bool

    def put(self, policy: TenantPolicy) -> None:
        """Add or change a tenant."""

    def gone(self, tenant: str) -> None:
        """Forget a tenant."""

    def manage(self, uuid: str, backend: int) -> None:
        """Manage this card, with this backend if possible (``enum fx_backend``; 0 lets the arbiter choose)."""

    def refusals(self) -> dict[str, str]:
        """Tenants the arbiter did not accept, with its words."""
