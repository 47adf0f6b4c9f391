"""The frame of benchmarks: goals are judged, failures are rows, the document says where it comes from."""

import json
import math
import re
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.apps.bench import frame
from flexai.apps.bench import main as bench_main
from flexai.apps.bench.frame import Case, Row, Run, at_least, at_most, header, part_of, quantile, run_case
from flexai.apps.bench.main import SUITES


def fails(_):
    raise OSError("no card")


def run(tmp_path):
    return Run(True, 1, lambda _: None, tmp_path)


@pytest.mark.parametrize(
    ("goal", "got", "met"),
    [(at_most(10), 10, True), (at_most(10), 10.1, False), (at_least(99), 99, True), (at_least(99), 98.9, False),
     (at_most(10), math.nan, False), (at_least(10), math.nan, False), (None, 5, None)],
)  # fmt: skip
def test_a_goal_is_met_or_not_and_no_figure_never_meets_one(goal, got, met):
    assert Row("n", "c", goal, got, "ms").met is met


def test_a_case_that_fails_is_a_row_that_says_so(tmp_path):
    (row,) = run_case(Case("memory", "about", fails), run(tmp_path))
    assert math.isnan(row.got)
    assert "OSError: no card" in row.note
    assert json.loads(json.dumps(row.as_json()))["got"] is None


def test_the_header_names_machine_cards_driver_commit_command_date_and_seed():
    head = header("pool", "simulated", "none", 7)
    assert set(head) == {"benchmark", "machine", "cards", "driver", "commit", "command", "date", "load", "seed"}
    assert all(head.values())


def test_a_quantile_is_a_sample_that_was_measured():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(range(100), 0.99) == 98
    assert quantile([5], 0.99) == 5
    assert math.isnan(quantile([], 0.5))


@pytest.mark.parametrize("name", SUITES)
def test_every_case_of_every_benchmark_has_a_name_of_its_own_and_says_what_it_measures(name):
    listed = subprocess.run(
        [sys.executable, "-m", "flexai.apps.bench", name, "--list"], capture_output=True, text=True, check=True
    )
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert len(set(names)) == len(names) > 0
    assert all(re.fullmatch(r"\S+ +\d+ s  \S+ .*", line) for line in listed.stdout.splitlines()), (
        "and how long it takes"
    )


def test_a_document_has_the_rows_and_a_missed_goal_can_be_an_exit_code(tmp_path, monkeypatch, capsys):
    class Suite:
        CASES = (
            Case("fast", "is fast", lambda _: [Row("fast", "always", at_most(1), 2.0, "ms", samples=(1.0, 2.0))]),
            Case("other", "is not asked for", fails),
        )

        @staticmethod
        def hardware():
            return "simulated", "none"

    monkeypatch.setitem(sys.modules, "suite_of_this_test", Suite)
    monkeypatch.setitem(SUITES, "pool", "suite_of_this_test")
    file = tmp_path / "rows.json"
    options = {"json_file": str(file), "plots": str(tmp_path / "plots"), "seed": 3, "list_cases": False, "quick": True}
    options |= {"keep": "", "traces": ""}
    assert bench_main.bench("pool", case="f*", strict=True, **options) == 6
    document = json.loads(file.read_text())
    assert [(row["name"], row["goal"], row["met"]) for row in document["rows"]] == [("fast", "<= 1", False)]
    assert document["seed"] == 3
    assert (tmp_path / "plots/pool.png").stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "fast" in printed
    assert "STRETCH" not in printed, "no row has more than a goal"


