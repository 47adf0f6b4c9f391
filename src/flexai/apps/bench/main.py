"""``flexai bench NAME``: measure, show a table, write JSON, draw plots."""

from __future__ import annotations

import fnmatch
import importlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from flexai.adapters.command_line import run_command
from flexai.adapters.own_pool import end_in_order
from flexai.apps.bench.frame import HEADER, Run, header, not_begun, note_of, part_of, run_case
from flexai.apps.bench.joined import Unjoinable, join
from flexai.apps.bench.kept import keep as keep_result

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flexai.apps.bench.frame import Case, Row

SUITES = {
    "pool": "flexai.apps.bench.pool",
    "scheduling": "flexai.apps.bench.scheduling",
    "slicing": "flexai.apps.bench.slicing",
}
GOAL_MISSED, BAD_INPUT = 6, 2
TERMINAL = "-"


def bench(
    name: Annotated[str, typer.Argument(help="Benchmark: " + ", ".join(SUITES) + ".")],
    quick: Annotated[bool, typer.Option("--quick", help="Shorter and rougher.")] = False,
    case: Annotated[
        str, typer.Option(help="Only cases whose name matches, as 'share*,lend'.", metavar="PATTERN")
    ] = "*",
    json_file: Annotated[
        str, typer.Option("--json", help="Write header and rows to this file; - prints them.", metavar="FILE")
    ] = "",
    plots: Annotated[str, typer.Option(help="Draw plots into this folder.", metavar="FOLDER")] = "",
    keep: Annotated[
        str,
        typer.Option(help="Write NAME.json, NAME.md and the plots there, as docs/benchmarks.", metavar="FOLDER"),
    ] = "",
    traces: Annotated[
        str,
        typer.Option(help="Folder with traces, for benchmarks that read some. [env: FLEXAI_TRACES]", metavar="FOLDER"),
    ] = "",
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 1,
    part: Annotated[
        str, typer.Option(help="Only this one of several parts of about equal length.", metavar="NUMBER/PARTS")
    ] = "1/1",
    within_s: Annotated[
        float, typer.Option("--within", help="Begin no case that would not end within so many seconds; 0: no bound.")
    ] = 0.0,
    minutes: Annotated[
        float | None, typer.Option(help="Length of cases that may take as long as one likes (slicing: memory).")
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Only list the cases, and how long they take.")] = False,
    parts: Annotated[
        list[str] | None,
        typer.Option("--join", help="Measure nothing: join what `--keep` wrote there for each part.", metavar="FOLDER"),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 6 when a goal is missed.")] = False,
) -> int:
    """Measure the figures that FlexAI promises, on this machine."""
    if name not in SUITES:
        print(f"flexai bench: {name!r} is no benchmark. Choose one of: {', '.join(SUITES)}", file=sys.stderr)
        return BAD_INPUT
    suite = importlib.import_module(SUITES[name])
    cases: list[Case] = [
        one for one in suite.CASES if any(fnmatch.fnmatch(one.name, pattern.strip()) for pattern in case.split(","))
    ]
    if not cases:
        known = ", ".join(one.name for one in suite.CASES)
        print(f"flexai bench: --case {case!r} matches no case. Cases: {known}", file=sys.stderr)
        return BAD_INPUT
    numbers = re.fullmatch(r"([1-9]\d?)/([1-9]\d?)", part)
    if numbers is None or int(numbers[1]) > int(numbers[2]):
        print(f"flexai bench: --part {part!r} is no part. Say which of how many, as 2/3", file=sys.stderr)
        return BAD_INPUT
    cases = part_of(cases, int(numbers[1]), int(numbers[2]), quick)
    if list_cases:
        _list(cases, quick, minutes)
        return 0
    if traces and not (Path(traces).is_dir() and getattr(suite, "READS_TRACES", False)):
        problem = f"is not read by {name!r}: leave it out" if Path(traces).is_dir() else "is no folder: name one"
        print(f"flexai bench: --traces {traces!r} {problem}", file=sys.stderr)
        return BAD_INPUT
    to_terminal = json_file == TERMINAL
    say = partial(print, file=sys.stderr if to_terminal else sys.stdout, flush=True)
    pictures = Path(keep or plots) if keep or plots else None
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
    if parts:
        try:
            document, rows, captions = join(name, list(map(Path, parts)), suite.CASES, pictures)
        except Unjoinable as error:
            print(f"flexai bench: --join: {error}", file=sys.stderr)
            return BAD_INPUT
        _write(document, json_file)
        _tell(suite, document, rows, captions, pictures, as_json=to_terminal, keep=bool(keep), say=say)
        return GOAL_MISSED if strict and any(row.met is False for row in rows) else 0
    cards, driver = suite.hardware()
    head = header(name, cards, driver, seed)
    scratch = Path(tempfile.mkdtemp(prefix="fxb"))
    try:
        named = traces or os.environ.get("FLEXAI_TRACES", "")
        run = Run(quick, seed, say, scratch, Path(named) if named else None, pictures, minutes)
        rows = []
        base = {**head, "quick": quick, "case": case, "part": part}
        document = {**base, "inputs": {}, "took_s": {}, "rows": []}
        for took_s in _measure(cases, run, within_s, rows):
            # After each case: what was measured is not lost with what comes after it.
            inputs = dict(sorted(run.inputs.items()))
            document = {**base, "inputs": inputs, "took_s": took_s, "rows": [row.as_json() for row in rows]}
            _write(document, json_file)
            if keep and pictures is not None:
                keep_result(document, rows, run.captions, pictures)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _tell(suite, document, rows, run.captions, pictures, as_json=to_terminal, keep=bool(keep), say=say)
    return GOAL_MISSED if strict and any(row.met is False for row in rows) else 0


def _write(document: Mapping[str, Any], json_file: str) -> None:
    if json_file not in {"", TERMINAL}:
        Path(json_file).write_text(json.dumps(document, indent=2) + "\n")


def _tell(
    suite: Any, document: Mapping[str, Any], rows: Sequence[Row], captions: Mapping[str, str], pictures: Path | None,
    *, as_json: bool, keep: bool, say: Callable[[str], None],
) -> None:  # fmt: skip
    """What came of it: JSON or a table, the pictures (``captions`` has those drawn already), and the page to keep."""
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        _print({key: document[key] for key in HEADER}, rows)
    if pictures is None:
        return
    shown = {**_draw(suite, document["benchmark"], rows, pictures), **captions}
    for path in keep_result(document, rows, shown, pictures) if keep else []:
        say(f"wrote {path}")


def _draw(suite: Any, name: str, rows: Sequence[Row], folder: Path) -> dict[str, str]:
    from flexai.apps.bench.plots import draw  # noqa: PLC0415  matplotlib only when asked for

    own = getattr(suite, "draw", None)
    return {**draw(name, rows, folder, samples=own is None), **(own(rows, folder) if own else {})}


def _list(cases: Sequence[Case], quick: bool, minutes: float | None) -> None:
    for one in cases:
        takes_s = one.takes_s(quick, minutes)
        takes = f"{takes_s:5.0f} s  " if takes_s else ""
        print(f"{one.name:20} {takes}{one.about}")
    total_s = sum(one.takes_s(quick, minutes) for one in cases)
    if total_s:
        print(f"{'':20} {total_s:5.0f} s  in all, roughly", file=sys.stderr, flush=True)


def _measure(cases: Sequence[Case], run: Run, within_s: float, rows: list[Row]) -> Iterator[dict[str, float]]:
    """Adds to ``rows``; after each case, how many seconds each took so far."""
    began = time.monotonic()
    took_s: dict[str, float] = {}
    for case in cases:
        case_began = time.monotonic()
        left_s = within_s - (case_began - began) - case.takes_s(run.quick, run.minutes) if within_s else math.inf
        run.spare.left_s = left_s
        if left_s < 0:
            rows.append(not_begun(case, within_s))
        else:
            rows += run_case(case, run)
        took_s[case.name] = round(time.monotonic() - case_began, 1)
        yield took_s


def _print(head: dict[str, Any], rows: Sequence[Row]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for key, value in head.items():
        console.print(f"{key:10} {value}", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    stretches = any(row.stretch for row in rows)
    for column in ("NAME", "CONDITIONS", "GOAL", *(["STRETCH"] if stretches else []), "GOT", "UNIT", "MET"):
        table.add_column(column, justify="right" if column in {"GOAL", "STRETCH", "GOT"} else "left")
    colours = {"yes": "green", "stretch": "green", "no": "red", "void": "yellow", "": "default"}
    for row in rows:
        mark = f"[{colours[row.verdict]}]{row.verdict}[/]" if row.verdict else ""
        got = "-" if row.got != row.got else f"{row.got:.4g}"
        goals = [str(goal or "") for goal in ((row.goal, row.stretch) if stretches else (row.goal,))]
        table.add_row(row.name, row.conditions, *goals, got, row.unit, mark)
    console.print(table)
    for row in rows:
        if row.note or row.void:
            words = note_of(row.void and f"void: {row.void}", row.note)
            console.print(f"{row.name}, {row.conditions}: {words}", markup=False)


def main() -> int:
    """Run one benchmark and return the exit code."""
    end_in_order()
    return run_command(bench, "flexai bench")
