"""The box a tenant's processes live in, and can be frozen and ended in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Place:
    """Where a member's processes go.

    Attributes:
        cgroup: its path as in ``/proc/<pid>/cgroup``; None where not all that belongs to the member is surely in one,
            so that its first process has to stay above all that it starts.
        join_files: a process that writes its pid into each of these is inside.
    """

    cgroup: str | None
    join_files: tuple[str, ...]


class Containment(Protocol):
    """Boxes by member name. Where the kernel gives nothing better, processes are known by their environment."""

    def make(self, name: str, cpu_milli: int, ram_bytes: int, allowed: Sequence[str], denied: Sequence[str]) -> Place:
        """Make the box, or put the one that is there right. Device nodes in ``denied`` cannot be opened inside."""

    def supervisor_place(self) -> Place:
        """Where supervisors live: outside of every box, and outside of the agent's own group."""

    def admit(self, name: str, pid: int) -> None:
        """Put a process inside.

        Raises:
            OSError: it is gone, or the kernel refused.
        """

    def follow(self, name: str, pid: int, ticks: int) -> None:
        """All that descends from this process is inside, but not the process itself: the supervisor of a box."""

    def pids(self, name: str) -> list[int]:
        """Processes inside, as pids of this namespace."""

    def holder(self, pid: int) -> str | None:
        """Name of the box a process is in; None when it is in none."""

    def signal(self, name: str, number: int) -> int:
        """Signal every process inside; how many there were."""

    def freeze(self, name: str, frozen: bool) -> None:
        """Stop every process inside from running, or let them go on."""

    def remove(self, name: str) -> None:
        """Remove the box, ending what is left inside."""

    def names(self) -> list[str]:
        """Boxes that are there, those of an earlier agent included."""

    @property
    def hostile_frozen_by(self) -> str:
        """What keeps a box from running that undoes the arbiter's stops: ``group``, its freezer, or ``signal``."""

    def close(self) -> None:
        """Leave nothing empty behind; boxes with something inside stay."""

    def notes(self) -> Sequence[str]:
        """What cannot be enforced here, a sentence each."""
