"""The figures of docs/explanation/utilisation.md are what its commands give, where the traces are at hand."""

import os
import re
from pathlib import Path

import pytest

from flexai.apps.bench.frame import Run
from flexai.apps.bench.scheduling import CASES
from flexai.apps.bench.scheduling.traces import serving
from flexai.apps.bench.scheduling.utilisation import CARD_SIZES_GIB, FILLER_BYTES
from flexai.simulation.serving import question

PAGE = (Path(__file__).parents[2] / "docs/explanation/utilisation.md").read_text()
TRACES = Path(os.environ.get("FLEXAI_TRACES", "/nonexistent"))
needs_traces = pytest.mark.skipif(not TRACES.is_dir(), reason="set FLEXAI_TRACES to a folder with the public traces")


def rows(head):
    """Cells of the table whose head begins so."""
    table = PAGE.partition(f"| {head} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def a_run(tmp_path):
    return Run(False, 1, lambda _: None, tmp_path, TRACES)


def test_every_case_that_the_page_names_exists():
    named = set(re.findall(r"--case (\w+)", PAGE)) | set(re.findall(r"`([\w-]+)`", PAGE.rpartition("cases `lent`")[2]))
    assert {"serving", "slices", "joined"} <= named <= {case.name for case in CASES}


@needs_traces
def test_the_table_of_serving_pods_is_what_the_simulator_says(tmp_path):
    sizes = question(serving(a_run(tmp_path)), {f"{gib} GiB": gib * 2.0**30 for gib in CARD_SIZES_GIB}, FILLER_BYTES)
    found = [
        [size, got.way, str(got.n_cards), f"{100 * got.utilisation:.1f} %",
         f"{got.utilisation / ways[0].utilisation:.2f}", f"{100 * got.short:.2f} %", f"{100 * got.filled:.1f} %"]
        for size, ways in sizes.items() for got in ways
    ]  # fmt: skip
    assert rows("card memory") == found


@needs_traces
@pytest.mark.slow
def test_the_table_of_the_join_is_what_the_benchmark_says(tmp_path):
    (case,) = (case for case in CASES if case.name == "joined")
    found = [
        [row.name.partition("joined ")[2], *[f"{part.strip(' %')} %" for part in row.note.split("->")],
         f"+{row.got:.1f} %"]
        for row in case.measure(a_run(tmp_path))
    ]  # fmt: skip
    assert rows("joined") == found
