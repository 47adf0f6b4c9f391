"""``flexai simulate`` answers questions of a trace, and names what is wrong with its input."""

import json

import pytest
import typer
from typer.testing import CliRunner

from flexai.apps.simulator.main import simulate
from flexai.apps.simulator.questions import Goal, parse_goal, resized
from flexai.simulation.deciders import POLICIES
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
    pictures = {path.name for path in (tmp_path / "p").iterdir() if path.stat().st_size > 10_000}
    assert pictures == {"over-time.png", "waits.png", "fairness.png", "before-after.png"}


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
        (("--arrival", "-1"), "--arrival"),
        (("--arrival", "nan"), "--arrival"),
        (("--add-cards", "-4"), "--add-cards"),
        (("--from", "2030-01-01"), "no job"),
    ],
)
def test_bad_input_is_named_with_its_value(trace, arguments, named):
    done = ask(trace, "--policy", "greedy", *arguments)
    assert done.exit_code == 2, done.output
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


def test_a_yaml_trace_says_the_same_as_the_csv(trace, tmp_path):
    path = tmp_path / "own.yaml"
    names, *rows = (line.split(",") for line in OWN.split())
    path.write_text("jobs:\n" + "".join(f"- {dict(zip(names, row, strict=True))}\n" for row in rows))
    first, second = (json.loads(ask(file, "--cluster", "4", "--json", "-").stdout) for file in (trace, str(path)))
    assert first["runs"] == second["runs"]
    assert second["run_card"]["traces"][0]["format"] == "yaml"


@pytest.mark.parametrize("policy", ["hi", "fifo", "best-fit"])
def test_a_gang_of_roles_starts_together_in_the_simulator(policy, tmp_path):
    path = tmp_path / "gang.csv"
    head = "submit_s,duration_s,devices,share,members,gang,role,name\n"
    busy = "0,3600,4,1,1,,,busy\n"
    path.write_text(head + busy + "60,600,1,0.5,1,train,leader,\n60,600,2,1,3,train,worker,\n")
    run = json.loads(ask(str(path), "--cluster", "2x4", "--policy", policy, "--json", "-").stdout)["runs"][0]
    assert run["n_unfinished"] == 0
    assert run["waits"]["most_h"] == pytest.approx(3540 / 3600, abs=0.01), "it wants 6.5 cards, and 4 are free"


def test_every_policy_that_can_plays_a_trace_with_shares_and_what_it_assumes_is_said(tmp_path):
    path = tmp_path / "shares.csv"
    path.write_text("submit_s,duration_s,devices,share,members\n0,60,1,0.5,1\n1,60,1,0.5,1\n2,60,16,1,1\n3,60,1,1,3\n")
    done = ask(str(path), "--cluster", "3x8", "--compare", ",".join(POLICIES), "--json", "-")
    result = json.loads(done.stdout)
    assert [run["policy"] for run in result["runs"]] == list(POLICIES)
    assert [run["n_unfinished"] for run in result["runs"]] == [0] * len(POLICIES)
    assumed = " ".join(result["run_card"]["assumptions"])
    assert "a whole card for every slice" in assumed
    assert "1 jobs wider than a node" in assumed


def test_a_policy_that_orders_a_queue_is_refused_where_nothing_ends(tmp_path):
    path = tmp_path / "pods.csv"
    path.write_text("name,cpu_milli,memory_mib,num_gpu,gpu_milli\n" + "p,1000,1024,1,500\n" * 9)
    refused = ask(str(path), "--cluster", "2x2", "--policy", "fifo")
    assert refused.exit_code == 2
    assert "no times" in refused.stderr
    packed = ask(str(path), "--cluster", "2x2", "--compare", "hi,fgd,fgd-random,whole-card", "--json", "-",
                 "--plots", str(tmp_path / "p"))  # fmt: skip
    runs = {run["policy"]: run["allocation"]["1.3"] for run in json.loads(packed.stdout)["runs"]}
    assert runs == {"hi": 100.0, "fgd": 100.0, "fgd-random": 100.0, "whole-card": 50.0}
    assert (tmp_path / "p" / "allocation.png").stat().st_size > 10_000
