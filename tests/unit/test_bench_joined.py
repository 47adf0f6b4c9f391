"""Parts of one benchmark become one result."""

import json
import math
import sys

import pytest

from flexai.apps.bench import main as bench_main
from flexai.apps.bench.frame import Case, Row, at_least, at_most, worst_of
from flexai.apps.bench.main import SUITES
from flexai.apps.bench.plots import draw
from flexai.apps.bench.slicing.memory import CASES as MEMORY_CASES
from flexai.apps.bench.slicing.memory import added


def case(name, got, goal):
    def measure(run):
        run.pictures.joinpath(f"pool-{name}.png").write_bytes(b"picture")
        run.captions[f"pool-{name}.png"] = f"of {name}"
        return [Row(name, "always", at_most(goal), got, "ms", samples=(got,), stretch=at_most(0.1), data={"a": [1]})]

    return Case(name, f"is {name}", measure, 1, 1)


@pytest.fixture
def suite(monkeypatch):
    class Suite:
        CASES = (case("one", 1.0, 2), case("two", 3.0, 2), case("three", 2.0, 2))

        @staticmethod
        def hardware():
            return "simulated", "none"

        @staticmethod
        def draw(rows, folder):
            return draw("pool", rows, folder, samples=False)

    monkeypatch.setitem(sys.modules, "suite_of_this_test", Suite)
    monkeypatch.setitem(SUITES, "pool", "suite_of_this_test")


def measured(folder, **options):
    assert bench_main.bench("pool", keep=str(folder), **{"seed": 1, **options}) == 0
    return folder


def joined(*folders, into):
    return bench_main.bench("pool", parts=[str(folder) for folder in folders], keep=str(into))


def test_parts_joined_are_what_one_run_would_have_kept(suite, tmp_path, capsys):
    parts = [measured(tmp_path / str(number), part=f"{number}/3") for number in (1, 2, 3)]
    whole = json.loads((measured(tmp_path / "whole") / "pool.json").read_text())
    assert joined(*parts, into=tmp_path / "all") == 0
    got = json.loads((tmp_path / "all" / "pool.json").read_text())
    for key in ("rows", "case", "part", "quick", "seed", "commit", "machine"):
        assert got[key] == whole[key], key
    assert set(got["took_s"]) == {"one", "two", "three"}
    assert set(got["pictures"]) == set(whole["pictures"])
    assert all((tmp_path / "all" / name).is_file() for name in got["pictures"])
    assert "2 of 3 goals met" in (tmp_path / "all" / "pool.md").read_text()


def test_some_cases_joined_say_which_they_are(suite, tmp_path):
    parts = [measured(tmp_path / name, case=name) for name in ("one", "three")]
    assert joined(*parts, into=tmp_path / "all") == 0
    assert json.loads((tmp_path / "all" / "pool.json").read_text())["case"] == "one,three"


def test_what_is_no_part_of_the_same_run_is_refused(suite, tmp_path, capsys):
    one = measured(tmp_path / "one", case="one")
    other_seed = measured(tmp_path / "seed", case="two", seed=2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "pool.json").write_text("{}")
    (tmp_path / "worse").mkdir()
    (tmp_path / "worse" / "pool.json").write_text("[")
    for other, says in (
        (other_seed, "seed 2"),
        (one, "repeats the case 'one'"),
        (tmp_path / "bad", "lacks"),
        (tmp_path / "worse", "cannot be read"),
        (tmp_path / "none", "cannot be read"),
    ):
        assert joined(one, other, into=tmp_path / "all") == 2
        assert says in capsys.readouterr().err


