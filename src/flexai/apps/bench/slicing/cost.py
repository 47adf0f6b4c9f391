"""What control costs: the arbiter's processor time, the driver's lock, neighbours' calls, the shim."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most, quantile
from flexai.apps.bench.shim_cost import SHIM
from flexai.apps.bench.slicing.stand import flood, outside, stand
from flexai.apps.bench.tenants import IDLE, RUN, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant

_TEN = (190, 160, 140, 120, 100, 90, 80, 60, 40, 20)


def budget(run: Run) -> Iterator[Row]:
    """Ten busy tenants with the arbiter at work, and the same ten with nobody who controls them; then an idle card."""
    seconds = 3.0 if run.quick else 10.0
    loads = [flood(milli, 500) for milli in _TEN]
    with stand() as on:
        time.sleep(1.0)
        idle = _cpu_part(on.arbiter_pid(), 3.0)
        with tenants(on.pool, run.folder, loads) as running:
            _order(running, RUN)
            time.sleep(1.0)
            before, calls, _ = on.control()
            cpu_before, began = _cpu_s(on.arbiter_pid()), time.monotonic()
            time.sleep(seconds)
            took = time.monotonic() - began
            after, calls_after, backend = on.control()
            busy = (_cpu_s(on.arbiter_pid()) - cpu_before) / took
            # Apart from the figures above: the probe is one program more that the arbiter sees.
            held_us = _alloc_us(on, seconds / 2)
            _order(running, IDLE)
        with outside(on, run.folder, loads) as free:
            _order(free, RUN)
            time.sleep(1.0)
            free_us = _alloc_us(on, seconds / 2)
            _order(free, IDLE)
    conditions = f"{backend}, 10 busy tenants, {seconds:g} s"
    note = f"{(calls_after - calls) / took:.0f} calls/s"
    yield Row("driver lock time", conditions, at_most(2.0), 100 * (after - before) / 1e9 / took, "%", note)
    added = quantile(held_us, 0.99) - quantile(free_us, 0.99)
    yield Row(
        "neighbours' cuMemAlloc, added to p99", conditions, at_most(50.0), added, "us",
        f"p99 with the arbiter at work {quantile(held_us, 0.99):.0f}, with nobody who controls them "
        f"{quantile(free_us, 0.99):.0f}; p50 {quantile(held_us, 0.5):.0f} and {quantile(free_us, 0.5):.0f}; "
        f"{len(held_us)} and {len(free_us)} calls", tuple(held_us[:2000]),
    )  # fmt: skip
    yield Row("arbiter CPU, busy", conditions, at_most(5.0), 100 * busy, "% of a core")
    yield Row("arbiter CPU, idle", "one card, no tenant, 3 s", at_most(0.2), 100 * idle, "% of a core")


def _order(running: Sequence[Tenant], order: int) -> None:
    for tenant in running:
        tenant.order(order)


def _alloc_us(on: Stand, seconds: float) -> list[float]:
    """Times of a neighbour's allocations, from a process that is no tenant."""
    words = [sys.executable, "-m", "flexai.apps.bench.slicing.alloc_probe", str(seconds)]
    with subprocess.Popen(words, env=on.outside(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as probe:
        assert probe.stdout is not None
        if probe.stdout.readline() != "ready\n":
            raise RuntimeError("the neighbour did not start")
        return [float(one) for one in json.loads(probe.communicate("\n")[0])]


def _cpu_s(pid: int) -> float:
    """Processor time of all threads; in ns in the kernel's books, where ``stat`` counts in steps of 10 ms."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _cpu_part(pid: int, seconds: float) -> float:
    before = _cpu_s(pid)
    time.sleep(seconds)
    return (_cpu_s(pid) - before) / seconds


CASES = (
    Case("budget", "driver lock time, neighbours' allocations, the arbiter's CPU", budget, 40, 20),
    SHIM,
)
