"""Whether the arbiter's guardian would outlive what kills the arbiter, as it says itself and the kernel confirms."""

from dataclasses import dataclass
from pathlib import Path

from flexai.adapters.local import processes
from flexai.ports import UsageReader


@dataclass(frozen=True, slots=True)
class Guardian:
    """Who resumes what a dead arbiter had stopped.

    Attributes:
        group: the control group of version 2 that it is in; empty where there is none.
        shares: why it is in the arbiter's own group, so that what kills that group kills both; empty when it is not.
    """

    group: str
    shares: str


def guardian(run_dir: Path, arbiter_pid: int) -> Guardian | None:
    """The guardian of this run directory; None where none runs."""
    try:
        pid, why = (run_dir / "guardian").read_text(errors="replace").splitlines()[:2]
        is_there = b"--guardian" in Path(f"/proc/{int(pid)}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    if not is_there:
        return None
    own, arbiters = _group(int(pid)), _group(arbiter_pid)
    return Guardian(own, "" if own != arbiters else why or f"both are in {own}")


def guardian_notes(run_dir: Path, usage: UsageReader) -> list[str]:
    """What people should know of it without asking."""
    last = usage.read()
    found = guardian(run_dir, last.arbiter_pid) if last else None
    if found is None or not found.shares:
        return []
    return [f"what kills the arbiter's whole control group kills its guardian too ({found.shares})"]


def _group(pid: int) -> str:
    return next((path for controllers, path in processes.cgroup_lines(pid) if not controllers), "")
