"""What the arbiter measured."""

from dataclasses import dataclass
from typing import Protocol

LATE_NS = 200_000_000
"""The log of a card that is at work is read more often; of one that is not, nothing is told that went on meanwhile."""


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """One tenant on one card; the counters only grow (``fx_usage_entry``).

    Attributes:
        frozen: what keeps its processes from running, since it undid its stops: ``signal``, ``group``, or nothing.
    """

    tenant: str
    uuid: str
    held_ns: int
    stopped_ns: int
    borrowed_ns: int
    wanted_ns: int
    n_turns: int
    n_stops: int
    state: int
    n_processes: int
    hostile: int
    frozen: str = ""
    rescued: int = 0


@dataclass(frozen=True, slots=True)
class DeviceUsage:
    """One card (``fx_usage_device``).

    Attributes:
        backend: ``none``, ``lease`` or ``hwslice``.
        source: of accounting: ``none``, ``gate`` or ``log``.
        round_ns: in which every tenant with work has a turn; 0 when nobody takes turns.
        known_ns: CLOCK_MONOTONIC up to which card time is told; 0: up to the heartbeat.
    """

    uuid: str
    backend: str
    source: str
    busy_ns: int
    control_ns: int
    n_control: int
    log_dropped: int
    note: str
    round_ns: int = 0
    known_ns: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """One consistent reading."""

    at_ns: int
    arbiter_pid: int
    heartbeat_ns: int
    devices: tuple[DeviceUsage, ...]
    tenants: tuple[TenantUsage, ...]

    def told_until_ns(self, uuid: str) -> int:
        """The time that a card's figures are of: the last log that the arbiter has read, not when it published them."""
        known_ns = next((device.known_ns for device in self.devices if device.uuid == uuid), 0)
        published_ns = self.heartbeat_ns or self.at_ns
        return max(known_ns, published_ns - LATE_NS) if known_ns else published_ns


class UsageReader(Protocol):
    """Reads the arbiter's published figures."""

    def read(self) -> Usage | None:
        """The figures now; None when no arbiter publishes any."""
