"""``flexai bench NAME``: measure, show a table, write JSON, draw plots."""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
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

from flexai.apps.bench.frame import Run, header, run_case
from flexai.apps.bench.kept import keep as keep_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.apps.bench.frame import Case, Row

SUITES = {
    "pool": "flexai.apps.bench.pool",
    "scheduling": "flexai.apps.bench.scheduling",
    "slicing": "flexai.apps.bench.slicing",
}
GOAL_MISSED, BAD_INPUT = 6, 2


def bench(
    name: Annotated[str, typer.Argument(help="Benchmark: " + ", ".join(SUITES) + ".")],
    quick: Annotated[bool, typer.Option("--quick", help="Shorter and rougher.")] = False,
    case: Annotated[str, typer.Option(help="Only cases whose name matches, as 'share*'.", metavar="PATTERN")] = "*",
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
    list_cases: Annotated[bool, typer.Option("--list", help="Only list the cases.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 6 when a goal is missed.")] = False,
) -> int:
    """Measure the figures that FlexAI promises, on this machine."""
    if name not in SUITES:
        print(f"flexai bench: {name!r} is no benchmark. Choose one of: {', '.join(SUITES)}", file=sys.stderr)
        return BAD_INPUT
    suite = importlib.import_module(SUITES[name])
    cases: list[Case] = [one for one in suite.CASES if fnmatch.fnmatch(one.name, case)]
    if not cases:
        known = ", ".join(one.name for one in suite.CASES)
        print(f"flexai bench: --case {case!r} matches no case. Cases: {known}", file=sys.stderr)
        return BAD_INPUT
    if list_cases:
        for one in cases:
            print(f"{one.name:20} {one.about}")
        return 0
    if traces and not (Path(traces).is_dir() and getattr(suite, "READS_TRACES", False)):
        problem = f"is not read by {name!r}: leave it out" if Path(traces).is_dir() else "is no folder: name one"
        print(f"flexai bench: --traces {traces!r} {problem}", file=sys.stderr)
        return BAD_INPUT
    to_terminal = json_file == "-"
    cards, driver = suite.hardware()
    head = header(name, cards, driver, seed)
    scratch = Path(tempfile.mkdtemp(prefix="fxb"))
    try:
        pictures = Path(keep or plots) if keep or plots else None
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
        named = traces or os.environ.get("FLEXAI_TRACES", "")
        say = partial(print, file=sys.stderr if to_terminal else sys.stdout, flush=True)
        run = Run(quick, seed, say, scratch, Path(named) if named else None, pictures)
        rows, took_s = _measure(cases, run)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = {
        **head, "quick": quick, "case": case, "inputs": dict(sorted(run.inputs.items())), "took_s": took_s,
        "rows": [row.as_json() for row in rows],
    }  # fmt: skip
    if to_terminal:
        print(json.dumps(document, indent=2))
    else:
        _print(head, rows)
        if json_file:
            Path(json_file).write_text(json.dumps(document, indent=2) + "\n")
    if pictures is not None:
        from flexai.apps.bench.plots import draw  # noqa: PLC0415  matplotlib only when asked for

        shown = {**draw(name, rows, pictures), **run.captions}
        for path in keep_result(document, rows, shown, pictures) if keep else []:
            say(f"wrote {path}")
    return GOAL_MISSED if strict and any(row.met is False for row in rows) else 0


def _measure(cases: Sequence[Case], run: Run) -> tuple[list[Row], dict[str, float]]:
    """The rows of all cases, and how many seconds each case took."""
    rows: list[Row] = []
    took_s: dict[str, float] = {}
    for case in cases:
        began = time.monotonic()
        rows += run_case(case, run)
        took_s[case.name] = round(time.monotonic() - began, 1)
    return rows, took_s


def _print(head: dict[str, Any], rows: Sequence[Row]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    for key, value in head.items():
        console.print(f"{key:10} {value}", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("NAME", "CONDITIONS", "GOAL", "STRETCH", "GOT", "UNIT", "MET"):
        table.add_column(column, justify="right" if column in {"GOAL", "STRETCH", "GOT"} else "left")
    colours = {"yes": "green", "stretch": "green", "no": "red", "": "default"}
    for row in rows:
        mark = f"[{colours[row.verdict]}]{row.verdict}[/]" if row.verdict else ""
        got = "-" if row.got != row.got else f"{row.got:.4g}"
        table.add_row(row.name, row.conditions, str(row.goal or ""), str(row.stretch or ""), got, row.unit, mark)
    console.print(table)
    for row in rows:
        if row.note:
            console.print(f"{row.name}, {row.conditions}: {row.note}", markup=False)


def main() -> int:
    """Run one benchmark and return the exit code."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(bench)
    try:
        return typer.main.get_command(app).main(prog_name="flexai bench", standalone_mode=False) or 0
    except typer.TyperException as error:
        print(f"flexai bench: {error.format_message()}", file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as ending:
        return ending.exit_code
    except KeyboardInterrupt:
        return 130
