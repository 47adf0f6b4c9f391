"""A latency tenant beside batch work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most, quantile
from flexai.apps.bench.slicing.stand import Stand, flood, has_torch, is_real, measure, over, solo, stand, torch
from flexai.apps.bench.tenants import IDLE, RUN, Load, Tenant, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run

PERIOD_US = 25_000


def _latencies(on: Stand, tenant: Tenant, others: list[Tenant], seconds: float) -> list[float]:
    """Latencies (ms) of the tenant while the others run."""
    for each in [tenant, *others]:
        each.control.order(RUN)
    time.sleep(1.0)
    before = len(tenant.control.latencies_ms())
    if others:
        measure(on, [tenant, *others], seconds, settle_s=0.0)
    else:
        time.sleep(seconds)
    samples = tenant.control.latencies_ms()[before:]
    for each in [tenant, *others]:
        each.control.order(IDLE)
    time.sleep(0.2)
    return samples


def latency(run: Run) -> Iterator[Row]:
    """p99 of requests of 1, 4 and 16 ms beside one deep queue, and beside three."""
    seconds = 3.0 if run.quick else 8.0
    sizes = (4,) if run.quick else (1, 4, 16)
    for n_batch in (1,) if run.quick else (1, 3):
        for size_ms in sizes:
            # It asks for twice what it uses: a guarantee that is used up bounds it, as it should.
            asked = min(900, round(2.2 * size_ms * 1000 / PERIOD_US * 1000))
            server = Load(
                asked, size_ms * 1000.0, kind="latency", tenant_class="latency", more=("--period-us", str(PERIOD_US))
            )
            parts = (1.0,) if n_batch == 1 else (0.5, 0.3, 0.2)
            milli = [round(part * (1000 - asked)) for part in parts]
            batch = [torch(share, "gemm") if has_torch() else flood(share, 1000) for share in milli]
            loads = [server, *batch]
            with stand() as on, tenants(on.pool, run.folder, loads) as (first, *others):
                alone = _latencies(on, first, [], seconds)
                rates = [solo(on, other, 2.0) for other in others]
                for each in (first, *others):
                    each.control.order(RUN)
                time.sleep(1.0)
                before = len(first.control.latencies_ms())
                together = over(measure(on, [first, *others], seconds, settle_s=0.0))
                beside = first.control.latencies_ms()[before:]
            floor, got = quantile(alone, 0.99), quantile(beside, 0.99)
            more = {1: 0.5, 4: 0.7}.get(size_ms) if n_batch == 1 else {1: 0.7, 4: 0.9}.get(size_ms)
            most = floor + more if more is not None else floor * (1.10 if n_batch == 1 else 1.15)
            conditions = f"requests of {size_ms} ms every {PERIOD_US / 1000:g} ms beside {n_batch} deep batch"
            note = f"alone p50 {quantile(alone, 0.5):.2f} p99 {floor:.2f}; beside p50 {quantile(beside, 0.5):.2f}"
            yield Row("latency tenant p99", conditions, at_most(round(most, 3)), got, "ms", note, tuple(beside[-2000:]))
            left = 1 - size_ms * 1000 / PERIOD_US
            kept = sum(rate / was for rate, was in zip(together.rates[1:], rates, strict=True)) / left
            yield Row(
                "batch keeps of what is left", conditions, at_least(98.0 if n_batch == 1 else 95.0), 100 * kept, "%",
                "card time of a request on the real card differs a little from what was asked" if is_real() else "",
            )  # fmt: skip


CASES = (Case("latency", "a latency tenant beside batch work", latency),)