def test_a_kept_result_is_a_page_with_its_pictures_and_replaces_the_one_before(tmp_path, monkeypatch):
    n_samples = []

    def measure(run):
        run.inputs["list.csv"] = "ab12"
        run.pictures.joinpath("pool-curve.png").write_bytes(b"picture")
        run.captions["pool-curve.png"] = "a | curve"
        return [
            Row(
                "fast|er",
                "always",
                at_most(1),
                0.5,
                "ms",
                note="as it was",
                stretch=at_most(0.5),
                samples=tuple(range(n_samples[-1])),
            )
        ]

    class Suite:
        CASES = (Case("fast", "is fast", measure),)
        READS_TRACES = True

        @staticmethod
        def hardware():
            return "simulated", "none"

    monkeypatch.setitem(sys.modules, "suite_of_this_test", Suite)
    monkeypatch.setitem(SUITES, "pool", "suite_of_this_test")
    options = {"json_file": "", "plots": "", "seed": 3, "list_cases": False, "quick": False, "strict": True}
    for count, n_pictures in ((40, 3), (3, 2)):
        n_samples.append(count)
        assert bench_main.bench("pool", case="*", keep=str(tmp_path), traces=str(tmp_path), **options) == 0
        page, document = (tmp_path / "pool.md").read_text(), json.loads((tmp_path / "pool.json").read_text())
        assert "| fast\\|er | always | ≤ 1 | ≤ 0.5 | 0.5 | ms | yes, stretch too |" in page
        assert "SHA-256 ab12" in page
        assert "as it was" in page
        assert document["inputs"] == {"list.csv": "ab12"}
        assert set(document["took_s"]) == {"fast"}
        pictures = {path.name for path in tmp_path.glob("*.png")}
        assert pictures == set(document["pictures"])
        assert all(f"({name})" in page for name in pictures)
        assert len(pictures) == n_pictures


@pytest.mark.parametrize(
    ("name", "folder", "says"), [("pool", ".", "not read by"), ("scheduling", "/none", "no folder")]
)
def test_traces_that_would_not_be_read_are_refused(name, folder, says, capsys):
    words = {"quick": True, "case": "*", "json_file": "", "plots": "", "keep": "", "seed": 1, "strict": False}
    assert bench_main.bench(name, traces=folder, list_cases=False, **words) == 2
    assert says in capsys.readouterr().err


def test_what_was_measured_before_a_failure_or_a_hang_is_kept(tmp_path, monkeypatch):
    def breaks_off(_):
        yield Row("first", "c", None, 1.0, "ms")
        raise OSError("gone")

    def hangs(_):
        yield Row("first", "c", None, 1.0, "ms")
        time.sleep(20)

    first, second = run_case(Case("a", "about", breaks_off), run(tmp_path))
    assert (first.got, second.note) == (1.0, "not measured: OSError: gone")
    monkeypatch.setattr(frame, "overdue_s", lambda takes_s: takes_s)
    first, second = run_case(Case("a", "about", hangs, 0.1, 0.1), run(tmp_path))
    assert first.got == 1.0
    assert "Overdue" in second.note


def test_a_void_figure_is_neither_met_nor_missed():
    row = Row("n", "c", at_most(1), 2.0, "ms", void="the solo rate drifted")
    assert row.met is None
    assert row.verdict == "void"
    assert row.as_json()["void"]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20), st.integers(1, 5), st.booleans())
def test_parts_are_all_cases_once_and_in_order(lengths, n_parts, quick):
    cases = [Case(str(i), "about", fails, s, s / 2) for i, s in enumerate(lengths)]
    parts = [part_of(cases, number, n_parts, quick) for number in range(1, n_parts + 1)]
    assert [case for part in parts for case in part] == cases


def test_a_case_that_would_not_end_in_time_is_not_begun_and_says_so(tmp_path, monkeypatch):
    class Suite:
        CASES = (
            Case("short", "is short", lambda _: [Row("short", "c", None, 1.0, "ms")], 1, 1),
            Case("long", "is long", lambda _: [Row("long", "c", None, 1.0, "ms")], 1000, 1000),
        )

        @staticmethod
        def hardware():
            return "simulated", "none"

    monkeypatch.setitem(sys.modules, "suite_of_this_test", Suite)
    monkeypatch.setitem(SUITES, "pool", "suite_of_this_test")
    file = tmp_path / "rows.json"
    assert bench_main.bench("pool", within_s=60, json_file=str(file)) == 0
    rows = json.loads(file.read_text())["rows"]
    assert rows[0]["got"] == 1.0
    assert "not measured" in rows[1]["note"]


@pytest.mark.parametrize("part", ["0/2", "3/2", "x", "1"])
def test_a_part_that_is_none_is_refused(part, capsys):
    assert bench_main.bench("pool", part=part) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"), [(["nothing"], "'nothing' is no benchmark"), (["pool", "--case", "x"], "'x'")]
)
def test_an_unknown_benchmark_or_case_is_named_with_what_there_is(words, says):
    result = subprocess.run(
        [sys.executable, "-m", "flexai.apps.bench", *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert says in result.stderr
    assert "pool" in result.stderr or "submissions" in result.stderr
