"""Moving a tenant's device memory to the host, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flexai.adapters.pool_client import PoolRefused
from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.slicing.stand import stand
from flexai.apps.bench.tenants import RUN, Load, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand

_GIB = 1 << 30
_WITHIN_S = 90.0


def park(run: Run) -> Iterator[Row]:
    """A program that holds 8 GiB and does nothing is parked, woken, and goes on; the second time is judged."""
    n_gib = 1 if run.quick else 8
    load = Load(500, 500.0, more=("--memory", str(n_gib * _GIB)), memory_bytes=(n_gib + 2) * _GIB)
    conditions = f"{n_gib} GiB, {'host memory warm (the second time)' if is_real() else 'simulated'}"
    with stand() as on, tenants(on.pool, run.folder, [load]) as (tenant,):
        job = tenant.job_id
        try:
            times = [(_moved_s(on, job, "park", "parked"), _moved_s(on, job, "wake", "running")) for _ in range(2)]
        except PoolRefused as error:
            yield Row("park and wake", conditions, None, float("nan"), "s", f"not measured: {error}")
            return
        before = tenant.counted()[0]
        tenant.order(RUN)
        time.sleep(0.5)
        n_done = tenant.counted()[0] - before
    note = f"the first time {times[0][0]:.2f} and {times[0][1]:.2f} s; afterwards it did {n_done} kernels in 0.5 s"
    judged = not run.quick
    yield Row("park", conditions, at_most(5.0) if judged else None, times[1][0], "s", note)
    yield Row("wake", conditions, at_most(2.0) if judged else None, times[1][1], "s")
    yield Row("park and wake: programs that do not go on", conditions, at_most(0.0), float(n_done == 0), "")


def _moved_s(on: Stand, job: str, what: str, state: str) -> float:
    began = time.monotonic()
    on.pool.post(f"/v1/jobs/{job}/{what}")
    while on.pool.get(f"/v1/jobs/{job}")["state"] != state:
        if time.monotonic() - began > _WITHIN_S:
            raise TimeoutError(f"job {job} was not {state} within {_WITHIN_S:g} s of {what}")
        time.sleep(0.005)
    return time.monotonic() - began


CASES = (Case("park", "8 GiB of a tenant moved to host memory and back", park, 35, 6),)
