"""Containment by cgroups: version 2, or the version 1 hierarchies where those are what is mounted.

Groups lie at ``/flexai/<instance>/<member>`` in each hierarchy, supervisors in ``/flexai/<instance>/supervisors``.
With version 2 the processes of a member are one group below, in ``work``, whose freezer is the arbiter's: it freezes
there who undoes its stops, we freeze above whose user or queue wants it, and neither undoes what the other did. The
instance names the state directory, so that two pools on one machine never take each other's jobs.

An agent that is not root makes the same below a group of version 2 that was given to its user (``delegated.py``).
"""

import errno
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from flexai.adapters.local import device_filter, processes
from flexai.ports import Place

_ROOT = Path("/sys/fs/cgroup")
_TOP = "flexai"
_SUPERVISORS = "supervisors"
_WORK = "work"  # as native/arbiter/io/processes.c names it
_V1_WANTED = ("freezer", "cpu", "memory", "devices", "pids")
_V2_WANTED = ("cpu", "memory", "pids")
_PERIOD_US = 100_000
_LEAST_QUOTA_US = 1_000
_END_WITHIN_S = 2.0


def available(root: Path = _ROOT) -> str:
    """Why cgroups cannot be used here; empty when they can."""
    hierarchy = root if (root / "cgroup.controllers").exists() else root / "freezer"
    if not hierarchy.is_dir():
        return f"no cgroup v2 at {root} and no freezer hierarchy"
    probe = hierarchy / f"{_TOP}-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError as error:
        return f"{hierarchy}: {os.strerror(error.errno or 0)}"
    return ""


def top_of(instance: str, root: Path) -> Path:
    """Where the groups of an instance lie below a root."""
    return root / _TOP / instance


