"""Containment of an agent that is not root, in the cgroup that it runs in, where that was given to its user.

systemd gives users such groups: units of their own manager, those with ``Delegate=``. What the kernel refuses to move
there (a ``flexai run`` of an ssh session, whose group is not its user's) is held by its descent, as everything is
where there is no such group; so a member may be in both, and no group is told as the place of all of it.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flexai.adapters.local import processes
from flexai.adapters.local.cgroups import Cgroups, available, top_of
from flexai.adapters.local.trees import ProcessTrees
from flexai.ports import Place

OWN_LEAF = "flexai-daemons"
"""Name of a group below the delegated one for the pool's own processes (systemd: ``DelegateSubgroup=``). A group that
has processes cannot hand its controllers on, so only beside such a leaf CPUs and RAM of jobs are limited."""

_MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True)
class Group:
    """A group of cgroup v2.

    Attributes:
        path: as in ``/proc/<pid>/cgroup``.
        directory: where it is mounted.
    """

    path: str
    directory: Path


def own_group(mounts: Path = _MOUNTS) -> Group | str:
    """The group that was given to our user, which this process or its leaf is in; why there is none."""
    path = next((path for controllers, path in processes.cgroup_lines(os.getpid()) if not controllers), None)
    group = path and _mounted(path.removesuffix(f"/{OWN_LEAF}") or "/", mounts)
    if not group:
        return "no cgroup v2 is mounted"
    if not all(os.access(file, os.W_OK) for file in (group.directory, group.directory / "cgroup.procs")):
        return f"{group.directory} is not this user's"
    return available(group.directory) or group


def _mounted(path: str, mounts: Path) -> Group | None:
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[:1] != ["cgroup2"]:
            continue
        root, mount = fields.split()[3:5]
        if path == root or path.startswith(root.rstrip("/") + "/"):
            return Group(path, Path(mount, path.removeprefix(root).lstrip("/")))
    return None


def _earlier(kept: Path, instance: str) -> list[Group]:
    """Groups in which an earlier agent of this instance left something."""
    try:
        paths = kept.read_text().splitlines()
    except FileNotFoundError:
        return []
    groups = [group for path in paths if (group := _mounted(path, _MOUNTS))]
    return [group for group in groups if top_of(instance, group.directory).is_dir()]


class Delegated(ProcessTrees):
    """``ports.Containment`` by groups below our own, and by descent.

    Where members of an earlier agent are, which ran in another group, is kept in a file.
    """

    def __init__(self, tenants_dir: Path, instance: str, group: Group, kept: Path) -> None:
        super().__init__(tenants_dir, "")
        self._groups = [Cgroups(instance, group.directory, group.path.rstrip("/"))]
        earlier = [found for found in _earlier(kept, instance) if found != group]
        self._groups += [Cgroups(instance, found.directory, found.path.rstrip("/")) for found in earlier]
        kept.write_text("".join(f"{one.path}\n" for one in (group, *earlier)))

    def make(self, name: str, cpu_milli: int, ram_bytes: int, allowed: Sequence[str], denied: Sequence[str]) -> Place:
        """See ``ports.Containment``."""
        super().make(name, cpu_milli, ram_bytes, allowed, denied)
        return Place(None, self._groups[0].make(name, cpu_milli, ram_bytes, allowed, denied).join_files)

    def supervisor_place(self) -> Place:
        """See ``ports.Containment``."""
        return self._groups[0].supervisor_place()

    def admit(self, name: str, pid: int) -> None:
        """See ``ports.Containment``."""
        super().admit(name, pid)
        # Not ours to move is what another session of the user began: then its descent holds it.
        with contextlib.suppress(OSError):
            self._groups[0].admit(name, pid)

    def _seeds(self) -> dict[int, str]:
        inside = {pid: name for group in self._groups for name in group.names() for pid in group.pids(name)}
        return super()._seeds() | inside

    def signal(self, name: str, number: int) -> int:
        """See ``ports.Containment``."""
        if number != signal.SIGKILL:
            return super().signal(name, number)
        return sum(group.signal(name, number) for group in self._groups) + super().signal(name, number)

    def freeze(self, name: str, frozen: bool) -> None:
        """See ``ports.Containment``."""
        inside: list[int] = []
        for group in self._groups:
            group.freeze(name, frozen)
            inside += group.pids(name)
        self._tell_all(name, signal.SIGSTOP if frozen else signal.SIGCONT, inside)

    def remove(self, name: str) -> None:
        """See ``ports.Containment``."""
        super().remove(name)
        for group in self._groups:
            group.remove(name)

    def names(self) -> list[str]:
        """See ``ports.Containment``."""
        return sorted({*super().names(), *(name for group in self._groups for name in group.names())})

    def close(self) -> None:
        """See ``ports.Containment``."""
        for group in self._groups:
            group.close()

    def notes(self) -> Sequence[str]:
        """See ``ports.Containment``."""
        return self._groups[0].notes()
