"""What the node costs while nothing runs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.adapters.own_pool import own_pool
from flexai.apps.bench.frame import Case, Row, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run

_NODE = ("agent", "arbiter", "guardian")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def idle(run: Run) -> Iterator[Row]:
    """Resident memory and CPU of agent and arbiter with eight simulated cards and no job."""
    seconds = 5.0 if run.quick else 30.0
    with own_pool("h200:8") as stand:
        pids = {name: one["pid"] for name, one in json.loads((stand.state_dir / "up.json").read_text()).items()}
        time.sleep(3.0)
        before = {name: _cpu_s(pid) for name, pid in pids.items()}
        time.sleep(seconds)
        used = {name: (_cpu_s(pid) - before[name]) / seconds * 100 for name, pid in pids.items()}
        resident = {name: _resident_bytes(pid) / 2**20 for name, pid in pids.items()}
    others = ", ".join(f"{name} {resident[name]:.1f} MiB {used[name]:.2f}%" for name in pids if name not in _NODE)
    parts = ", ".join(f"{name} {resident[name]:.1f} MiB {used[name]:.2f}%" for name in _NODE)
    conditions = f"idle, 8 simulated cards, {seconds:g} s"
    yield Row(
        "agent + arbiter, resident", conditions, at_most(80.0), sum(resident[name] for name in _NODE), "MiB", parts
    )
    yield Row("agent + arbiter, CPU", conditions, at_most(1.0), sum(used[name] for name in _NODE), "% of a core",
              f"beside them: {others}")  # fmt: skip


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _resident_bytes(pid: int) -> int:
    """Resident size; pages shared with other processes count in full."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


CASES = (Case("idle", "agent and arbiter while nothing runs, 8 cards", idle, 36, 12),)
