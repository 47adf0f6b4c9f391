"""``flexai simulate`` answers questions of a trace, and names what is wrong with its input."""

import json

import pytest
import typer
from typer.testing import CliRunner

from flexai.apps.simulator.main import simulate
from flexai.apps.simulator.questions import Goal, parse_goal, resized
from flexai.wire.cluster_spec import parse_cluster
from flexai.wire.errors import BadInput

app = typer.Typer()
app.command()(simulate)
OWN = "submit_s,duration_s,devices,queue\n0,3600,2,a\n60,7200,2,b\n120,600,1,a\n180,600,4,b\n"


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text(OWN)
    return str(path)


def ask(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_two_policies_are_compared_in_a_table_and_in_json(trace, tmp_path):
    out = tmp_path / "out.json"
    done = ask(trace, "--cluster", "4", "--compare", "fifo,greedy", "--json", str(out), "--plots", str(tmp_path / "p"))
    assert done.exit_code == 0, done.output
    result = json.loads(out.read_text())
    assert [run["policy"] for run in result["runs"]] == ["fifo", "greedy"]
    assert result["run_card"]["simulated"] is True
    assert len(result["run_card"]["traces"][0]["sha256"]) == 64
    assert (tmp_path / "p" / "waits.png").stat().st_size > 10_000


def test_the_same_question_twice_gives_the_same_digest(trace):
    first, second = (json.loads(ask(trace, "--cluster", "4", "--policy", "greedy", "--json", "-").stdout) for _ in "12")
    assert first["runs"][0]["digest"] == second["runs"][0]["digest"]


def test_more_cards_are_tried_beside_the_given_ones(trace):
    done = ask(trace, "--cluster", "4", "--policy", "fifo", "--add-cards", "4", "--json", "-")
    assert [run["cards"] for run in json.loads(done.stdout)["runs"]] == [4, 8]


def test_the_smallest_cluster_is_the_last_run_and_one_node_less_misses_the_goal(trace):
    done = ask(trace, "--cluster", "4", "--policy", "greedy", "--smallest-for", "mean wait < 1min", "--json", "-")
    runs = json.loads(done.stdout)["runs"]
    assert runs[-1]["waits"]["mean_h"] <= 1 / 60
    smaller = [run for run in runs[:-1] if run["cards"] < runs[-1]["cards"]]
    assert all(run["waits"]["mean_h"] > 1 / 60 or run["n_unfinished"] for run in smaller)
    assert max(run["cards"] for run in smaller) == runs[-1]["cards"] - 4, "a step is one node like the last"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--policy", "magic"), "magic"),
        (("--cluster", "eight"), "eight"),
        (("--cluster", "0"), "no cards"),
        (("--smallest-for", "happiness"), "happiness"),
        (("--from", "yesterday"), "yesterday"),
        (("--from", "2030-01-01"), "no job"),
    ],
)
def test_bad_input_is_named_with_its_value(trace, arguments, named):
    done = ask(trace, "--policy", "greedy", *arguments)
    assert done.exit_code == 2
    assert named in done.stderr


def test_a_bad_row_stops_the_run_or_is_counted(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text(OWN + "200,soon,1,a\n")
    stopped = ask(str(path), "--cluster", "4", "--policy", "fifo")
    assert stopped.exit_code == 2
    assert "bad.csv:6" in stopped.stderr
    assert "soon" in stopped.stderr
    counted = ask(str(path), "--cluster", "4", "--policy", "fifo", "--skip-bad", "--json", "-")
    assert json.loads(counted.stdout)["run_card"]["skipped_rows"] == 1


def test_a_clock_that_runs_back_is_an_error(tmp_path):
    path = tmp_path / "back.csv"
    path.write_text(OWN + "10,5,1,a\n")
    assert "runs back" in ask(str(path), "--policy", "fifo").stderr


def test_an_unknown_format_names_the_known_ones(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    assert "openb" in ask(str(path), "--policy", "fifo").stderr


def test_goals_are_read_in_hours():
    assert parse_goal("p99 wait <= 30min") == Goal("p99", 0.5)
    with pytest.raises(BadInput):
        parse_goal("mean wait")


def test_clusters_are_read_and_resized():
    nodes = parse_cluster("2x8:H200:141Gi:96,1x4:L40S:48Gi")
    assert [len(node.devices) for node in nodes] == [8, 8, 4]
    assert nodes[2].devices[0].memory_bytes == 48 * 2**30
    assert sum(len(node.devices) for node in resized(nodes, 16)) == 16
    assert sum(len(node.devices) for node in resized(nodes, 40)) == 40
