"""Hard limits of a lone tenant, and what a tenant with a whole card loses to being held."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most, note_of
from flexai.apps.bench.slicing.residency import between_stops
from flexai.apps.bench.slicing.solo import MOST_DRIFT, Solos
from flexai.apps.bench.slicing.stand import (
    clock_mhz,
    clock_text,
    flood,
    graph,
    has_torch,
    name_of,
    outside,
    stand,
    step,
    torch,
)
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import IDLE, begin, rate_between, steady, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.residency import Periods
    from flexai.apps.bench.slicing.windows import Window
    from flexai.apps.bench.tenants import Load, Tenant


_LIMITS = (100, 300, 500, 900)


def _programs(run: Run, *, bare: bool) -> list[tuple[str, Load, tuple[int, ...]]]:
    """Name, program, and the limits it is tried at."""
    if has_torch():
        found = [("gemm", torch(1000, "gemm")), ("decode", torch(1000, "decode")), ("gpt", torch(1000, "gpt"))]
        found += [("gemm-sync", torch(1000, "gemm-sync"))]
    else:
        found = [("graph", graph(1000, 100)), ("step-synchronous", step(1000, 2000, 0))]
    found = [("flood", flood(1000, 1000)), *(found if not run.quick else [])]
    tried = (300,) if bare or run.quick else _LIMITS
    return [(name, replace(load, bare=bare), tried) for name, load in found]


def limits(run: Run, *, bare: bool) -> Iterator[Row]:
    """By card time; work done beside it, since a card that runs less clocks higher."""
    seconds = 2.0 if run.quick else 5.0
    with stand() as on:
        for name, load, tried in _programs(run, bare=bare):
            with tenants(on.pool, run.folder, [load]) as running:
                solos = Solos(on, running, 1.0 if run.quick else 1.5)
                job = running[0].job_id
                got: dict[int, Window] = {}
                periods: dict[int, Periods | None] = {}
                for milli in tried:
                    on.pool.post(f"/v1/jobs/{job}/resize", {"compute_milli": milli, "limit_milli": milli})
                    got[milli] = one = over(measure(on, running, seconds, settle_s=0.5))
                    whole_periods = between_stops(on.told, name_of(running[0]), one.began_ns, one.ended_ns)
                    periods[milli] = None if one.doubt else whole_periods
                on.pool.post(f"/v1/jobs/{job}/resize", {"compute_milli": 1000, "limit_milli": 1000})
                solos.again()
            for milli, window in got.items():
                yield _limit(f"{name}{', no preload' if bare else ''}", milli, window, periods[milli], solos)


def _limit(name: str, milli: int, window: Window, periods: Periods | None, solos: Solos) -> Row:
    """Judged over whole periods of the limit: as the window cuts them, its length would be in the figure."""
    (work,), asked, cut = solos.work(window.rates), milli / 10, 100 * window.parts[0]
    held, told = cut, f"held {cut:.2f} %"
    if periods is not None:
        held = 100 * periods.part
        told = f"held {held:.2f} % from the first stop to the last ({periods.n} periods, {periods.seconds:.2f} s), "
        told += f"{cut:.2f} % of the {window.seconds:.0f} s as they are cut"
    told += f", work {work:.2f} % of solo, {clock_text(window.mhz)}"
    data = {"plot": "limit", "asked": asked, "held": held, "as_cut": cut, "work": work}
    data["accounts"] = 100 * window.accounts[0]
    return Row(
        "hard limit, error by card time", f"{asked:g} %, {name}, lone, {window.seconds:.0f} s", at_most(0.3),
        abs(held - asked), "points", note_of(told, window.told_by, solos.note), void=solos.void,
        data=data,
    )  # fmt: skip


def _alone_rate(tenant: Tenant, seconds: float) -> tuple[float, float]:
    """(iterations per second, SM clock) of a program that nobody holds."""
    begin([tenant], 0.5)
    before = tenant.counted()
    time.sleep(seconds)
    after = tenant.counted()
    mhz = clock_mhz()
    tenant.order(IDLE)
    time.sleep(0.2)
    return rate_between(before, after, seconds), mhz


def whole(run: Run) -> Iterator[Row]:
    """One tenant at 100 % in the pool against the same program outside of it, by turns in one run."""
    seconds, n_turns = (1.0, 3) if run.quick else (2.0, 3)
    plain = torch(1000, "gemm") if has_torch() else flood(1000, 1000)
    bound = torch(1000, "resnet") if has_torch() else step(1000, 20, 0)
    with stand() as on:
        for name, load, most in (("plain", plain, 0.5), ("launch-bound", bound, 1.0)):
            ratios, clocks, frees = [], [], []
            with tenants(on.pool, run.folder, [load]) as (inside,), outside(on, run.folder, [load]) as (free,):
                for tenant in (inside, free):
                    steady(tenant, 0.5)
                    tenant.order(IDLE)
                # Outside, inside, outside, ...: what drifts slowly cancels out.
                frees.append(_alone_rate(free, seconds)[0])
                for _ in range(n_turns):
                    window = over(measure(on, [inside], seconds, settle_s=0.5))
                    rate, mhz = _alone_rate(free, seconds)
                    frees.append(rate)
                    ratios.append(window.rates[0] / ((frees[-1] + frees[-2]) / 2))
                    clocks.append((window.mhz, mhz))
            loss = 100 * (1 - sorted(ratios)[len(ratios) // 2])
            drift = abs(frees[-1] / frees[0] - 1)
            note = (
                f"clocks held {clock_text(clocks[-1][0])}, free {clock_text(clocks[-1][1])}; drift {100 * drift:.2f} %"
            )
            yield Row(
                "one tenant at 100 %: loss", f"{name} ({load.kind}), median of {n_turns} turns of {seconds:g} s",
                at_most(most), loss, "%", note, tuple(100 * (1 - ratio) for ratio in ratios),
                void=f"a solo rate drifted by {100 * drift:.1f} %" if drift > MOST_DRIFT else "",
            )  # fmt: skip


CASES = (
    Case("limits-bare", "the same with nothing of ours in the tenant", partial(limits, bare=True), 80, 10),
    Case("limits", "hard limit of a lone tenant, by card time", partial(limits, bare=False), 158, 10),
    Case("whole", "what one tenant at 100 % loses, plain and launch-bound", whole, 72, 46),
)
