"""Tenants that cannot use all they have: gaps, demand that comes and goes; several processes in one tenant."""

from __future__ import annotations

import time
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most, note_of
from flexai.apps.bench.slicing.moments import max_min
from flexai.apps.bench.slicing.residency import by_log
from flexai.apps.bench.slicing.solo import Solos
from flexai.apps.bench.slicing.stand import flood, has_torch, name_of, outside, stand, step, torch
from flexai.apps.bench.slicing.windows import Window, measure, over
from flexai.apps.bench.tenants import IDLE, RUN, Load, rates_per_s, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.tenants import Tenant


def _mixed(run: Run) -> list[tuple[str, list[Load]]]:
    found = [("steps of 2 ms with gaps of 1 ms 50 + flood 50", [step(500, 2000, 1000), flood(500, 1000)])]
    if has_torch():
        found += [
            ("gpt 30 + gemm 70", [torch(300, "gpt"), torch(700, "gemm")]),
            ("gemm 10 + gemm-sync 20 + decode 70", [torch(100, "gemm"), torch(200, "gemm-sync"), torch(700, "decode")]),
        ]
    return found[:1] if run.quick else found


def gaps(run: Run) -> Iterator[Row]:
    """Sum of work under control over that of the same programs side by side with nobody who controls them."""
    seconds = 2.0 if run.quick else 6.0
    with stand() as on:
        for name, loads in _mixed(run):
            with tenants(on.pool, run.folder, loads) as running, outside(on, run.folder, loads) as free:
                solos = Solos(run, running)
                (windows, rates), around = solos.between(partial(_by_turns, on, running, free, seconds / 2))
            held = over(windows)
            work, freely = around.work(held.rates), around.work(rates)
            used = sum(held.parts)
            owed = max_min([load.share_milli for load in loads], [around.part(tenant) for tenant in running], used)
            error = max(abs(100 * (part - due)) for part, due in zip(held.parts, owed, strict=True))
            told = ", ".join(f"{done:.1f} (free {more:.1f})" for done, more in zip(work, freely, strict=True))
            conditions = f"{name}, {held.seconds:.0f} s in two halves"
            yield Row(
                "mixed with gaps: sum over side by side", conditions, at_least(97.0), 100 * sum(work) / sum(freely),
                "%", f"work {told}; {around.note}", void=around.void,
            )  # fmt: skip
            parts = ", ".join(
                f"{100 * part:.2f} of {100 * due:.2f}" for part, due in zip(held.parts, owed, strict=True)
            )
            judged = not any(load.is_torch for load in loads)  # whose demand nobody knows
            yield Row(
                "mixed with gaps: worst off what it is owed", conditions, at_most(2.0) if judged else None, error,
                "points", note_of(f"card time had, of that owed (max-min by its own demand): {parts}", held.told_by),
                void=around.void,
            )  # fmt: skip


def _by_turns(
    on: Stand, running: Sequence[Tenant], free: Sequence[Tenant], seconds: float
) -> tuple[list[Window], list[float]]:
    """Those in the pool, the same outside, and both once more: windows of the ones, mean rates of the others."""
    windows, rates = list[Window](), []
    for _ in range(2):
        windows += measure(on, running, seconds)
        rates.append(rates_per_s(free, seconds))
    return windows, [fmean(one) for one in zip(*rates, strict=True)]


def max_min_rows(run: Run) -> Iterator[Row]:
    """A neighbour that comes and goes, and one that never uses its share: the others share what it leaves."""
    n_waves = 3 if run.quick else 8
    loads = [flood(500, 500), flood(300, 500), flood(200, 500)]
    with stand() as on:
        with tenants(on.pool, run.folder, loads) as running:
            phases, doubt = _square(on, running, n_waves, 0.5)
        for name, owed in (("off", (0.0, 60.0, 40.0)), ("on", (50.0, 30.0, 20.0))):
            got = phases[name]
            error = max(abs(part - due) for part, due in zip(got, owed, strict=True))
            told = ", ".join(f"{part:.2f} of {due:g}" for part, due in zip(got, owed, strict=True))
            yield Row(
                "max-min fairness, worst", f"50 % owner {name}, square wave of 1 s, {n_waves} waves; neighbours 30, 20",
                at_most(2.0), error, "points", f"by card time {told}; the first 50 ms of each phase left out",
                void=doubt,
            )  # fmt: skip
        loads = [step(500, 1000, 3000), flood(300, 500), flood(200, 500)]
        with tenants(on.pool, run.folder, loads) as running:
            solos = Solos(run, running[:1])
            together = over(measure(on, running, 2.0 if run.quick else 6.0))
            around = solos.again()
        demand = around.part(running[0])
        owed_parts = max_min([500, 300, 200], [demand, 1.0, 1.0], sum(together.parts))
        error = 100 * max(abs(part - due) for part, due in zip(together.parts, owed_parts, strict=True))
        told = ", ".join(
            f"{100 * part:.2f} of {100 * due:.2f}" for part, due in zip(together.parts, owed_parts, strict=True)
        )
        yield Row(
            "max-min fairness, worst", f"50 % owner that uses {100 * demand:.0f} % at most; neighbours 30, 20",
            at_most(2.0), error, "points", note_of(f"by card time {told}", together.told_by, around.note),
            void=around.void,
        )  # fmt: skip


def _square(on: Stand, running: list[Tenant], n_waves: int, half_s: float) -> tuple[dict[str, list[float]], str]:
    """Parts (%) of what was used of the card while the first tenant is on and while it is off; why the log may err."""
    for tenant in running:
        tenant.order(RUN)
    time.sleep(1.0)
    edges_ns: list[int] = []
    for wave in range(2 * n_waves):
        running[0].order(IDLE if wave % 2 == 0 else RUN)
        from_ns = time.monotonic_ns() + 50_000_000
        time.sleep(half_s)
        edges_ns += [from_ns, time.monotonic_ns()]
        on.listen()
    heard = on.hear_out(edges_ns[-1])
    log = by_log(on.listen(), [name_of(tenant) for tenant in running], edges_ns)
    found = {}
    for place, name in enumerate(("off", "on")):
        phases = log.held_ns[2 * place :: 4]  # each is followed by what is left out of the next, and the other
        held = [sum(column) for column in zip(*phases, strict=True)]
        found[name] = [100 * one / (sum(held) or 1) for one in held]
    return found, on.overwritten or log.doubt or ("" if heard else "the log was not read up to its end in time")


def two_processes(run: Run) -> Iterator[Row]:
    """Two processes of one tenant share its grant: they do not earn it twice."""
    loads = [flood(300, 500, n_processes=2), flood(700, 500)]
    with stand() as on, tenants(on.pool, run.folder, loads) as running:
        windows = measure(on, running, 2.0 if run.quick else 10.0)
        n_each = [control.counted()[0] for control in running[0].controls]
    together = over(windows)
    held = [100 * part / (sum(together.parts) or 1e-9) for part in together.parts]
    note = f"held {held[0]:.2f} and {held[1]:.2f} %; its processes did {n_each[0]} and {n_each[1]} kernels"
    note = note_of(note, together.told_by)
    conditions = f"two floods at 30 % together beside one at 70 %, {together.seconds:.0f} s"
    yield Row("two processes in one tenant, error", conditions, at_most(0.3), abs(held[0] - 30), "points", note)


CASES = (
    Case("gaps", "tenants with gaps: their sum beside the same programs without control", gaps, 118, 24),
    Case("max-min", "a tenant that does not use its share, now and then or ever", max_min_rows, 26, 18),
    Case("two-processes", "two processes in one tenant", two_processes, 15, 7),
)
