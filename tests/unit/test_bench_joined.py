"""Parts of one benchmark become one result."""

import json
import sys

import pytest

from flexai.apps.bench import main as bench_main
from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.main import SUITES
from flexai.apps.bench.plots import draw


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
    monkeypatch.setattr(Case, "takes_s", lambda self, _quick: 1000.0 if self.name == "two" else 0.0)
    short = measured(tmp_path / "short", case="one,two", within_s=500.0)
    assert "would not have ended" in (short / "pool.json").read_text()
    more = measured(tmp_path / "more", case="two")
    assert joined(short, more, into=tmp_path / "all") == 0
    got = json.loads((tmp_path / "all" / "pool.json").read_text())
    assert [(row["name"], row["got"]) for row in got["rows"]] == [("one", 1.0), ("two", 3.0)]
    assert joined(short, into=tmp_path / "alone") == 0, "where nothing has it, it is told"
    assert "would not have ended" in (tmp_path / "alone" / "pool.json").read_text()
