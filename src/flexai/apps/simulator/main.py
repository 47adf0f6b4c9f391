"""``flexai simulate``: what would happen on that cluster, with that trace, under that policy?"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from flexai.adapters.command_line import run_command
from flexai.adapters.traces import (
    between,
    draws,
    is_serving,
    load_cluster,
    load_serving,
    load_trace,
    shuffled_arrivals,
)
from flexai.apps.simulator import report
from flexai.apps.simulator.questions import parse_goal, smallest
from flexai.simulation.deciders import MOVING, NEED_TIMES, PARKING, POLICIES, PRODUCT
from flexai.simulation.experiment import PackedRun, TimedRun, run_by_amount, run_in_time
from flexai.simulation.metrics import by_group, size_class
from flexai.simulation.serving import question
from flexai.simulation.workload import add_cards, capacity_milli, job_of, one_queue, over_nodes, whole_cards
from flexai.wire.errors import BadInput
from flexai.wire.trace import BadRows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flexai.adapters.traces import LoadedTrace
    from flexai.model import Node
    from flexai.simulation.workload import Work

EXIT_BAD_INPUT = 2
MOST_ARRIVAL = 1000.0
CARD_SIZES_GIB = (48, 80, 96, 141)
FILLER_BYTES = 16 * 2.0**30


def simulate(
    traces: Annotated[
        list[str],
        typer.Argument(
            help="Trace files: openb, Philly, GenAI serving, sacct, what `flexai record` wrote of a pool, or our own "
            "CSV or YAML (plain or .gz)."
        ),
    ],
    cluster: Annotated[str, typer.Option(help="Nodes, as 72x8:H200 or an openb node list.")] = "8x8",
    policy: Annotated[
        str,
        typer.Option(
            help=f"{PRODUCT} (the product's), {PARKING} (the same; who gives way is parked if that costs it less), "
            f"{MOVING} (and may come back to another card of its node), "
            f"or a baseline: {', '.join(POLICIES[3:])}."
        ),
    ] = "hi",
    compare: Annotated[str, typer.Option(help="Several policies side by side, joined by commas.")] = "",
    seed: Annotated[list[int] | None, typer.Option(help="Seed of the shuffle (packing); may be given again.")] = None,
    arrival: Annotated[
        float, typer.Option(help="Density of arrivals; for packing: compute asked over capacity.")
    ] = 0.0,
    whole: Annotated[bool, typer.Option("--whole", help="Round every share up to whole cards.")] = False,
    merge: Annotated[
        bool, typer.Option("--one-queue", help="Put all jobs in one queue: one pool, nothing owed.")
    ] = False,
    start: Annotated[str, typer.Option("--from", help="First submission time to take, as 2017-10-02.")] = "",
    end: Annotated[str, typer.Option("--to", help="Submission time to stop before.")] = "",
    more_cards: Annotated[int, typer.Option("--add-cards", help="Run again with so many cards more.")] = 0,
    goal: Annotated[str, typer.Option("--smallest-for", help='Smallest cluster for "mean wait < 1h".')] = "",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count rows that do not parse instead of stopping.")
    ] = False,
    json_file: Annotated[str, typer.Option("--json", help="Write everything to this file (- for the terminal).")] = "",
    plot_folder: Annotated[str, typer.Option("--plots", help="Write pictures to this folder.")] = "",
) -> None:
    """Play a trace through the production scheduler in virtual time."""
    try:
        _simulate(
            _Question(
                traces, load_cluster(cluster), [name.strip() for name in (compare or policy).split(",")], seed or [42],
                arrival, whole, merge, (_day(start, 0), _day(end, 2**62)), more_cards, goal, skip_bad, json_file,
                plot_folder,
            )
        )  # fmt: skip
    except BadInput as error:
        print(f"flexai simulate: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error


@dataclass(frozen=True, slots=True)
class _Question:
    """The options, read."""

    files: Sequence[str]
    nodes: tuple[Node, ...]
    policies: Sequence[str]
    seeds: Sequence[int]
    arrival: float
    whole: bool
    merge: bool
    window_ms: tuple[int, int]
    more_cards: int
    goal: str
    skip_bad: bool
    json_file: str
    plot_folder: str


def _simulate(ask: _Question) -> None:
    for name in ask.policies:
        if name not in POLICIES:
            raise BadInput("--policy", name, "is unknown", f"Choose one of {', '.join(POLICIES)}")
    if not 0.0 <= ask.arrival <= MOST_ARRIVAL:
        raise BadInput("--arrival", ask.arrival, f"is not within 0 and {MOST_ARRIVAL:g}", "Give for example 1.3")
    if ask.more_cards < 0:
        raise BadInput("--add-cards", ask.more_cards, "is below zero", "Give how many cards to add")
    bad = BadRows(skip=ask.skip_bad)
    if is_serving(ask.files[0]):
        _serving(ask, bad)
        return
    loaded = [load_trace(file, bad) for file in ask.files]
    timed = all(trace.has_times for trace in loaded)
    if ask.goal and not timed:
        raise BadInput(
            "--smallest-for", ask.goal, "needs a trace with times", "Give one with submissions and run times"
        )
    lost = [name for name in ask.policies if name in NEED_TIMES and not timed]
    if lost:
        remedy = f"Choose one of {', '.join(name for name in POLICIES if name not in NEED_TIMES)}"
        raise BadInput("--policy", lost[0], "orders a queue, and this trace has no times to make one", remedy)
    works = _works(ask, loaded, timed=timed)
    quiet = ask.json_file == "-"
    out = Console(stderr=quiet)
    runs: list[TimedRun | PackedRun] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for name in ask.policies:
            task = progress.add_task(f"{name}: {len(works)} jobs", total=1.0)
            ask_one = _ask_in_time if timed else _ask_by_amount
            runs.extend(ask_one(ask, name, works, partial(_tell, progress, task)))
            progress.remove_task(task)
    _show(out, [run for run in runs if isinstance(run, TimedRun)], [run for run in runs if isinstance(run, PackedRun)])
    card = report.run_card(loaded, ask.seeds, " ".join(["flexai simulate", *sys.argv[1:]]), bad.n)
    card["assumptions"] = report.assumptions(works, ask.nodes, ask.policies)
    _say(out, card, bad)
    if ask.plot_folder:
        _plot(out, runs, Path(ask.plot_folder))
    _write(ask, {"run_card": card, "runs": [run.plain() for run in runs]})


def _tell(progress: Progress, task: TaskID, part: float) -> None:
    progress.update(task, completed=part)


def _serving(ask: _Question, bad: BadRows) -> None:
    pods, loaded = load_serving(ask.files, bad)
    sizes = question(pods, {f"{gib} GiB": gib * 2.0**30 for gib in CARD_SIZES_GIB}, FILLER_BYTES)
    out = Console(stderr=ask.json_file == "-")
    out.print(report.serving_table(sizes))
    out.print(report.SERVING_NOTE)
    card = report.run_card(loaded, (), " ".join(["flexai simulate", *sys.argv[1:]]), bad.n)
    _say(out, card | {"joined": False}, bad)
    plain = {size: [asdict(got) for got in ways] for size, ways in sizes.items()}
    _write(ask, {"run_card": card, "pods": len(pods.names), "serving": plain})


def _write(ask: _Question, result: dict[str, Any]) -> None:
    if ask.json_file:
        text = json.dumps(_finite(result), indent=2)
        if ask.json_file == "-":
            print(text)
        else:
            Path(ask.json_file).write_text(text + "\n")


def _works(ask: _Question, loaded: Sequence[LoadedTrace], *, timed: bool) -> list[Work]:
    works: list[Work] = [work for trace in loaded for work in trace.works]
    if timed:
        works = sorted(between(works, *ask.window_ms), key=lambda work: work.submit_ms)
        if not works:
            raise BadInput("--from/--to", ask.window_ms, "leaves no job", "Widen the window")
    works = whole_cards(works) if ask.whole else works
    return one_queue(works) if ask.merge else works


def _ask_in_time(ask: _Question, name: str, works: Sequence[Work], watch: Callable[[float], None]) -> list[TimedRun]:
    def play(on: Sequence[Node]) -> TimedRun:
        return run_in_time(name, on, over_nodes(works, on), ask.arrival or 1.0, draws(ask.seeds[0]), watch)

    if not ask.goal:
        return [play(on) for on in _clusters(ask)]
    found = smallest(ask.nodes, parse_goal(ask.goal), play)
    if not found:
        raise BadInput("--smallest-for", ask.goal, f"is not reached by {name}", "Relax the goal")
    return found


def _ask_by_amount(ask: _Question, name: str, works: Sequence[Work], watch: Callable[[float], None]) -> list[PackedRun]:
    arrival = ask.arrival or 1.3
    runs = []
    for on in _clusters(ask):
        drawn = {seed: shuffled_arrivals(works, capacity_milli(on), arrival, seed) for seed in ask.seeds}
        listed = [job_of(work, seq, 0) for seq, work in enumerate(works)]
        runs.append(run_by_amount(name, on, drawn, arrival, draws, listed, watch))
    return runs


def _clusters(ask: _Question) -> list[tuple[Node, ...]]:
    return [ask.nodes, add_cards(ask.nodes, ask.more_cards)] if ask.more_cards else [ask.nodes]


def _show(out: Console, timed: Sequence[TimedRun], packed: Sequence[PackedRun]) -> None:
    if timed:
        out.print(report.timed_table(timed))
        out.print(
            report.sizes_table({f"{run.policy} {run.n_cards}": by_group(run.outcome, size_class) for run in timed})
        )
    if packed:
        out.print(report.packed_table(packed))


def _say(out: Console, card: dict[str, Any], bad: BadRows) -> None:
    for trace in card["traces"]:
        jobs = f", {trace['jobs']} jobs" if trace["jobs"] else ""
        out.print(f"trace {trace['file']} ({trace['format']}{jobs}) sha256 {trace['sha256'][:16]}", soft_wrap=True)
    if card["joined"]:
        out.print("joined from several traces: synthetic; the answer depends on the joining", soft_wrap=True)
    if bad.n:
        out.print(f"{bad.n} rows skipped; the first: {bad.first[0]}", soft_wrap=True)
    for line in card.get("assumptions", ()):
        out.print(f"assumed: {line}", soft_wrap=True)
    out.print(f"commit {card['commit']}, {card['machine']}, seeds {card['seeds']}", soft_wrap=True)


def _plot(out: Console, runs: Sequence[TimedRun | PackedRun], folder: Path) -> None:
    from flexai.adapters.pictures import plot_packed, plot_timed  # noqa: PLC0415 -- a second that tables do not need

    timed = [run for run in runs if isinstance(run, TimedRun)]
    packed = [run for run in runs if isinstance(run, PackedRun)]
    paths = plot_timed(timed, folder) if timed else [plot_packed(packed, folder / "allocation.png")]
    for path in paths:
        out.print(f"wrote {path}")


def _finite(value: Any) -> Any:
    """JSON has no NaN: a mean over nothing is null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _day(text: str, default: int) -> int:
    if not text:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput("--from/--to", text, "is no date", "Write 2017-10-02 or 2017-10-02T08:00") from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def main() -> int:
    """Run as ``python -m flexai.apps.simulator``; returns the exit code."""
    return run_command(simulate, "flexai simulate")
