"""A latency tenant beside batch work."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most, note_of, quantile
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.slicing.solo import Solos
from flexai.apps.bench.slicing.stand import flood, has_torch, stand, torch
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import IDLE, RUN, Load, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant

PERIOD_US = 25_000
_PARTS = {1: (1.0,), 3: (0.5, 0.3, 0.2)}
_MORE_MS = {1: {1: 0.5, 4: 0.7}, 3: {1: 0.7, 4: 0.9}}
_TIMES = {1: 1.10, 3: 1.15}
_LEAST_KEPT = {1: 98.0, 3: 95.0}


def _alone(tenant: Tenant, seconds: float) -> list[float]:
    """Latencies (ms) while it has the card to itself."""
    tenant.order(RUN)
    time.sleep(0.5)
    before = len(tenant.control.latencies_ms())
    time.sleep(seconds)
    samples = tenant.control.latencies_ms()[before:]
    tenant.order(IDLE)
    time.sleep(0.2)
    return samples


def _server(asked: int, size_ms: int) -> Load:
    """Requests of about that length: tokens of a decoder in a CUDA graph, bound by memory as decoding is.

    Without PyTorch a kernel of so many clock cycles, which takes longer where a neighbour's work lowers the clock.
    """
    if has_torch():
        more = ("--gap-ms", str(PERIOD_US / 1000), "--tokens", str(size_ms))
        return replace(torch(asked, "latency"), tenant_class="latency", more=more)
    return Load(asked, size_ms * 1000.0, kind="latency", tenant_class="latency", more=("--period-us", str(PERIOD_US)))


def latency(run: Run) -> Iterator[Row]:
    """p99 of requests of 1, 4 and 16 ms beside one deep queue, and beside three."""
    with stand() as on:
        for n_batch in (1,) if run.quick else (1, 3):
            for size_ms in (4,) if run.quick else (1, 4, 16):
                yield from _beside(run, on, size_ms, n_batch)


def _beside(run: Run, on: Stand, size_ms: int, n_batch: int) -> Iterator[Row]:
    seconds = 2.5 if run.quick else 5.0
    # It asks for twice what it uses: a guarantee that is used up bounds it, as it should.
    asked = min(900, round(2.2 * size_ms * 1000 / PERIOD_US * 1000))
    server = _server(asked, size_ms)
    milli = [round(part * (1000 - asked)) for part in _PARTS[n_batch]]
    batch = [torch(share, "gemm") if has_torch() else flood(share, 1000) for share in milli]
    with tenants(on.pool, run.folder, [server, *batch]) as (first, *others):
        alone = _alone(first, seconds / 2)
        solos = Solos(run, others)
        first.order(RUN)
        time.sleep(0.5)
        before = len(first.control.latencies_ms())
        together = over(measure(on, [first, *others], seconds, settle_s=0.5))
        beside = first.control.latencies_ms()[before:]
        around = solos.again()
        alone += _alone(first, seconds / 2)
    floor, got = quantile(alone, 0.99), quantile(beside, 0.99)
    more = _MORE_MS[n_batch].get(size_ms)
    most = floor + more if more is not None else floor * _TIMES[n_batch]
    conditions = f"requests of {size_ms} ms every {PERIOD_US / 1000:g} ms beside {n_batch} deep batch"
    told = f"alone p50 {quantile(alone, 0.5):.2f} p99 {floor:.2f}; beside p50 {quantile(beside, 0.5):.2f} p90 "
    note = f"{told}{quantile(beside, 0.9):.2f}; {len(beside)} requests; {around.note}"
    label = f"{size_ms} ms beside {n_batch}"
    data = {"plot": "latency", "label": label, "alone": alone[-2000:]}
    yield Row(
        "latency tenant p99",
        conditions,
        at_most(round(most, 3)),
        got,
        "ms",
        note,
        tuple(beside[-2000:]),
        void=around.void,
        data=data,
    )
    work = around.work(together.rates[1:])
    left = 1 - (quantile(alone, 0.5) if is_real() else size_ms) * 1000 / PERIOD_US
    why = "a request's card time is taken to be its usual time alone" if is_real() else ""
    least = at_least(_LEAST_KEPT[n_batch])
    yield Row("batch keeps of what is left", conditions, least, sum(work) / left, "%", why, void=around.void)
    if n_batch > 1:
        used = sum(together.parts[1:]) or 1e-9
        split = [100 * part / used for part in together.parts[1:]]
        error = max(abs(got - 100 * want) for got, want in zip(split, _PARTS[n_batch], strict=True))
        told = ", ".join(f"{part:.2f}" for part in split)
        note = note_of(f"by card time {told}", together.told_by)
        yield Row("split of the batch, worst", conditions, at_most(2.0), error, "points", note)


CASES = (Case("latency", "a latency tenant beside one and beside three deep queues", latency, 142, 15),)
