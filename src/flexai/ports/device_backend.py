"""Cards of one vendor on this node."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from flexai.model import Device, DeviceHealth


@dataclass(frozen=True, slots=True)
class DeviceProcess:
    """A process that holds memory on a card.

    Attributes:
        used_bytes: -1 when the driver does not say.
    """

    uuid: str
    pid: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """What one card says of itself now.

    Attributes:
        used_bytes: memory in use by anyone.
        busy_milli: part of the last sampling period in which anything ran, thousandths; -1 when unknown.
        note: why it is unhealthy; empty when it is not.
    """

    uuid: str
    health: DeviceHealth
    used_bytes: int
    total_bytes: int
    busy_milli: int = -1
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeviceMode:
    """A setting of driver or cards on which it depends how well they can be shared.

    Attributes:
        name: as ``MIG``.
        detail: how it is set.
        remedy: what to do; empty where it is as it should be.
    """

    name: str
    detail: str
    remedy: str = ""


class DeviceBackend(Protocol):
    """One vendor's cards. No call raises for what a card does: a card that fails reads as unhealthy."""

    name: str

    def devices(self) -> Sequence[Device]:
        """The cards found at start, by index. The same each time."""

    def readings(self) -> Sequence[DeviceReading]:
        """One for each card of ``devices``, in that order."""

    def processes(self) -> Sequence[DeviceProcess]:
        """Who holds memory on which card; a process once for each card."""

    def device_files(self, uuid: str) -> Sequence[str]:
        """Device nodes that only holders of this card may open; empty when there are none."""

    def tenant_env(self, uuids: Sequence[str]) -> dict[str, str]:
        """Variables that show a tenant these cards, in this order."""

    def context_bytes(self, kept: str) -> Mapping[str, int]:
        """What a process's context takes, by card; cards of which it cannot be told are left out.

        Measured by making one; what was measured is kept in the file ``kept`` for as long as the driver is the same.
        """

    def can_park(self) -> tuple[bool, str]:
        """Whether device memory of a process can be moved to the host and back, and if not, why."""

    def can_move(self) -> tuple[bool, str]:
        """Whether a parked process can come back to other cards of the same model, and if not, why."""

    def park(self, pid: int) -> None:
        """Move a process's device memory to the host.

        Raises:
            OSError: it was not moved; the process goes on as before.
        """

    def wake(self, pids: Sequence[int], to: Mapping[str, str] | None = None) -> None:
        """Move back those of these processes that are parked: cards do not list them any more.

        Args:
            pids: parked or not, all of which left the same cards if they come back to others.
            to: by card that they left, the one of the same model that they come back to, in the order of their own
                numbering; None: their own cards.

        Raises:
            OSError: one of them was not moved and stays parked.
        """

    def modes(self) -> Sequence[DeviceMode]:
        """Settings that decide how well the cards can be shared; empty for cards without any."""

    def notes(self) -> Sequence[str]:
        """What is missing or odd about the driver here, a sentence each."""

    def close(self) -> None:
        """Let go of the driver."""
