"""Hard limits of a lone tenant."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import Case, Row, at_most, note_of
from flexai.apps.bench.slicing.residency import between_stops
from flexai.apps.bench.slicing.solo import Solos
from flexai.apps.bench.slicing.stand import clock_text, flood, graph, has_torch, name_of, stand, step, torch
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.residency import Periods
    from flexai.apps.bench.slicing.solo import Around
    from flexai.apps.bench.slicing.stand import Stand
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
    """By card time; work done beside it, since a card that runs less clocks higher.

    Of a program whose rate is the host's too, each limit stands between solo runs of its own.
    """
    seconds = 2.0 if run.quick else 4.0
    with stand() as on:
        for name, load, tried in _programs(run, bare=bare):
            steps = [(milli,) for milli in tried] if load.is_by_host else [tried]
            with tenants(on.pool, run.folder, [load]) as running:
                solos = Solos(run, running)
                rows: list[Row] = []
                for step_ in steps:
                    take = partial(_limited, on, running, step_, seconds)
                    got, around = solos.between(take)
                    called = f"{name}{', no preload' if bare else ''}"
                    rows += [_limit(called, milli, *got[milli], around) for milli in step_]
            yield from rows


def _limited(
    on: Stand, running: Sequence[Tenant], tried: Sequence[int], seconds: float
) -> dict[int, tuple[Window, Periods | None]]:
    """The first tenant at one limit after the other; and at none in the end."""
    job, got = running[0].job_id, {}
    for milli in tried:
        on.pool.post(f"/v1/jobs/{job}/resize", {"compute_milli": milli, "limit_milli": milli})
        one = over(measure(on, running, seconds, settle_s=0.5))
        periods = between_stops(on.told, name_of(running[0]), one.began_ns, one.ended_ns)
        got[milli] = one, None if one.doubt else periods
    on.pool.post(f"/v1/jobs/{job}/resize", {"compute_milli": 1000, "limit_milli": 1000})
    return got


def _limit(name: str, milli: int, window: Window, periods: Periods | None, around: Around) -> Row:
    """Judged over whole periods of the limit: as the window cuts them, its length would be in the figure."""
    (work,), asked, cut = around.work(window.rates), milli / 10, 100 * window.parts[0]
    held, told = cut, f"held {cut:.2f} %"
    if periods is not None:
        held = 100 * periods.part
        told = f"held {held:.2f} % from the first stop to the last ({periods.n} periods, {periods.seconds:.2f} s), "
        told += f"{cut:.2f} % of the {window.seconds:.0f} s as they are cut"
    told += f", work {work:.2f} % of solo, {clock_text(window.mhz)}"
    data: dict[str, Any] = {"plot": "limit", "asked": asked, "held": held, "as_cut": cut, "work": work}
    data |= {"accounts": 100 * window.accounts[0], "solos": around.data}
    return Row(
        "hard limit, error by card time", f"{asked:g} %, {name}, lone, {window.seconds:.0f} s", at_most(0.3),
        abs(held - asked), "points", note_of(told, window.told_by, around.note), void=around.void,
        data=data,
    )  # fmt: skip


CASES = (
    Case("limits-bare", "the same with nothing of ours in the tenant", partial(limits, bare=True), 85, 12),
    Case("limits", "hard limit of a lone tenant, by card time", partial(limits, bare=False), 168, 12),
)
