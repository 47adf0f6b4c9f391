"""``flexai demo``: the same morning twice, shown live, and the difference."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from flexai.adapters.command_line import run_command
from flexai.adapters.own_pool import NotStarted, end_in_order, own_pool
from flexai.adapters.pool_client import PoolClient, PoolRefused, PoolUnreachable
from flexai.apps.demo.morning import PUBLISHED, SOURCE, draw_morning
from flexai.apps.demo.outcome import DELIVERED_MEANS, OWED_MEANS, SHARE_ERROR_MEANS, UTILISATION_MEANS
from flexai.apps.demo.play import make_queues, play
from flexai.apps.demo.tables import comparison, live_view, tenants, told

if TYPE_CHECKING:
    from flexai.apps.demo.morning import MorningJob
    from flexai.apps.demo.outcome import PhaseOutcome

FAILED, BAD_INPUT = 1, 2


def demo(
    json_file: Annotated[str, typer.Option("--json", help="Write all figures to this file.", metavar="FILE")] = "",
    plot: Annotated[str, typer.Option(help="Write the picture to this file.", metavar="FILE")] = "demo.png",
    n_jobs: Annotated[int, typer.Option("--jobs", help="How many jobs.", min=3, max=200)] = 24,
    mix: Annotated[str, typer.Option(help="Published list of shares: " + " or ".join(PUBLISHED) + ".")] = "gpushare60",
    simulate: Annotated[str, typer.Option(help="Simulate these cards, as h200:2.", metavar="CARDS")] = "",
    scale: Annotated[float, typer.Option(help="Make all jobs so many times as long.", min=0.1, max=100.0)] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of lengths, kernels and the order.")] = 7,
) -> int:
    """A mixed morning of jobs on a pool of this machine: first whole cards, then slices."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    if mix not in PUBLISHED:
        print(f"flexai demo: --mix: {mix!r} is unknown. Use one of: {', '.join(PUBLISHED)}", file=sys.stderr)
        return BAD_INPUT
    began_s = time.monotonic()
    jobs = draw_morning(random.Random(seed), n_jobs, mix, scale)  # noqa: S311  a demonstration, not a secret
    bound = sum(job.is_card_bound for job in jobs)
    try:
        with own_pool(simulate) as stand:
            if any(line.startswith("NVIDIA cards") for line in stand.said):
                jobs = _with_pytorch(jobs)
            for line in stand.said:
                if " ready after " not in line and not line.startswith("ready: "):
                    console.print(line, markup=False)
            console.print(f"Watch it from another terminal: flexai top --run-dir {stand.run_dir}", markup=False)
            pool = PoolClient(stand.run_dir)
            cards = pool.pages("/v1/devices")
            make_queues(pool, len(cards))
            console.print(
                f"{n_jobs} jobs in three queues on {len(cards)} cards. Shares: {SOURCE}, list '{mix}'. {bound} of them "
                f"are bound by the card itself and ask for a whole one (slicing does not help those); the others wait "
                f"for input and ask for the fraction they can use.",
                markup=False,
            )
            by_pytorch = sum(job.by_pytorch for job in jobs)
            if by_pytorch:
                console.print(f"{by_pytorch} are PyTorch programs: a decoder with random weights.", markup=False)
            phases = []
            for name, sliced in (("whole cards", False), ("slices", True)):
                phases.append(_live(console, pool, name, jobs, sliced=sliced))
    except (NotStarted, PoolUnreachable, PoolRefused) as error:
        print(f"flexai demo: {error}", file=sys.stderr)
        return FAILED
    took_s = time.monotonic() - began_s
    document = _document(phases, mix, seed, took_s, [card["source"] for card in cards])
    _report(console, phases, took_s)
    if json_file:
        Path(json_file).write_text(json.dumps(document, indent=2) + "\n")
    if plot:
        from flexai.apps.demo.picture import draw  # noqa: PLC0415  matplotlib takes half a second

        draw(phases, Path(plot), f"{n_jobs} jobs, {len(cards)} cards ({cards[0]['source']}), shares: openb {mix}")
        console.print(f"wrote {plot}")
    return FAILED if any(job.failed for phase in phases for job in phase.jobs) else 0


def _live(console: Console, pool: PoolClient, name: str, jobs: list[MorningJob], *, sliced: bool) -> PhaseOutcome:
    """One phase, shown while it goes on, and in one line when it is over."""
    began_s = time.monotonic()
    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(top: dict[str, Any]) -> None:
            live.update(live_view(name, time.monotonic() - began_s, top, console.width), refresh=True)

        phase = play(pool, name, jobs, sliced, show)
    console.print(f"with {name}: all {len(jobs)} jobs done after {phase.makespan_s:.1f} s")
    return phase


def _with_pytorch(jobs: list[MorningJob]) -> list[MorningJob]:
    """On real cards every sixth job is a PyTorch program, where PyTorch is installed."""
    if importlib.util.find_spec("torch") is None:
        return jobs
    return [
        replace(job, name=f"{job.name}-torch", by_pytorch=True) if number % 6 == 0 else job
        for number, job in enumerate(jobs)
    ]


def _document(phases: list[PhaseOutcome], mix: str, seed: int, took_s: float, sources: list[str]) -> dict[str, Any]:
    whole, sliced = phases
    return {
        "whole": whole.as_json(),
        "sliced": sliced.as_json(),
        "tenants": [job.as_json() for job in sliced.jobs],
        "max_share_error_points": round(max(job.share_error_points for job in sliced.jobs), 2),
        "over_cap_bytes": max(job.over_cap_bytes for phase in phases for job in phase.jobs),
        "n_cards": whole.n_cards,
        "cards": sorted(set(sources)),
        "distribution": f"{SOURCE}, list {mix}",
        "seed": seed,
        "took_s": round(took_s, 1),
        "utilisation_means": UTILISATION_MEANS,
        "owed_means": OWED_MEANS,
        "got_means": DELIVERED_MEANS,
        "share_error_means": SHARE_ERROR_MEANS,
    }


def _report(console: Console, phases: list[PhaseOutcome], took_s: float) -> None:
    for phase in phases:
        console.print(told(phase))
    console.print(tenants(phases[1]))
    console.print(comparison(phases))
    failed = [f"{phase.name}: {job.name} ({job.failed})" for phase in phases for job in phase.jobs if job.failed]
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}[/red]")
    console.print(f"\nthe demo took {took_s:.0f} s")


def main() -> int:
    """Run the demo and return the exit code."""
    end_in_order()
    return run_command(demo, "flexai demo")
