"""Containment without cgroups (an agent that is not root): a member's processes are known by their descent.

The first process of a member, or the supervisor above it, is a subreaper: what loses its parent becomes its child, so
that all descends from it for as long as it lives. (``flexai run`` leaves one behind: ``apps/cli/child.py``.) Where it
was killed, what carries ``FLEXAI_TENANT_DIR`` is known by that. CPU, host memory and devices are not limited, and
``notes`` says so.
"""

import os
import signal
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from flexai.adapters.local import processes
from flexai.ports import Place

_VARIABLE = b"FLEXAI_TENANT_DIR="
_KILL_ROUNDS = 5
_TELL_ROUNDS = 50


class ProcessTrees:
    """``ports.Containment`` by descent and environment."""

    def __init__(self, tenants_dir: Path, why: str) -> None:
        self._tenants_dir, self._why = tenants_dir, why
        self._roots: dict[str, set[tuple[int, int]]] = {}
        self._supervisors: dict[str, tuple[int, int]] = {}

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

    def follow(self, name: str, pid: int, ticks: int) -> None:
        """See ``ports.Containment``."""
        self._supervisors[name] = (pid, ticks)

    def pids(self, name: str) -> list[int]:
        """See ``ports.Containment``."""
        return sorted(pid for pid, holder in self._members().items() if holder == name)

    def _members(self) -> dict[int, str]:
        """Every process that belongs to a member."""
        uid = os.geteuid()
        parents = {pid: processes.parent(pid) for pid in processes.all_pids() if processes.owner(pid) == uid}
        above = {pid: name for name, (pid, ticks) in self._supervisors.items() if processes.is_alive(pid, ticks)}
        known = above | self._seeds()
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
        return {pid: name for pid, name in known.items() if pid not in above and processes.is_alive(pid)}

    def _seeds(self) -> dict[int, str]:
        """Processes that belong to a member whatever they descend from."""
        return {
            pid: name for name, roots in self._roots.items() for pid, ticks in roots if processes.is_alive(pid, ticks)
        }

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
        if number == signal.SIGKILL:
            self._tell_all(name, signal.SIGSTOP)  # what cannot run cannot fork away from us
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
        self._tell_all(name, signal.SIGSTOP if frozen else signal.SIGCONT)

    def _tell_all(self, name: str, number: int, but_not: Collection[int] = ()) -> None:
        """Each is told as it is found, before its children are looked for; again, for what was forked meanwhile."""
        done = set(but_not)
        for _ in range(_TELL_ROUNDS):
            n_before = len(done)
            for pid in self._found(name):
                if pid not in done:
                    processes.kill(pid, number)
                    done.add(pid)
            if len(done) == n_before:
                return

    def _found(self, name: str) -> Iterator[int]:
        """Its processes: first by descent, which is quick enough for those that fork and end, then all there are."""
        above: list[int] = []
        for pid, ticks in self._roots.get(name, ()):
            if processes.is_alive(pid, ticks):
                yield pid
                above.append(pid)
        pid, ticks = self._supervisors.get(name, (0, 0))
        if pid and processes.is_alive(pid, ticks):
            above.append(pid)
        for pid in above:
            for child in processes.children(pid):
                yield child
                above.append(child)
        yield from self.pids(name)

    def remove(self, name: str) -> None:
        """See ``ports.Containment``."""
        self.signal(name, signal.SIGKILL)
        self._roots.pop(name, None)
        self._supervisors.pop(name, None)

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
        return [f"jobs are held together without cgroups ({self._why}): CPU, memory and card access are not limited"]
