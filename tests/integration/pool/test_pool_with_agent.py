"""Pool and agent as processes: jobs run, and each of the two may be killed at any time."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from flexai.adapters.pool_client import PoolClient, PoolUnreachable


class Pair:
    """A pool and the real agent on cards that do not exist."""

    def __init__(self, directory):
        self.run_dir, self.state_dir = directory / "r", directory / "s"
        self.run_dir.mkdir()
        self.processes = {}
        self.client = PoolClient(self.run_dir)

    def start(self, name):
        words = ["--fake-cards", "h200:2", "--cgroups", "off"] if name == "agent" else []
        command = [
            sys.executable,
            "-m",
            f"flexai.apps.{name}",
            "--run-dir",
            self.run_dir,
            "--state-dir",
            self.state_dir,
        ]
        with (self.run_dir / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen([*command, *words], stdout=log, stderr=log)

    def kill(self, name):
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def get(self, path, **query):
        return self.client.get(path, **query)

    def post(self, path, body=None):
        return self.client.post(path, body)

    def output(self, job_id):
        return b"".join(self.client.chunks(f"/v1/jobs/{job_id}/logs")).decode()

    def submit(self, script, **fields):
        body = {"command": ["/bin/sh", "-c", script], "cwd": "/", "compute_milli": 1000, "env": dict(os.environ)}
        return self.post("/v1/jobs", body | fields)["ids"][0]

    def ends(self, job_id):
        view = self.get(f"/v1/jobs/{job_id}/wait", timeout_ms=25_000)
        assert view["exit_code"] is not None, view
        return view

    def until(self, condition):
        for _ in range(6000):
            with contextlib.suppress(PoolUnreachable):
                if condition():
                    return
            assert all(process.poll() in {None, -9} for process in self.processes.values()), self.logs()
            time.sleep(0.01)
        raise AssertionError(self.logs())

    def connected(self):
        return self.get("/v1/status")["agent"]["connected"]

    def runs(self, job_id):
        return self.get(f"/v1/jobs/{job_id}")["state"] == "running"

    def logs(self):
        return "\n".join(path.read_text() for path in self.run_dir.glob("*.log"))


@pytest.fixture
def pair(tmp_path):
    pair = Pair(tmp_path)
    pair.start("agent")
    pair.start("pool")
    pair.until(pair.connected)
    yield pair
    for process in pair.processes.values():
        process.terminate()
    assert [process.wait(timeout=20) for process in pair.processes.values()] == [0, 0], pair.logs()
    assert "Traceback" not in pair.logs(), pair.logs()


def test_a_job_runs_and_its_output_and_exit_code_are_kept(pair):
    job_id = pair.submit("echo $FLEXAI_JOB_ID says $A; exit 3", env={"A": "hello", **os.environ})
    assert pair.ends(job_id)["exit_code"] == 3
    assert pair.output(job_id) == f"{job_id} says hello\n"
    missing = pair.post("/v1/jobs", {"command": ["/no/such/program"], "compute_milli": 1000})["ids"][0]
    assert pair.ends(missing)["state"] == "failed"


def test_each_element_of_an_array_knows_its_index(pair):
    pair.submit("echo $FLEXAI_ARRAY_INDEX", array="3,5", compute_milli=200, memory_bytes=1 << 30)
    for index in ("3", "5"):
        assert pair.ends(f"1_{index}")["exit_code"] == 0
        assert pair.output(f"1_{index}") == f"{index}\n"


def test_jobs_go_on_while_pool_and_agent_are_killed_and_run_once(pair, tmp_path):
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    running = [pair.submit(f"echo {n} >> {mark}; while [ ! -e {gate} ]; do sleep 0.05; done; exit {n}") for n in (1, 2)]
    queued = pair.submit(f"echo 3 >> {mark}; exit 3")
    pair.until(lambda: all(map(pair.runs, running)))
    for victims in (["pool"], ["agent"], ["pool", "agent"]):
        for name in victims:
            pair.kill(name)
        for name in victims:
            pair.start(name)
        pair.until(pair.connected)
        assert all(map(pair.runs, running))
        assert pair.get(f"/v1/jobs/{queued}")["state"] == "queued"
    pair.kill("pool")
    gate.touch()  # they end while nobody keeps the books
    pair.start("pool")
    pair.until(pair.connected)
    assert [pair.ends(job_id)["exit_code"] for job_id in (*running, queued)] == [1, 2, 3]
    assert sorted(mark.read_text().split()) == ["1", "2", "3"]


def test_a_cancelled_job_is_gone_even_when_it_was_paused(pair):
    job_id = pair.submit("sleep 1000")
    pair.until(lambda: pair.runs(job_id))
    pair.post(f"/v1/jobs/{job_id}/pause")
    pair.post(f"/v1/jobs/{job_id}/cancel")
    view = pair.ends(job_id)
    assert (view["state"], view["exit_code"]) == ("cancelled", 143)


def test_a_time_limit_ends_a_job_and_says_so(pair):
    view = pair.ends(pair.submit("sleep 1000", time_limit_ms=300))
    assert (view["state"], view["cause"]) == ("failed", "time limit")


STUBBORN = "echo start $FLEXAI_RESTARTS; trap '' TERM; while :; do sleep 0.05; done"
OBEDIENT = "echo start $FLEXAI_RESTARTS; trap 'exit 143' TERM; while :; do sleep 0.05; done"


def evicting(pair, script, **fields):
    """A job that is being stopped for another one; ids of both."""
    low = pair.submit(script, n_devices=2, **fields)
    pair.until(lambda: pair.runs(low) and pair.output(low))
    high = pair.submit("true", priority=5)
    pair.until(lambda: pair.get(f"/v1/jobs/{low}")["state"] != "running")
    return low, high


def starts(pair, job_id):
    return [line for line in pair.output(job_id).splitlines() if line.startswith("start")]


def test_an_eviction_goes_on_when_the_agent_dies_in_its_grace(pair):
    low, high = evicting(pair, STUBBORN, grace_ms=1500)
    pair.kill("agent")
    pair.start("agent")
    assert pair.ends(high)["exit_code"] == 0
    pair.until(lambda: starts(pair, low) == ["start 0", "start 1"])
    pair.post(f"/v1/jobs/{low}/cancel")
    assert pair.ends(low)["state"] == "cancelled"


def test_what_was_evicted_while_the_pool_was_dead_is_queued_again_in_its_place(pair):
    low, high = evicting(pair, OBEDIENT)
    pair.kill("pool")
    pair.start("pool")
    pair.until(pair.connected)
    later = pair.submit("true", n_devices=2)
    assert pair.ends(high)["exit_code"] == 0
    pair.until(lambda: pair.runs(low) and len(starts(pair, low)) > 1)
    assert pair.get(f"/v1/jobs/{later}")["state"] == "queued"
    pair.post(f"/v1/jobs/{low}/cancel")
    assert pair.ends(later)["exit_code"] == 0
    causes = [line["cause"] for line in pair.get(f"/v1/jobs/{low}/history")["items"] if line["kind"] == "Evict"]
    # The new process does not know for whom it was: the large job may begin once more, and give way again.
    assert {*causes[:-1]} == {f"preempted for job {high} of queue default"}
    assert causes[-1] == "cancelled"


@pytest.mark.slow
def test_a_drained_card_is_left_by_what_runs_there_which_starts_on_another(pair):
    job_id = pair.submit(OBEDIENT, compute_milli=500, memory_bytes=1 << 30)
    pair.until(lambda: pair.runs(job_id) and pair.output(job_id))
    before = pair.get(f"/v1/jobs/{job_id}")["grants"][0]["device"]
    pair.post(f"/v1/devices/{before}/cordon")
    assert pair.runs(job_id)
    pair.post(f"/v1/devices/{before}/drain")
    pair.until(lambda: starts(pair, job_id) == ["start 0", "start 1"])
    assert pair.get(f"/v1/jobs/{job_id}")["grants"][0]["device"] != before
    pair.post(f"/v1/jobs/{job_id}/cancel")
    pair.ends(job_id)


@pytest.mark.slow
def test_a_member_without_a_card_runs_with_the_others_sees_none_and_outlives_pool_and_agent(pair, tmp_path):
    go_on = tmp_path / "go on"
    script = f"echo $FLEXAI_ROLE has [$CUDA_VISIBLE_DEVICES]; while ! [ -e '{go_on}' ]; do sleep 0.02; done"
    roles = [{"name": "leader", "n_devices": 0, "cpu_milli": 500}, {"name": "worker", "compute_milli": 1000}]
    job = pair.submit(script, roles=roles, compute_milli=None, idle_timeout_ms=1000)
    pair.until(lambda: "leader has []" in pair.output(job))
    assert [grant["member"] for grant in pair.get(f"/v1/jobs/{job}")["grants"]] == [1]
    pair.until(lambda: pair.runs(job))
    time.sleep(1.5)  # longer than it may idle; but it has no card to leave idle, and nobody measures the worker
    for name in ("pool", "agent"):
        pair.kill(name)
        pair.start(name)
    pair.until(pair.connected)
    pair.until(lambda: pair.runs(job))
    go_on.touch()
    view = pair.ends(job)
    assert (view["state"], view["exit_code"]) == ("succeeded", 0)
    assert [member["run"] for member in view["members"]] == [1, 1], "nothing ran twice"


def test_a_gang_of_which_a_member_fails_holds_nothing_more(pair):
    gang = pair.submit("[ $FLEXAI_MEMBER = 0 ] || { sleep 0.3; exit 7; }; sleep 600", n_members=2)
    view = pair.ends(gang)
    assert (view["state"], view["exit_code"], view["grants"]) == ("failed", 7, [])
    assert pair.ends(pair.submit("true", n_devices=2))["exit_code"] == 0
