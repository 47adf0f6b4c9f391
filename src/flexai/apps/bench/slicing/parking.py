"""Moving a tenant's device memory to the host, and back."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from flexai.adapters.pool_client import PoolRefused
from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.slicing.memory import watched
from flexai.apps.bench.slicing.stand import stand
from flexai.apps.bench.tenants import IDLE, RUN, Load, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.memory import Watch
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant

_GIB = 1 << 30
_WITHIN_S = 90.0


def park(run: Run) -> Iterator[Row]:
    """A program that holds 8 GiB and does nothing is parked, woken, and goes on; the second time is judged."""
    n_gib = 1 if run.quick else 8
    load = Load(500, 500.0, more=("--memory", str(n_gib * _GIB)), memory_bytes=(n_gib + 2) * _GIB)
    conditions = f"{n_gib} GiB, {'host memory warm (the second time)' if is_real() else 'simulated'}"
    with stand() as on, watched(on) as watch, tenants(on.pool, run.folder, [load]) as (tenant,):
        moves = _Moves(on, watch, tenant, n_gib * _GIB)
        try:
            times = [(moves.seconds("park"), moves.seconds("wake")) for _ in range(2)]
        except (PoolRefused, TimeoutError) as error:
            yield Row("park and wake", conditions, None, math.nan, "s", f"not measured: {error}")
            return
        before = tenant.counted()[0]
        time.sleep(0.5)
        n_done = tenant.counted()[0] - before
    note = f"the first time {times[0][0]:.2f} and {times[0][1]:.2f} s; afterwards it did {n_done} kernels in 0.5 s"
    judged = not run.quick
    yield Row("park", conditions, at_most(5.0) if judged else None, times[1][0], "s", note)
    yield Row("wake", conditions, at_most(2.0) if judged else None, times[1][1], "s")
    yield Row("park and wake: programs that do not go on", conditions, at_most(0.0), float(n_done == 0), "")


class _Moves:
    """Moves of a job's memory.

    Judged by the card's own books, as the pool says that a job is parked when it was asked; and a wake by what the
    program does, as its memory is allocated at once and filled later.
    """

    def __init__(self, on: Stand, watch: Watch, tenant: Tenant, held_bytes: int) -> None:
        self._on, self._watch, self._tenant, self._job = on, watch, tenant, tenant.job_id
        self._half = watch.now_bytes() - held_bytes // 2

    def seconds(self, what: str) -> float:
        """Until all that it holds has left the card; or is back, and the program has done something."""
        self._tenant.order(IDLE if what == "park" else RUN)
        n_done = self._tenant.counted()[0]
        began = time.monotonic()
        self._on.pool.post(f"/v1/jobs/{self._job}/{what}")
        state = "parked" if what == "park" else "running"
        while (
            not self._is(state)
            or (self._watch.now_bytes() < self._half) is (what == "wake")
            or (what == "wake" and self._tenant.counted()[0] == n_done)
        ):
            if time.monotonic() - began > (_WITHIN_S if is_real() else 5.0):
                events = self._on.pool.pages(f"/v1/jobs/{self._job}/history")
                told = [event["message"] for event in events if "park" in str(event.get("message", ""))]
                raise TimeoutError(told[-1] if told else f"the memory of job {self._job} did not move at {what}")
            time.sleep(0.002)
        return time.monotonic() - began

    def _is(self, state: str) -> bool:
        return bool(self._on.pool.get(f"/v1/jobs/{self._job}")["state"] == state)


CASES = (Case("park", "8 GiB of a tenant moved to host memory and back", park, 24, 6),)
