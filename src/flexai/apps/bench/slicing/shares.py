"""Shares of busy tenants: by card time, by work, and what is lost; with and without anything of ours in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import Case, Row, at_least, at_most, note_of
from flexai.apps.bench.slicing.solo import Solos
from flexai.apps.bench.slicing.stand import clock_text, flood, graph, has_torch, name_of, stand, step, torch
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import tenants
from flexai.wire.timeline import spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.solo import Around
    from flexai.apps.bench.slicing.stand import Stand
    from flexai.apps.bench.slicing.windows import Window
    from flexai.apps.bench.tenants import Load, Tenant

SHOWN_S = 0.25
"""Of the timeline in the plot."""


@dataclass(frozen=True, slots=True)
class Group:
    """Tenants that run together; ``fills``: each of them alone keeps the card busy."""

    name: str
    loads: tuple[Load, ...]
    alike: bool = True
    fills: bool = True


_TEN = (190, 160, 140, 120, 100, 90, 80, 60, 40, 20)
_GROUPS = (
    Group("3 floods 50/30/20", tuple(flood(milli, 500) for milli in (500, 300, 200))),
    Group("2 floods 30/70", (flood(300, 1000), flood(700, 1000))),
    Group("2 floods 1/99", (flood(10, 200), flood(990, 200))),
    Group("kernels 20 us, 2 ms, 100 ms 40/30/30", (flood(400, 20), flood(300, 2000), flood(300, 100_000)), alike=False),
    Group("graph 30 + flood 70", (graph(300, 100), flood(700, 1000)), alike=False),
    Group("step-synchronous 30 + flood 70", (step(300, 500, 0), flood(700, 1000)), alike=False, fills=False),
    Group("10 floods 2..19", tuple(flood(milli, 500) for milli in _TEN)),
)


def _torch_groups() -> tuple[Group, ...]:
    def pair(one: str, milli: int, *, fills: bool = True) -> Group:
        name = f"{one} {milli // 10} + gemm {100 - milli // 10}"
        return Group(name, (torch(milli, one), torch(1000 - milli, "gemm")), alike=one == "gemm", fills=fills)

    return (
        pair("gemm", 300), Group("3 gemm 50/30/20", tuple(torch(milli, "gemm") for milli in (500, 300, 200))),
        pair("gemm-sync", 300, fills=False), pair("decode", 400), pair("gpt", 300, fills=False),
    )  # fmt: skip


def _bare(group: Group) -> Group:
    loads = tuple(replace(load, bare=True) for load in group.loads)
    return replace(group, name=f"{group.name}, no preload", loads=loads)


def shares(groups: Sequence[Group], n_quick: int, run: Run) -> Iterator[Row]:
    """Residency error by the log, normalised throughput, and its sum, group by group, on one pool."""
    seconds = 3.0 if run.quick else 10.0
    mean_errors: list[float] = []
    with stand() as on:
        for group in groups[:n_quick] if run.quick else groups:
            with tenants(on.pool, run.folder, group.loads) as running:
                solos = Solos(run, running)
                windows, around = solos.between(partial(measure, on, running, seconds))
                shown = _shown(on, running, windows)
            rows = list(_rows(run, group, around, windows, shown))
            mean_errors.append(rows[0].got)
            yield from rows
    if len(mean_errors) > 1:
        worst = f"worst group {max(mean_errors):.2f}"
        yield Row(
            "residency error, all groups",
            f"{len(mean_errors)} groups",
            at_most(0.3),
            fmean(mean_errors),
            "points",
            worst,
        )


def _shown(on: Stand, running: Sequence[Tenant], windows: Sequence[Window]) -> list[dict[str, Any]]:
    """A little of the time together, as the log has it: for the picture of who had the card."""
    middle_ns = windows[len(windows) // 2].began_ns
    end_ns = middle_ns + round(SHOWN_S * 1e9)
    names = {name_of(tenant): place for place, tenant in enumerate(running)}
    return [
        {
            "what": span.what, "tenant": names.get(span.tenant, -1), "from_ms": (span.begin_ns - middle_ns) / 1e6,
            "to_ms": (span.end_ns - middle_ns) / 1e6,
        }
        for span in spans(on.told, middle_ns, end_ns)
    ]  # fmt: skip


def _rows(
    run: Run, group: Group, around: Around, windows: Sequence[Window], shown: list[dict[str, Any]]
) -> Iterator[Row]:
    together = over(windows)
    asked = [load.share_milli / 10 for load in group.loads]
    used = sum(together.parts) or 1e-9
    held = [100 * part / used for part in together.parts]
    errors = [abs(got - want) for got, want in zip(held, asked, strict=True)]
    worst = max(
        abs(100 * part / max(sum(window.parts), 1e-9) - want)
        for window in windows
        for part, want in zip(window.parts, asked, strict=True)
    )
    work = around.work(together.rates)
    told = ", ".join(
        f"{want:g}->{got:.2f} ({done:.1f} work)" for want, got, done in zip(asked, held, work, strict=True)
    )
    note = note_of(told, together.told_by, f"together {clock_text(together.mhz)}", around.note)
    run.say(f"  {group.name}: {told}; sum {sum(work):.1f}")
    conditions = f"{group.name}, {together.seconds:.0f} s"
    data = {
        "plot": "shares", "asked": asked, "held": held, "work": work, "used": 100 * used,
        "accounts": [100 * part for part in together.accounts], "drift": 100 * around.drift,
        "spans": shown, "solos": around.data,
    }  # fmt: skip
    yield Row(
        "residency error, mean",
        conditions,
        at_most(0.3),
        fmean(errors),
        "points",
        note,
        tuple(errors),
        void=around.void,
        data=data,
    )
    yield Row("residency error, worst 1 s", conditions, at_most(1.5), worst, "points", void=around.void)
    parts = [100 * done / (sum(work) or 1e-9) for done in work]
    by_work = max(abs(got - want) for got, want in zip(parts, asked, strict=True))
    why = "" if group.fills else "not judged: one of them leaves gaps and cannot use its share"
    goal = at_most(1.0 if group.alike else 2.0) if group.fills else None
    yield Row("error by work, worst tenant", conditions, goal, by_work, "points", why, void=around.void)
    least = 99.0 if len(asked) < 10 else 98.5
    # Programs with gaps have a goal of their own, beside the same programs without control: case `gaps`.
    goal = at_least(least) if group.fills else None
    turns = "turns of 20 ms on average, 4 to 60"
    yield Row("sum of work", conditions, goal, sum(work), "%", turns, void=around.void)


def _torch(run: Run, *, bare: bool) -> Iterator[Row]:
    if not has_torch():
        yield Row(
            "shares of PyTorch tenants", "here", None, float("nan"), "", "not measured: no PyTorch, or no real card"
        )
        return
    groups = _torch_groups()
    yield from shares([_bare(group) for group in (groups[1], groups[4])] if bare else groups, 2, run)


CASES = (
    Case("shares", "busy tenants: card time, work, and their sums", partial(shares, _GROUPS, 1), 145, 15),
    Case(
        "shares-bare", "the same with nothing of ours in any tenant",
        partial(shares, [_bare(_GROUPS[0]), _bare(_GROUPS[4])], 1), 45, 14,
    ),
    Case("shares-torch", "the same with PyTorch programs", partial(_torch, bare=False), 150, 1),
    Case("shares-torch-bare", "the same with nothing of ours in them", partial(_torch, bare=True), 62, 1),
)  # fmt: skip
