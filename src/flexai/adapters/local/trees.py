"""Containment without cgroups (an agent that is not root): a member's processes are known by their environment.

Every process of a member carries ``FLEXAI_TENANT_DIR`` and is a descendant of its first process; nothing holds a
process that changes both. CPU, host memory and devices are not limited, and ``notes`` says so.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from flexai.adapters.local import processes
from flexai.ports import Place

_VARIABLE = b"FLEXAI_TENANT_DIR="
_KILL_ROUNDS = 5


class ProcessTrees:
    """``ports.Containment`` by environment and descent."""

    def __init__(self, tenants_dir: Path, why: str) -> None:
        self._tenants_dir, self._why = tenants_dir, why
        self._roots: dict[str, set[tuple[int, int]]] = {}

    def make(self, name: str, cpu_milli: int, ram_bytes: int, allowed: Sequence[str], denied: Sequence[str]) -> Place:
        """See ``ports.Containment``; nothing is limited."""
        del cpu_milli, ram_bytes, allowed, denied
        self._roots.setdefault(name, set())
        return Place(None, ())

    def supervisor_place(self) -> Place:
        """See ``ports.Containment``."""
        return Place(None, ())

    def admit(self, name: str, pid: int) -> None:
        """See ``ports.Containment``."""
        ticks = processes.start_ticks(pid)
        if not ticks:
            raise ProcessLookupError(pid, "is gone")
        self._roots.setdefault(name, set()).add((pid, ticks))

    def pids(self, name: str) -> list[int]:
        """See ``ports.Containment``."""
        return sorted(pid for pid, holder in self._members().items() if holder == name)

    def _members(self) -> dict[int, str]:
        """Every process that belongs to a member."""
        uid = os.geteuid()
        parents = {pid: processes.parent(pid) for pid in processes.all_pids() if processes.owner(pid) == uid}
        known = {
            pid: name for name, roots in self._roots.items() for pid, ticks in roots if processes.is_alive(pid, ticks)
        }
        for pid in parents:
            if pid not in known and (name := self._by_environment(pid)):
                known[pid] = name
        grew = True
        while grew:
            grew = False
            for pid, parent in parents.items():
                if pid not in known and parent in known:
                    known[pid] = known[parent]
                    grew = True
        # A zombie is nobody: its parent has yet to ask for it.
        return {pid: name for pid, name in known.items() if processes.is_alive(pid)}

    def _by_environment(self, pid: int) -> str | None:
        environment = processes.environment(pid)
        at = environment.find(_VARIABLE)
        if at < 0 or (at > 0 and environment[at - 1] != 0):
            return None
        path = Path(os.fsdecode(environment[at + len(_VARIABLE) :].split(b"\0", 1)[0]))
        return path.name if path.parent == self._tenants_dir else None

    def holder(self, pid: int) -> str | None:
        """See ``ports.Containment``."""
        return self._by_environment(pid) or self._members().get(pid)

    def signal(self, name: str, number: int) -> int:
        """See ``ports.Containment``."""
        first = self.pids(name)
        inside = first
        for _ in range(_KILL_ROUNDS if number == signal.SIGKILL else 1):
            for pid in inside:
                processes.kill(pid, number)
            inside = self.pids(name) if number == signal.SIGKILL else []
            if not inside:
                break
        return len(first)

    def freeze(self, name: str, frozen: bool) -> None:
        """See ``ports.Containment``."""
        done: set[int] = set()
        while todo := set(self.pids(name)) - done:  # again, for what was forked meanwhile
            for pid in todo:
                processes.kill(pid, signal.SIGSTOP if frozen else signal.SIGCONT)
            done |= todo

    def remove(self, name: str) -> None:
        """See ``ports.Containment``."""
        self.signal(name, signal.SIGKILL)
        self._roots.pop(name, None)

    def names(self) -> list[str]:
        """See ``ports.Containment``."""
        return sorted(set(self._members().values()))

    @property
    def hostile_frozen_by(self) -> str:
        """See ``ports.Containment``."""
        return "signal"

    def close(self) -> None:
        """Nothing to let go of."""

    def notes(self) -> Sequence[str]:
        """See ``ports.Containment``."""
        note = (
            f"jobs are held together without cgroups ({self._why}): CPU, memory and card access are not limited, "
            "and a process that leaves its environment behind is not found again"
        )
        return [note]
