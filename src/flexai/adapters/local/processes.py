"""What ``/proc`` says of processes, and pidfds to see their end. A process is named by pid and start time together."""

import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_START_FIELD = 19  # field 22 of stat, counted from the third
_STATE_FIELD = 0
_PARENT_FIELD = 1


def stat_fields(pid: int) -> list[str] | None:
    """Fields of ``/proc/<pid>/stat`` from the third on; None when there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def start_ticks(pid: int) -> int:
    """When it started; 0 when there is no such process."""
    fields = stat_fields(pid)
    return int(fields[_START_FIELD]) if fields else 0


def is_alive(pid: int, ticks: int = 0) -> bool:
    """Whether it runs; with ``ticks``, whether it is the one that started then. A zombie does not run."""
    fields = stat_fields(pid)
    if not fields or fields[_STATE_FIELD] in {"Z", "X"}:
        return False
    return ticks in {0, int(fields[_START_FIELD])}


def parent(pid: int) -> int:
    """Pid of its parent; 0 when there is none or no such process."""
    fields = stat_fields(pid)
    return int(fields[_PARENT_FIELD]) if fields else 0


def children(pid: int) -> Iterator[int]:
    """Pids of its children, as it has them now."""
    for file in (_PROC / str(pid) / "task").glob("*/children"):
        try:
            yield from map(int, file.read_text().split())
        except OSError:
            continue


def owner(pid: int) -> int | None:
    """Effective user id; None when there is no such process."""
    try:
        return (_PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def all_pids() -> Iterator[int]:
    """Every process there is."""
    with os.scandir(_PROC) as entries:
        yield from [int(entry.name) for entry in entries if entry.name.isdigit()]


def environment(pid: int) -> bytes:
    """Its variables when it was executed, NUL-separated; empty when they cannot be read."""
    try:
        return (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return b""


def cgroup_lines(pid: int) -> list[tuple[str, str]]:
    """(controllers, path) for each hierarchy it is in; controllers are empty for cgroup v2."""
    try:
        text = (_PROC / str(pid) / "cgroup").read_text(errors="replace")
    except OSError:
        return []
    rows = (line.split(":", 2) for line in text.splitlines())
    return [(row[1], row[2]) for row in rows if len(row) == 3]


def pid_namespace(pid: int | str = "self") -> int:
    """Inode of its pid namespace; 0 when unknown."""
    try:
        return os.stat(f"/proc/{pid}/ns/pid").st_ino  # noqa: PTH116 (a magic link is followed, not resolved)
    except OSError:
        return 0


def open_pidfd(pid: int, ticks: int = 0) -> int | None:
    """A descriptor that becomes readable when the process ends; None when it is not there (any more)."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if ticks and start_ticks(pid) != ticks:
        os.close(descriptor)
        return None
    return descriptor


def reap_if_child(pid: int) -> None:
    """Forget a dead child, so that no zombie stays; a process that is not our child is left alone."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except (ChildProcessError, OverflowError):
        return


def kill(pid: int, number: int) -> bool:
    """Send a signal; False when the process is gone or not ours to signal."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
