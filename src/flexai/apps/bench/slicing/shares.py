"""Shares of busy tenants: by card time, by work, and what is lost."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.slicing.stand import flood, has_torch, measure, over, solo, stand, torch
from flexai.apps.bench.tenants import tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Load

MOST_DRIFT = 0.01


@dataclass(frozen=True, slots=True)
class Group:
    """Tenants that run together; ``fills``: each of them alone keeps the card busy."""

    name: str
    loads: tuple[Load, ...]
    alike: bool = True
    fills: bool = True


def _groups(run: Run) -> list[Group]:
    """From two to ten tenants; with PyTorch where it runs."""
    ten = (190, 160, 140, 120, 100, 90, 80, 60, 40, 20)
    groups = [
        Group("2 floods 30/70", (flood(300, 1000), flood(700, 1000))),
        Group("3 floods 50/30/20", (flood(500, 500), flood(300, 500), flood(200, 500))),
        Group("2 floods 1/99", (flood(10, 200), flood(990, 200))),
        Group("mixed kernels 20 us..20 ms", (flood(400, 20), flood(300, 2000), flood(300, 20_000)), alike=False),
        Group("10 floods 2..19", tuple(flood(milli, 500) for milli in ten)),
        Group("2 floods 30/70, no preload", (flood(300, 1000, bare=True), flood(700, 1000, bare=True))),
    ]
    if has_torch():
        groups += [
            Group("2 GEMM 30/70", (torch(300, "gemm"), torch(700, "gemm"))),
            Group("3 GEMM 50/30/20", tuple(torch(milli, "gemm") for milli in (500, 300, 200))),
            Group("GEMM-sync 30 + GEMM 70", (torch(300, "gemm-sync"), torch(700, "gemm")), alike=False),
            Group("graph decode 40 + GEMM 60", (torch(400, "decode"), torch(600, "gemm")), alike=False),
            Group("GPT 30 + GEMM 70", (torch(300, "gpt"), torch(700, "gemm")), alike=False, fills=False),
            Group("2 GEMM 30/70, no preload", tuple(torch(milli, "gemm", bare=True) for milli in (300, 700))),
        ]
    return groups[:2] if run.quick else groups


def shares(run: Run) -> Iterator[Row]:
    """Residency error by the log, normalised throughput, and its sum, group by group."""
    seconds = 3.0 if run.quick else 10.0
    mean_errors: list[float] = []
    for group in _groups(run):
        with stand() as on, tenants(on.pool, run.folder, group.loads) as running:
            alone = [solo(on, tenant, 2.0) for tenant in running]
            windows = measure(on, running, seconds)
            again = solo(on, running[0], 2.0)
        together = over(windows)
        asked = [load.share_milli / 10 for load in group.loads]
        used = sum(together.parts)
        held = [100 * part / used for part in together.parts]
        errors = [abs(got - want) for got, want in zip(held, asked, strict=True)]
        worst = max(
            abs(100 * part / max(sum(window.parts), 1e-9) - want)
            for window in windows
            for part, want in zip(window.parts, asked, strict=True)
        )
        work = [100 * rate / was for rate, was in zip(together.rates, alone, strict=True)]
        drift = abs(again / alone[0] - 1)
        told = ", ".join(
            f"{want:g}->{got:.2f} ({done:.1f} work)" for want, got, done in zip(asked, held, work, strict=True)
        )
        run.say(f"  {group.name}: {told}; sum {sum(work):.1f}, solo drift {100 * drift:.1f} %")
        mean_errors.append(fmean(errors))
        note = f"{told}; solo drift {100 * drift:.2f} %"
        void = drift > MOST_DRIFT
        conditions = f"{group.name}, {seconds:g} s"
        yield Row("residency error, mean", conditions, at_most(0.3), fmean(errors), "points", note, tuple(errors))
        yield Row("residency error, worst 1 s", conditions, at_most(1.5), worst, "points")
        parts = [100 * done / sum(work) for done in work]
        by_work = max(abs(got - want) for got, want in zip(parts, asked, strict=True))
        goal = None if void or not group.fills else at_most(1.0 if group.alike else 2.0)
        yield Row(
            "error by work, worst tenant", conditions, goal, by_work, "points", "void: solo drifted" if void else ""
        )
        least = 99.0 if len(asked) < 10 else 98.5
        yield Row(
            "sum of work", conditions, None if void else at_least(least if group.fills else 97.0), sum(work), "%",
            "void: solo drifted" if void else "",
        )  # fmt: skip
    yield Row("residency error, all groups", f"{len(mean_errors)} groups", at_most(0.3), fmean(mean_errors), "points")


CASES = (Case("shares", "busy tenants: card time, work, and their sums", shares),)
