"""Processes that wait for each other on the card, as the ranks of a collective do: they must keep moving."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most, note_of
from flexai.apps.bench.hardware import cards_here, is_real
from flexai.apps.bench.slicing.stand import flood, stand
from flexai.apps.bench.slicing.windows import measure, over
from flexai.apps.bench.tenants import RUN, Load, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant

_KERNEL_US = 200.0
_MOST_STALL_APART_MS = 200.0
"""A turn of the others in the longest round of two tenants on one card and three on the other, within one budget."""
_MOST_STALL_MS = 100.0
"""The longest round of two tenants (docs/explanation/slicing.md): who waits longer missed a turn of its own."""


def _rank(milli: int, meeting: Path, n_processes: int, n_devices: int = 1) -> Load:
    more = ("--pair", str(meeting))
    return Load(milli, _KERNEL_US, kind="spin-pair", more=more, n_processes=n_processes, n_devices=n_devices)


def _row(name: str, conditions: str, ranks: Sequence[Tenant], seconds: float, most_ms: float) -> Row:
    """The longest step of either rank over ``seconds`` that begin now."""
    controls = [control for tenant in ranks for control in tenant.controls]
    before = [(len(control.latencies_ms()), control.counted()[0]) for control in controls]
    time.sleep(seconds)
    steps = [control.latencies_ms()[n:] for control, (n, _) in zip(controls, before, strict=True)]
    n_each = [control.counted()[0] - n for control, (_, n) in zip(controls, before, strict=True)]
    all_ms = sorted(ms for one in steps for ms in one)
    longest = all_ms[-1] if all(steps) else float("inf")
    p99 = f"; p99 {all_ms[len(all_ms) * 99 // 100]:.1f} ms" if all_ms else ""
    note = f"steps of the ranks {n_each[0]} and {n_each[1]}{p99}"
    return Row(name, conditions, at_most(most_ms), longest, "ms", note, samples=tuple(all_ms[-1000:]))


def spin_pair(run: Run) -> Iterator[Row]:
    """Two ranks in one tenant and in two, beside a flood."""
    seconds = 2.0 if run.quick else 8.0
    at_ns = time.monotonic_ns()
    loads = [_rank(500, run.folder / f"pair-{at_ns}", 2), flood(500, 500)]
    conditions = f"two ranks of one tenant at 50 %, steps of 0.2 ms, beside a flood at 50 %, {seconds:.0f} s"
    with stand() as on, tenants(on.pool, run.folder, loads) as running:
        for tenant in running:
            tenant.order(RUN)
        time.sleep(1.0)
        yield _row("spin pair in one tenant: longest step", conditions, running[:1], seconds, _MOST_STALL_MS)
        together = over(measure(on, running, seconds))
        held = together.parts
        error = abs(100 * held[0] / (sum(held) or 1e-9) - 50)
        note = f"held {100 * held[0]:.2f} and {100 * held[1]:.2f} % of the card: a rank that spins has it"
        note = note_of(note, together.told_by)
        yield Row("spin pair in one tenant: error of its share", conditions, at_most(2.0), error, "points", note)
    meeting = run.folder / f"pair-{at_ns}-two"
    loads = [_rank(300, meeting, 1), _rank(300, meeting, 1), flood(400, 500)]
    conditions = f"a rank in each of two tenants at 30 %, beside a flood at 40 %, {seconds:.0f} s"
    with stand() as on, tenants(on.pool, run.folder, loads) as running:
        for tenant in running:
            tenant.order(RUN)
        time.sleep(1.0)
        yield _row("spin pair over two tenants: longest step", conditions, running[:2], seconds, 1000.0)


def spin_pair_apart(run: Run) -> Iterator[Row]:
    """A rank on each of two cards, beside one flood and beside two: in one job, whose turns are aligned, and in two."""
    if is_real() and "," not in cards_here()[0]:
        name, what = "spin pair over two cards: longest step", "a rank on each of two cards"
        yield Row(name, what, None, math.nan, "ms", "not measured: this machine has one card")
        return
    seconds = 2.0 if run.quick else 8.0
    per_s = []
    for n_jobs, most_ms in ((1, _MOST_STALL_APART_MS), (2, math.inf)):
        meeting = run.folder / f"pair-{time.monotonic_ns()}"
        ranks = [_rank(600, meeting, 2, 2)] if n_jobs == 1 else [_rank(600, meeting, 1), _rank(600, meeting, 1)]
        loads = [*ranks, flood(400, 500), flood(200, 500), flood(200, 500)]
        jobs = "one job" if n_jobs == 1 else "two jobs, as without alignment"
        conditions = (
            f"a rank at 60 % on each of two cards in {jobs}, beside a flood at 40 % and two at 20 %, {seconds:.0f} s"
        )
        with stand(n_cards=2) as on, tenants(on.pool, run.folder, loads) as running:
            for tenant in running:
                tenant.order(RUN)
            time.sleep(2.0)
            before = sum(tenant.counted()[0] for tenant in running[:n_jobs])
            row = _row(
                f"spin pair over two cards in {jobs}: longest step", conditions, running[:n_jobs], seconds, most_ms
            )
            per_s.append((sum(tenant.counted()[0] for tenant in running[:n_jobs]) - before) / 2 / seconds)
        yield row
    note = f"{per_s[0]:.0f} steps a second in one job, {per_s[1]:.0f} in two"
    name, times = "spin pair over two cards: steps in one job over those in two", per_s[0] / max(per_s[1], 1e-9)
    yield Row(name, f"as above, {seconds:.0f} s each", at_least(1.5), times, "times", note)


CASES = (
    Case("spin-pair", "two processes that wait for each other on the card", spin_pair, 36, 18),
    Case("spin-pair-apart", "two that wait for each other on two cards", spin_pair_apart, 30, 22),
)
