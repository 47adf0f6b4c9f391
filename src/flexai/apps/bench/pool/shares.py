"""Shares on live simulated cards, by what the workloads themselves counted over what they count alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flexai.adapters.own_pool import own_pool
from flexai.adapters.pool_client import PoolClient
from flexai.apps.bench.frame import Case, Row, at_least, at_most, quantile
from flexai.apps.bench.pool.cards import CARD, WORDS
from flexai.apps.bench.tenants import IDLE, RUN, Load, rates_per_s, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant

BACKENDS = ("hwslice", "lease")
_KERNELS_US = (50.0, 500.0, 2000.0, 20_000.0)
_SPLITS = ((500, 500), (700, 300), (500, 300, 200), (400, 300, 200, 100), (250, 250, 200, 150, 100, 50))

_STRETCH_NS, _GIVE_UP_NS = 20_000_000, 1_000_000_000


def accuracy(run: Run) -> Iterator[Row]:
    """Two to six busy tenants whose shares add up to one card, over 10 s."""
    splits = _SPLITS[:2] if run.quick else _SPLITS
    seconds = 3.0 if run.quick else 10.0
    for backend in BACKENDS:
        with own_pool(CARD, {"FLEXAI_BACKEND": backend}) as stand:
            pool = PoolClient(stand.run_dir)
            in_use = pool.pages("/v1/devices")[0].get("backend")
            errors, sums = [], []
            alone: dict[float, float] = {}
            for turn, split in enumerate(splits):
                # Each split mixes lengths, beginning with another one: all pairs of lengths meet.
                kernels = [_KERNELS_US[(turn + place) % len(_KERNELS_US)] for place in range(len(split))]
                for kernel_us in set(kernels) - alone.keys():
                    (alone[kernel_us],) = _rates(pool, run, [Load(1000, kernel_us, memory_bytes=0)], 2.0)
                rates = _rates(pool, run, [Load(*one) for one in zip(split, kernels, strict=True)], seconds)
                shares = [1000 * rate / alone[kernel] for rate, kernel in zip(rates, kernels, strict=True)]
                errors += [abs(got - asked) / 10 for got, asked in zip(shares, split, strict=True)]
                sums.append(sum(shares) / 10)
                told = ", ".join(f"{asked / 10:g}->{got / 10:.1f}" for asked, got in zip(split, shares, strict=True))
                run.say(f"  {backend}: {told}; kernels of {', '.join(f'{kernel:g}' for kernel in kernels)} us")
            note = "" if in_use == backend else f"asked for {backend}, the arbiter used {in_use}"
            conditions = f"{in_use or backend}, 2 to {len(splits[-1])} busy tenants, {seconds:g} s, {WORDS}"
            mean = sum(errors) / len(errors)
            yield Row("share error, mean", conditions, at_most(1.0), mean, "points", note, tuple(errors))
            yield Row("share error, worst", conditions, at_most(2.0), max(errors), "points", note)
            yield Row("sum of shares, least", conditions, at_least(97.0), min(sums), "%", note, tuple(sums))


def hard_limit(run: Run) -> Iterator[Row]:
    """A lone tenant with a limit of 30 % on an idle card."""
    for backend in BACKENDS:
        with own_pool(CARD, {"FLEXAI_BACKEND": backend}) as stand:
            pool = PoolClient(stand.run_dir)
            (alone,) = _rates(pool, run, [Load(1000, 1000.0, memory_bytes=0)], 2.0)
            (limited,) = _rates(pool, run, [Load(300, 1000.0, limit_milli=300)], 3.0 if run.quick else 10.0)
            got = 100 * limited / alone
            in_use = pool.pages("/v1/devices")[0].get("backend")
            note = f"it got {got:.2f}%" + ("" if in_use == backend else f"; asked for {backend}")
            yield Row("hard limit of 30%, error", f"{in_use}, lone tenant, kernels of 1 ms, {WORDS}", at_most(1.0),
                      abs(got - 30.0), "points", note)  # fmt: skip


def lending(run: Run) -> Iterator[Row]:
    """How soon an idle share goes to a busy neighbour, and comes back."""
    n_turns = 10 if run.quick else 40
    with own_pool(CARD, {"FLEXAI_BACKEND": "hwslice"}) as stand:
        pool = PoolClient(stand.run_dir)
        loads = [Load(500, 200.0), Load(500, 200.0)]
        with tenants(pool, run.folder, loads) as (owner, neighbour):
            for tenant in (owner, neighbour):
                tenant.control.order(RUN)
            time.sleep(1.0)
            lent_ms, back_ms = [], []
            for _ in range(n_turns):
                owner.control.order(IDLE)
                at_ns = _share_from_ns(neighbour, 0.92)
                lent_ms.append(max(0.0, (at_ns - owner.control.counted()[1]) / 1e6))
                time.sleep(0.1)
                asked_ns = time.monotonic_ns()
                owner.control.order(RUN)
                back_ms.append(max(0.0, (_share_from_ns(owner, 0.42) - asked_ns) / 1e6))
                time.sleep(0.1)
    conditions = f"hwslice, 50% each, kernels of 0.2 ms, {n_turns} turns, p90, {WORDS}"
    yield Row("idle share lent", conditions, at_most(10.0), quantile(lent_ms, 0.9), "ms", samples=tuple(lent_ms))
    yield Row("share taken back", conditions, at_most(10.0), quantile(back_ms, 0.9), "ms", samples=tuple(back_ms))


def _share_from_ns(tenant: Tenant, share: float) -> int:
    """Start of the first stretch of 20 ms, from now on, in which a tenant did that share of a card's work."""
    seen = [(time.monotonic_ns(), tenant.control.counted()[0])]
    while seen[-1][0] - seen[0][0] < _GIVE_UP_NS:
        time.sleep(0.0005)
        now_ns, count = time.monotonic_ns(), tenant.control.counted()[0]
        seen.append((now_ns, count))
        earlier = next((one for one in reversed(seen) if now_ns - one[0] >= _STRETCH_NS), None)
        if earlier is not None and (count - earlier[1]) * tenant.load.kernel_us * 1e3 >= share * (now_ns - earlier[0]):
            return earlier[0]
    return seen[-1][0]


def _rates(pool: PoolClient, run: Run, loads: Sequence[Load], seconds: float) -> list[float]:
    with tenants(pool, run.folder, loads) as running:
        return rates_per_s(running, seconds)


CASES = (
    Case("share", "share by iterations over solo, 2 to 6 busy tenants, each backend", accuracy, 140, 45),
    Case("limit", "hard limit of 30 %, lone tenant, each backend", hard_limit, 40, 25),
    Case("lend", "idle share lent to a busy neighbour, and taken back", lending, 20, 10),
)