def test_a_case_that_one_part_had_no_time_for_is_taken_from_the_part_that_had(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(Case, "takes_s", lambda self, _quick, _minutes=None: 1000.0 if self.name == "two" else 0.0)
    short = measured(tmp_path / "short", case="one,two", within_s=500.0)
    assert "would not have ended" in (short / "pool.json").read_text()
    more = measured(tmp_path / "more", case="two")
    assert joined(short, more, into=tmp_path / "all") == 0
    got = json.loads((tmp_path / "all" / "pool.json").read_text())
    assert [(row["name"], row["got"]) for row in got["rows"]] == [("one", 1.0), ("two", 3.0)]
    assert joined(short, into=tmp_path / "alone") == 0, "where nothing has it, it is told"
    assert "would not have ended" in (tmp_path / "alone" / "pool.json").read_text()
    again = measured(tmp_path / "again", case="two", within_s=500.0)
    assert joined(short, again, into=tmp_path / "neither") == 0, "and where no part had time for it, once"
    assert (tmp_path / "neither" / "pool.json").read_text().count("would not have ended") == 1


def piece(n_over_bytes, seed, minutes=5.0, obtainable=99.9):
    told = {
        "minutes": minutes, "seed": seed, "began": f"noon-{seed}", "n_calls": 100 * seed, "n_refused": 7, "n_looks": 50,
        "failed": 0,
    }  # fmt: skip
    over = f"4 processes, {minutes:.3g} minutes, cap 16 GiB, real card"
    return [
        Row("memory over the cap", over, at_most(0), n_over_bytes, "bytes", f"of {seed}", data=told, case="memory"),
        Row("cap obtainable", "one process afterwards", at_least(99), obtainable, "%", case="memory"),
    ]


def test_two_runs_of_five_minutes_are_a_row_of_ten_with_the_worst_of_both_and_the_calls_of_both():
    over, obtainable = added([piece(0.0, 1), piece(4096.0, 2, obtainable=99.2)])
    assert over.conditions == "4 processes, 2 x 5 minutes, cap 16 GiB, real card"
    assert (over.got, over.met) == (4096.0, False)
    assert (obtainable.got, obtainable.met) == (99.2, True)
    assert "5 minutes from noon-1 with seed 1, 5 minutes from noon-2 with seed 2; 300 calls, 14 refused" in over.note
    assert "1: of 1; 2: of 2" in over.note
    assert "same random calls" not in over.note
    assert "3 x 5 minutes" in added([[over, obtainable], piece(0.0, 3)])[0].conditions
    assert "same random calls" in added([piece(0.0, 1), piece(0.0, 1)])[0].note
    assert "5 + 3 minutes" in added([piece(0.0, 1), piece(0.0, 2, minutes=3.0)])[0].conditions


def test_a_run_that_failed_is_not_added_to_one_that_did_not():
    failed = [Row("memory", "about", None, math.nan, "", "not measured: no card", case="memory")]
    assert [row.name for row in added([piece(0.0, 1), failed])] == ["memory over the cap", "cap obtainable", "memory"]


def test_the_worst_of_several_is_none_where_one_has_no_figure():
    rows = [
        Row("a", "c", at_most(1), got, "ms", void=void) for got, void in ((0.5, ""), (math.nan, "drift"), (2.0, ""))
    ]
    worst = worst_of(rows, "c")
    assert math.isnan(worst.got)
    assert (worst.void, worst.verdict) == ("drift", "void")


def test_a_case_that_goes_on_as_long_as_one_likes_takes_so_long_and_is_not_taken_for_hung():
    memory = MEMORY_CASES[0]
    assert memory.takes_s(quick=False, minutes=10) == pytest.approx(606)
    assert memory.takes_s(quick=False) == memory.seconds
    assert Case("other", "about", list, 30).takes_s(quick=False, minutes=10) == 30


def test_pieces_of_a_case_that_can_be_added_up_are_joined_whatever_their_seeds(suite, tmp_path, monkeypatch, capsys):
    def measure(run):
        return piece(0.0, run.seed)

    cases = (*sys.modules["suite_of_this_test"].CASES, Case("memory", "adds up", measure, 1, 1, add=added))
    monkeypatch.setattr(sys.modules["suite_of_this_test"], "CASES", cases)
    table = measured(tmp_path / "table", case="one,memory")
    more = measured(tmp_path / "more", case="memory", seed=2)
    assert joined(table, more, into=tmp_path / "all") == 0
    got = json.loads((tmp_path / "all" / "pool.json").read_text())
    assert [(row["case"], row["name"]) for row in got["rows"]] == [
        ("one", "one"), ("memory", "memory over the cap"), ("memory", "cap obtainable"),
    ]  # fmt: skip
    assert "2 x 5 minutes" in got["rows"][1]["conditions"]
    assert got["rows"][1]["data"]["pieces"][1]["seed"] == 2
    assert got["command"].count(";") == 1
    other = measured(tmp_path / "other", case="two,memory", seed=2)
    assert joined(table, other, into=tmp_path / "no") == 2, "two is no piece of one run at another seed"
