"""Hard limits of a lone tenant; what one whole tenant loses; what control costs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.slicing.stand import flood, has_torch, measure, over, solo, stand, torch
from flexai.apps.bench.tenants import tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Load


def limits(run: Run) -> Iterator[Row]:
    """By card time; work done beside it, since a card that runs less clocks higher."""
    seconds = 3.0 if run.quick else 6.0
    for milli in (300,) if run.quick else (100, 300, 500, 900):
        loads: list[tuple[str, Load, Load]] = [("flood", flood(milli, 1000, milli), flood(1000, 1000))]
        if has_torch() and not run.quick:
            kinds = ("gemm", "decode", "gpt", "gemm-sync") if milli == 300 else ("gemm",)
            loads += [(kind, torch(milli, kind, milli), torch(1000, kind)) for kind in kinds]
        for name, limited, whole in loads:
            with stand() as on:
                with tenants(on.pool, run.folder, [whole]) as (alone,):
                    rate = solo(on, alone, 2.0)
                with tenants(on.pool, run.folder, [limited]) as running:
                    got = over(measure(on, running, seconds))
            note = f"held {100 * got.parts[0]:.2f} %, work {100 * got.rates[0] / rate:.2f} % of solo"
            yield Row(
                "hard limit, error by card time", f"{milli / 10:g} %, {name}, lone, {seconds:g} s", at_most(0.3),
                abs(100 * got.parts[0] - milli / 10), "points", note,
            )  # fmt: skip


def whole(run: Run) -> Iterator[Row]:
    """One tenant at 100 % in the pool against the same program outside of it, by turns in one run."""
    import subprocess  # noqa: PLC0415
    import time  # noqa: PLC0415

    from flexai.apps.bench.tenants import END, IDLE, RUN, Control  # noqa: PLC0415

    seconds = 2.0 if run.quick else 4.0
    load = torch(1000, "gemm") if has_torch() else flood(1000, 1000)
    with stand() as on, tenants(on.pool, run.folder, [load]) as (inside,):
        control = Control(run.folder / "outside")
        environment = dict(os.environ, FLEXAI_SIMCARD=f"{on.run_dir}/simcard.sock", LD_LIBRARY_PATH=_library_path())
        program = subprocess.Popen(load.command(control.path), env=environment, stdout=subprocess.DEVNULL)
        try:
            while not control.is_ready:
                assert program.poll() is None, "the program outside the pool did not start"
                time.sleep(0.02)
            ratios = []
            for _ in range(3):
                rate = solo(on, inside, seconds)
                control.order(RUN)
                time.sleep(0.5)
                n, at_ns = control.counted()
                time.sleep(seconds)
                n_after, at_after = control.counted()
                control.order(IDLE)
                time.sleep(0.2)
                ratios.append(rate / ((n_after - n) / ((at_after - at_ns) / 1e9)))
        finally:
            control.order(END)
            program.wait(timeout=20)
    ratio = sorted(ratios)[1]
    yield Row(
        "one tenant at 100 % against the program alone", f"{load.kind}, median of 3 turns of {seconds:g} s",
        at_least(99.5), 100 * ratio, "%", samples=tuple(ratios),
    )  # fmt: skip


def _library_path() -> str:
    from flexai_native import library  # noqa: PLC0415

    from flexai.apps.bench.slicing.stand import is_real  # noqa: PLC0415

    before = os.environ.get("LD_LIBRARY_PATH", "")
    return before if is_real() else str(library("simcard/libcuda.so.1").parent)


def budget(run: Run) -> Iterator[Row]:
    """Driver lock time, and the arbiter's CPU, with ten busy tenants and with an idle card."""
    seconds = 3.0 if run.quick else 8.0
    loads = [flood(milli, 500) for milli in (190, 160, 140, 120, 100, 90, 80, 60, 40, 20)]
    with stand() as on:
        idle = _cpu(on.arbiter_pid(), 3.0)
        with tenants(on.pool, run.folder, loads) as running:
            before, calls, _ = on.control()
            cpu_before = _cpu_s(on.arbiter_pid())
            took = sum(window.seconds for window in measure(on, running, seconds, settle_s=1.0)) + 1.2
            after, calls_after, backend = on.control()
            busy = (_cpu_s(on.arbiter_pid()) - cpu_before) / took
    conditions = f"{backend}, 10 busy tenants, {seconds:g} s"
    note = f"{(calls_after - calls) / took:.0f} calls/s"
    yield Row("driver lock time", conditions, at_most(2.0), 100 * (after - before) / 1e9 / took, "%", note)
    yield Row("arbiter CPU, busy", conditions, at_most(5.0), 100 * busy, "% of a core")
    yield Row("arbiter CPU, idle", "one card, no tenant, 3 s", at_most(0.2), 100 * idle, "% of a core")


def _cpu_s(pid: int) -> float:
    from pathlib import Path  # noqa: PLC0415

    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cpu(pid: int, seconds: float) -> float:
    import time  # noqa: PLC0415

    before = _cpu_s(pid)
    time.sleep(seconds)
    return (_cpu_s(pid) - before) / seconds


CASES = (
    Case("limits", "hard limit of a lone tenant, by card time", limits),
    Case("whole", "what one tenant at 100 % loses", whole),
    Case("budget", "driver lock time and the arbiter's CPU", budget),
)
