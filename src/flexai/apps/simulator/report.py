"""Tables for people and the run card that makes a result repeatable."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from flexai.simulation.deciders import ROUND_UP
from flexai.simulation.workload import NOMINAL_MEMORY_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.adapters.traces import LoadedTrace
    from flexai.model import Node
    from flexai.simulation.experiment import PackedRun, TimedRun
    from flexai.simulation.metrics import Waits
    from flexai.simulation.serving import Hosting
    from flexai.simulation.workload import Work


def run_card(traces: Sequence[LoadedTrace], seeds: Sequence[int], command: str, skipped: int) -> dict[str, Any]:
    """What it takes to get the same numbers again."""
    return {
        "simulated": True,
        "traces": [
            {"file": Path(t.path).name, "format": t.kind, "sha256": t.sha256, "jobs": len(t.works)} for t in traces
        ],
        "joined": len(traces) > 1,
        "seeds": list(seeds),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
        "command": command,
        "skipped_rows": skipped,
    }


def assumptions(works: Sequence[Work], nodes: Sequence[Node], policies: Sequence[str]) -> list[str]:
    """What the trace does not say and the run took for granted, in words."""
    said = []
    if any(work.n_devices and work.compute_milli < 1000 for work in works):
        said.append(f"slices ask for {NOMINAL_MEMORY_BYTES >> 20} MiB of card memory, since the trace gives none")
        rounded = [name for name in policies if name in ROUND_UP]
        if rounded:
            said.append(f"{', '.join(rounded)}: a whole card for every slice")
    wide = sum(work.n_devices > max((len(node.devices) for node in nodes), default=0) for work in works)
    if wide:
        said.append(f"{wide} jobs wider than a node run as gangs over several")
    return said


def timed_table(runs: Sequence[TimedRun]) -> Table:
    """One row per policy: waits in hours."""
    table = _table("waits in hours (simulated)")
    heads = ("policy", "cards", "jobs", "mean", "p50", "p99", ">=16", "use", "evicted", "left")
    for head in heads:
        table.add_column(head, justify="left" if head == "policy" else "right", no_wrap=True, min_width=4)
    for run in runs:
        s = run.summary
        table.add_row(
            run.policy, str(run.n_cards), str(s.waits.n_jobs), f"{s.waits.mean_h:.2f}", f"{s.waits.p50_h:.2f}",
            f"{s.waits.p99_h:.1f}", _mean(s.big), f"{100 * s.use:.0f} %", str(s.n_evictions), str(s.n_unfinished),
        )  # fmt: skip
    return table


def sizes_table(groups: dict[str, dict[str, Waits]]) -> Table:
    """Mean wait by size of job, one column per policy."""
    table = _table("mean wait in hours by cards of the job")
    table.add_column("cards")
    for policy in groups:
        table.add_column(policy, justify="right")
    sizes = sorted({size for waits in groups.values() for size in waits})
    for size in sizes:
        cells = (_mean(waits[size]) if size in waits else "" for waits in groups.values())
        table.add_row(size.split(" ", 1)[1], *cells)
    return table


def packed_table(runs: Sequence[PackedRun]) -> Table:
    """Allocation in per cent at each arrival point, mean over the seeds."""
    table = _table("allocation in per cent of all card compute (simulated; not utilisation)")
    table.add_column("policy")
    points = next(iter(runs[0].by_seed.values())).curve
    for point in points:
        table.add_column(f"{100 * point:.0f} % arrived", justify="right")
    for run in runs:
        table.add_row(run.policy, *(f"{run.mean(point):.2f}" for point in points))
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def serving_table(sizes: dict[str, list[Hosting]]) -> Table:
    """Cards and utilisation of serving pods hosted in each way, per size of card."""
    table = _table("utilisation: duty of the pods over the cards they need (simulated from recorded duty)")
    for head in ("card memory", "way"):
        table.add_column(head)
    for head in ("cards", "utilisation", "x whole", "short", "with filler"):
        table.add_column(head, justify="right")
    for size, ways in sizes.items():
        for index, got in enumerate(ways):
            table.add_row(
                size if index == 0 else "", got.way, str(got.n_cards), f"{100 * got.utilisation:.1f} %",
                f"{got.utilisation / ways[0].utilisation:.2f}", f"{100 * got.short:.2f} %",
                f"{100 * got.filled:.1f} %",
            )  # fmt: skip
    return table


SERVING_NOTE = (
    "short: card-samples in which more was wanted than the card has. with filler: waiting best-effort work of 16 GiB "
    "takes what is idle where its memory fits. Huawei announced +30 % mean utilisation for Flex:ai without naming the "
    "workload; here the gain is x whole, and the size of the card's memory makes most of the difference."
)


def _mean(waits: Waits) -> str:
    return f"{waits.mean_h:.2f}" if waits.n_jobs else "-"


def _commit() -> str:
    try:
        where = Path(__file__).parent
        done = subprocess.run(
            ["git", "-C", str(where), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
