"""The shared regions of tenants, from the agent's side."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flexai.model import Grant


@dataclass(frozen=True, slots=True)
class LedgerSlot:
    """One process of a tenant, as its ledger has it.

    Attributes:
        pid: in the process's own namespace.
        host_pid: in the agent's; 0 until it was introduced.
        start_ticks: of the process; 0 when not known.
        pid_ns: inode of its pid namespace; 0 when not known.
        heartbeat_ns: of its shim, CLOCK_MONOTONIC.
    """

    index: int
    pid: int
    host_pid: int
    start_ticks: int
    pid_ns: int
    heartbeat_ns: int
    charged_bytes: tuple[int, ...]


class Regions(Protocol):
    """Regions by member name.

    Attributes:
        context_bytes: what a process's context takes, by card, where that is known; charged before it is made.
    """

    context_bytes: Mapping[str, int]

    def put(self, name: str, uid: int, gid: int, grants: tuple[Grant, ...]) -> str:
        """Make the region, or write other limits into the one that is there; its directory."""

    def directory(self, name: str) -> str:
        """Where a member's region is."""

    def slots(self, name: str) -> list[LedgerSlot]:
        """Slots taken."""

    def charged(self, name: str) -> tuple[int, ...]:
        """Bytes the member's processes charged, for each card it can have; zeros when nothing is known."""

    def introduce(self, name: str, slot: int, host_pid: int) -> None:
        """Write a process's pid of this namespace into its slot."""

    def reap(self, name: str, dead: list[LedgerSlot]) -> int:
        """Take back what these dead processes charged; how many slots were released."""

    def remove(self, name: str) -> None:
        """Remove the region."""

    def names(self) -> list[str]:
        """Regions that are there."""
