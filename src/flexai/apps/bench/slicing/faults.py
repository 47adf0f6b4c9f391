"""What happens to others when somebody dies."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.slicing.stand import flood, stand
from flexai.apps.bench.tenants import RUN, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant


def _longest_stall_ms(watched: list[Tenant], seconds: float) -> float:
    """Longest time in which none of these tenants finished a kernel."""
    until = time.monotonic() + seconds
    longest, last, since = 0.0, [tenant.control.counted()[0] for tenant in watched], time.monotonic()
    while time.monotonic() < until:
        time.sleep(0.0005)
        now = [tenant.control.counted()[0] for tenant in watched]
        if now != last:
            longest = max(longest, time.monotonic() - since)
            last, since = now, time.monotonic()
    return 1000 * max(longest, time.monotonic() - since)


def arbiter_killed(run: Run) -> Iterator[Row]:
    """Kill -9 of the arbiter while two tenants take turns: who is stopped goes on, and is held again soon."""
    stalls, adopted = [], []
    with stand() as on, tenants(on.pool, run.folder, [flood(500, 500), flood(500, 500)]) as running:
        for tenant in running:
            tenant.control.order(RUN)
        time.sleep(1.5)
        for _ in range(2 if run.quick else 5):
            pid = on.arbiter_pid()
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            stalls.append(max(_longest_stall_ms([tenant], 0.8 / len(running)) for tenant in running))
            while (on.arbiter_pid() in (0, pid) or not all(on.held_ns(running))) and time.monotonic() - began < 10:
                time.sleep(0.01)
            adopted.append(1000 * (time.monotonic() - began))
            time.sleep(1.5)
        alive = [on.pool.get(f"/v1/jobs/{tenant.job_id}")["state"] for tenant in running]
    conditions = "two floods 50/50, worst of all kills"
    note = f"jobs afterwards: {', '.join(alive)}"
    yield Row(
        "arbiter killed: longest stop of a tenant", conditions, at_most(100.0), max(stalls), "ms", note, tuple(stalls)
    )
    yield Row("arbiter killed: held again", conditions, at_most(1000.0), max(adopted), "ms", samples=tuple(adopted))


CASES = (Case("arbiter-killed", "kill -9 of the arbiter", arbiter_killed),)