class Cgroups:
    """``ports.Containment`` over the kernel's groups."""

    def __init__(self, instance: str, root: Path = _ROOT, within: str = "") -> None:
        """``root`` is a mount of cgroups, or one group of version 2: then ``within`` is its path in the mount."""
        self._base = f"{_TOP}/{instance}"
        self._path = f"{within}/{self._base}"
        self._limited: list[str] = []
        self._is_v2 = (root / "cgroup.controllers").exists()
        self._notes: list[str] = []
        if self._is_v2:
            self._hierarchies = {"": root}
            self._enable_v2(root)
        else:
            self._hierarchies = {
                name: root / name for name in _V1_WANTED if os.access(root / name / "cgroup.procs", os.W_OK)
            }
            missing = [name for name in _V1_WANTED if name not in self._hierarchies]
            if missing:
                self._notes.append(f"no {', '.join(missing)} cgroup here, so that is not limited")
        self._main = self._hierarchies["" if self._is_v2 else "freezer"]

    def _enable_v2(self, root: Path) -> None:
        there = (root / "cgroup.controllers").read_text().split()
        missing = [name for name in _V2_WANTED if name not in there]
        if missing:
            self._notes.append(f"no {', '.join(missing)} controller here, so that is not limited")
        self._limited = [name for name in _V2_WANTED if name in there]
        wanted = " ".join(f"+{name}" for name in self._limited)
        path = root
        for part in (*self._base.split("/"), None):
            try:
                (path / "cgroup.subtree_control").write_text(wanted)
            except OSError as error:
                why = "it has processes of its own" if error.errno == errno.EBUSY else error.strerror
                self._note(f"{', '.join(self._limited)} of jobs are not limited: {path} cannot hand them on ({why})")
                self._limited, wanted = [], ""
            if part is not None:
                path /= part
                path.mkdir(exist_ok=True)

    def _paths(self, name: str) -> dict[str, Path]:
        return {controller: root / self._base / name for controller, root in self._hierarchies.items()}

    def make(self, name: str, cpu_milli: int, ram_bytes: int, allowed: Sequence[str], denied: Sequence[str]) -> Place:
        """See ``ports.Containment``."""
        paths = self._paths(name)
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
        quota_us = max(_LEAST_QUOTA_US, cpu_milli * _PERIOD_US // 1000) if cpu_milli else -1
        if self._is_v2:
            group = paths[""]
            if "cpu" in self._limited:
                self._set(group / "cpu.max", f"{quota_us if quota_us > 0 else 'max'} {_PERIOD_US}")
            if "memory" in self._limited:
                self._set(group / "memory.max", str(ram_bytes) if ram_bytes else "max")
            self._filter_devices(group, denied)
        else:
            if "cpu" in paths:
                self._set(paths["cpu"] / "cpu.cfs_period_us", str(_PERIOD_US))
                self._set(paths["cpu"] / "cpu.cfs_quota_us", str(quota_us))
            if "memory" in paths:
                self._set(paths["memory"] / "memory.limit_in_bytes", str(ram_bytes or -1))
            if "devices" in paths:
                self._set_devices(paths["devices"], allowed, denied)
        return Place(f"{self._path}/{name}", tuple(map(str, self._join_files(name))))

    def _join_files(self, name: str) -> list[Path]:
        """What a process writes its pid into; the groups are there already."""
        groups = list(self._paths(name).values())
        if self._is_v2:
            groups = [group / _WORK for group in groups]
            for group in groups:
                group.mkdir(exist_ok=True)
        return [group / "cgroup.procs" for group in groups]

    def _filter_devices(self, group: Path, denied: Sequence[str]) -> None:
        try:
            device_filter.deny(group, device_filter.character_nodes(denied))
        except OSError as error:
            self._note(f"cards not granted can be opened: no BPF program of devices can be set ({error.strerror})")

    def _set_devices(self, group: Path, allowed: Sequence[str], denied: Sequence[str]) -> None:
        for verb, files in (("deny", denied), ("allow", allowed)):
            for major, minor in device_filter.character_nodes(files):
                self._set(group / f"devices.{verb}", f"c {major}:{minor} rwm")

    def _set(self, file: Path, text: str) -> None:
        try:
            file.write_text(text)
        except OSError as error:
            self._note(f"{file.name} cannot be set ({error.strerror}), so that is not limited")

    def _note(self, note: str) -> None:
        if note not in self._notes:
            self._notes.append(note)

    def supervisor_place(self) -> Place:
        """See ``ports.Containment``."""
        paths = self._paths(_SUPERVISORS)
        for path in paths.values():
            path.mkdir(parents=True, exist_ok=True)
        return Place(f"{self._path}/{_SUPERVISORS}", tuple(str(path / "cgroup.procs") for path in paths.values()))

    def admit(self, name: str, pid: int) -> None:
        """See ``ports.Containment``."""
        for file in self._join_files(name):
            file.write_text(f"{pid}\n")

    def follow(self, name: str, pid: int, ticks: int) -> None:
        """See ``ports.Containment``; what it starts is in the group already."""

    def pids(self, name: str) -> list[int]:
        """See ``ports.Containment``."""
        found: list[int] = []
        for directory in _walk(self._main / self._base / name):
            try:
                found += [int(line) for line in (directory / "cgroup.procs").read_text().split()]
            except OSError as error:
                if error.errno not in {errno.ENOENT, errno.ENODEV}:
                    raise
        return found

    def holder(self, pid: int) -> str | None:
        """See ``ports.Containment``."""
        prefix = f"{self._path}/"
        for controllers, path in processes.cgroup_lines(pid):
            ours = controllers == "" if self._is_v2 else "freezer" in controllers.split(",")
            # A container sees its own root as "/"; we read from outside, where the path is whole.
            if ours and path.startswith(prefix):
                name = path.removeprefix(prefix).split("/", 1)[0]
                return None if name == _SUPERVISORS else name
        return None

    def signal(self, name: str, number: int) -> int:
        """See ``ports.Containment``."""
        if number == signal.SIGKILL:
            return self._kill(name)
        return sum(processes.kill(pid, number) for pid in self.pids(name))

    def _kill(self, name: str) -> int:
        group = self._main / self._base / name
        inside = self.pids(name)
        if self._is_v2:
            try:
                (group / "cgroup.kill").write_text("1")
            except OSError:
                pass
            else:
                return len(inside)
        # Frozen first: what cannot run cannot fork away from us.
        self.freeze(name, frozen=True)
        inside = self.pids(name)
        for pid in inside:
            processes.kill(pid, signal.SIGKILL)
        self.freeze(name, frozen=False)
        return len(inside)

    def freeze(self, name: str, frozen: bool) -> None:
        """See ``ports.Containment``."""
        group = self._main / self._base / name
        file, text = (
            (group / "cgroup.freeze", "1" if frozen else "0")
            if self._is_v2
            else (group / "freezer.state", "FROZEN" if frozen else "THAWED")
        )
        try:
            file.write_text(text)
        except FileNotFoundError:
            return

    def remove(self, name: str) -> None:
        """See ``ports.Containment``."""
        until = time.monotonic() + _END_WITHIN_S
        for path in self._paths(name).values():
            for directory in reversed(_walk(path)):
                while not _removed(directory) and time.monotonic() < until:
                    self._kill(name)
                    time.sleep(0.002)

    def names(self) -> list[str]:
        """See ``ports.Containment``."""
        try:
            inside = [entry.name for entry in (self._main / self._base).iterdir() if entry.is_dir()]
        except OSError:
            return []
        return sorted(name for name in inside if name != _SUPERVISORS)

    @property
    def hostile_frozen_by(self) -> str:
        """See ``ports.Containment``; the freezer of version 1 is ours alone."""
        return "group" if self._is_v2 else "signal"

    def close(self) -> None:
        """Remove the instance's own groups, if nothing is left in them."""
        for root in self._hierarchies.values():
            for path in (root / self._base / _SUPERVISORS, root / self._base):
                _removed(path)

    def notes(self) -> Sequence[str]:
        """See ``ports.Containment``."""
        return list(self._notes)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _walk(path: Path) -> list[Path]:
    """The group and those below it, parents first."""
    found = [path]
    for directory in found:
        try:
            found += [entry for entry in directory.iterdir() if entry.is_dir()]
        except OSError:
            continue
    return found
