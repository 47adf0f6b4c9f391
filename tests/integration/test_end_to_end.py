"""The whole on simulated cards, as a user has it: up, submit, run, kill any process, down."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from flexai_native import program

FLEXAI = str(Path(sys.executable).with_name("flexai"))
pytestmark = pytest.mark.timeout(180)
OTHER_UID = 54321
SPEAKS = """
import json, os, sys
from pathlib import Path
from flexai.adapters.pool_client import PoolClient, PoolRefused
pool = PoolClient(Path(sys.argv[1]))
os.setgroups([]); os.setgid(54321); os.setuid(54321)
for method, path, body in json.loads(sys.argv[2]):
    try:
        print(json.dumps(pool.call(method, path, body, {})))
    except PoolRefused as refused:
        print(json.dumps(refused.code))
"""
two_users = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")


class Machine:
    """One pool in folders of its own."""

    def __init__(self, folder):
        self.run_dir, self.state_dir = folder / "r", folder / "s"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEXAI_", "XDG_"))}
        self.environment = clean | {
            "FLEXAI_RUN_DIR": str(self.run_dir), "FLEXAI_STATE_DIR": str(self.state_dir), "HOME": str(folder),
        }  # fmt: skip

    def flexai(self, *words, code=0, timeout=60):
        result = subprocess.run(
            [FLEXAI, *words],
            env=self.environment,
            cwd="/",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if code is not None:
            assert result.returncode == code, f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, *words, **options):
        return json.loads(self.flexai(*words, "--json", **options).stdout)

    def job(self, job_id):
        return next(job for job in self.json("jobs", "--limit", "1000")["items"] if job["id"] == job_id)

    def pid(self, name):
        return json.loads((self.state_dir / "up.json").read_text()).get(name, {}).get("pid")

    def kill(self, name):
        """SIGKILL, and wait until another one has taken its place."""
        before = self.pid(name)
        os.kill(before, signal.SIGKILL)
        until(lambda: self.pid(name) not in {before, None}, f"{name} is started again")

    def logs(self):
        return "\n".join(
            f"== {file.name}\n{file.read_text()[-1500:]}" for file in sorted(self.state_dir.glob("logs/*.log"))
        )


def until(condition, what, timeout_s=40):
    end = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except (AssertionError, StopIteration, json.JSONDecodeError, OSError):
            pass
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.1)


@contextmanager
def pool_up():
    with tempfile.TemporaryDirectory(prefix="fxe") as folder:
        Path(folder).chmod(0o755)  # as /run is: other users reach the socket
        machine = Machine(Path(folder))
        try:
            machine.flexai("up", "--simulate", "h200:2", "--detach", timeout=90)
            yield machine
        finally:
            if machine.flexai("down", "--jobs", "cancel", code=None, timeout=90).returncode not in {0, 3}:
                print(machine.logs())


@pytest.fixture(scope="module")
def pool():
    """One for all tests that leave it as it was."""
    with pool_up() as machine:
        yield machine


@pytest.fixture
def machine():
    """One of its own, for tests that kill or stop it."""
    with pool_up() as machine:
        yield machine


def test_up_says_simulated_and_a_second_up_is_refused(pool):
    refused = pool.flexai("up", "--simulate", "h200:2", "--detach", code=4)
    assert "running already" in refused.stderr
    assert "flexai down" in refused.stderr
    cards = pool.json("devices")["items"]
    assert [card["source"] for card in cards] == ["simulated", "simulated"]
    assert "simulated" in pool.flexai("top", "--once").stdout
    failed = [check["name"] for check in pool.json("doctor", code=None)["checks"] if not check["ok"]]
    assert failed == []


def test_a_submitted_job_runs_as_the_user_and_its_output_and_exit_code_are_kept(pool, tmp_path):
    job_id = pool.flexai(
        "submit", "-s", "30%", "-m", "1Gi", "--", "sh", "-c", "id -u; echo hello; exit 3"
    ).stdout.strip()
    assert pool.flexai("wait", job_id, code=3)
    assert pool.flexai("logs", job_id).stdout.split() == [str(os.geteuid()), "hello"]
    assert pool.job(job_id)["state"] == "failed"


def test_a_run_is_the_callers_child_with_a_slice_of_a_card(pool):
    script = "echo out; echo $FLEXAI_TENANT_DIR; exit 7"
    result = pool.flexai("run", "-s", "30%", "-m", "1Gi", "--", "sh", "-c", script, code=7)
    said, tenant = result.stdout.split()
    assert (said, tenant.startswith(str(pool.run_dir))) == ("out", True)
    listed = pool.json("devices")["items"]
    assert sum(card["compute_granted_milli"] for card in listed) == 0


def test_a_program_in_a_slice_sees_the_slice_as_its_card(pool):
    program = (
        "import pynvml as n; n.nvmlInit(); card = n.nvmlDeviceGetHandleByIndex(0); "
        "print(n.nvmlDeviceGetCount(), n.nvmlDeviceGetMemoryInfo(card).total)"
    )
    result = pool.flexai("run", "-s", "30%", "-m", "2Gi", "--", sys.executable, "-c", program)
    assert result.stdout.split() == ["1", str(2 << 30)]


def test_two_busy_neighbours_get_what_they_asked_for(pool):
    flood = [str(program("flexai-workload")), "flood", "--kernel-us", "500", "--seconds", "3"]
    # The other card is taken, and both are let go at once, so that they run side by side from start to end.
    other = pool.flexai("submit", "-s", "100%", "--", "sleep", "60").stdout.strip()
    parts = ("70%", "30%")
    ids = [pool.flexai("submit", "--held", "-s", part, "-m", "1Gi", "--", *flood).stdout.strip() for part in parts]
    until(lambda: pool.job(other)["state"] == "running", "the other card is taken")
    pool.flexai("release", *ids)
    pool.flexai("wait", *ids)
    done = [json.loads(pool.flexai("logs", job_id).stdout)["iterations"] for job_id in ids]
    assert done[0] / (done[0] + done[1]) == pytest.approx(0.7, abs=0.08)
    pool.flexai("cancel", other)
    pool.flexai("wait", other, code=None)


@pytest.mark.slow
def test_small_jobs_are_stacked_and_what_does_not_fit_waits_with_a_reason(pool):
    ids = [pool.flexai("submit", "-s", "60%", "-m", "1Gi", "--", "sleep", "60").stdout.strip() for _ in range(3)]
    until(lambda: sum(pool.job(job_id)["state"] == "running" for job_id in ids) == 2, "two run")
    waiting = next(job for job in map(pool.job, ids) if job["state"] == "queued")
    assert "60" in waiting["reason"]["message"]
    small = pool.flexai("submit", "-s", "40%", "-m", "1Gi", "--", "true").stdout.strip()
    pool.flexai("wait", small, "--timeout", "30")
    pool.flexai("cancel", *ids)
    for job_id in ids:
        until(lambda job_id=job_id: pool.job(job_id)["state"] == "cancelled", f"{job_id} is cancelled")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pool", "agent", "arbiter", "guardian"])
def test_a_killed_process_comes_back_and_jobs_go_on(machine, name, tmp_path):
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    script = f"echo started >> {mark}; while [ ! -e {gate} ]; do sleep 0.1; done; echo done"
    running = machine.flexai("submit", "-s", "60%", "-m", "1Gi", "--", "sh", "-c", script).stdout.strip()
    until(mark.exists, "the job has started")
    queued = [machine.flexai("submit", "-s", "100%", "--", "true").stdout.strip() for _ in range(2)]
    machine.kill(name)
    until(lambda: machine.flexai("status", code=None).returncode == 0, "the pool answers")
    until(lambda: machine.job(running)["state"] == "running", "the job is found again")
    gate.touch()
    machine.flexai("wait", running, "--timeout", "40")
    machine.flexai("wait", *queued, "--timeout", "40")
    assert mark.read_text() == "started\n"
    assert machine.flexai("logs", running).stdout == "done\n"


@pytest.mark.slow
def test_a_run_that_waits_outlives_a_restart_of_the_pool(machine):
    ids = [machine.flexai("submit", "-s", "100%", "--", "sleep", "60").stdout.strip() for _ in range(2)]
    words = [FLEXAI, "run", "-s", "100%", "--", "sh", "-c", "echo ran; exit 9"]
    run = subprocess.Popen(
        words, env=machine.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
    )
    assert "waits" in run.stderr.readline()
    machine.kill("pool")
    until(lambda: machine.flexai("status", code=None).returncode == 0, "the pool answers")
    machine.flexai("cancel", *ids)
    said, _ = run.communicate(timeout=60)
    assert (run.returncode, said) == (9, "ran\n")


@pytest.mark.slow
def test_after_up_itself_is_killed_the_next_one_takes_over_what_runs(machine, tmp_path):
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    script = f"echo started >> {mark}; while [ ! -e {gate} ]; do sleep 0.1; done"
    running = machine.flexai("submit", "-s", "60%", "-m", "1Gi", "--", "sh", "-c", script).stdout.strip()
    until(mark.exists, "the job has started")
    holder = int((machine.state_dir / "up.lock").read_text().split()[0])
    os.kill(holder, signal.SIGKILL)
    arbiter = machine.pid("arbiter")
    again = machine.flexai("up", "--simulate", "h200:2", "--detach", timeout=90)
    assert "taken over" in again.stdout
    assert machine.pid("arbiter") == arbiter
    gate.touch()
    machine.flexai("wait", running, "--timeout", "40")
    assert mark.read_text() == "started\n"


@pytest.mark.slow
def test_down_that_keeps_jobs_lets_them_go_on_and_the_next_up_finds_them(machine, tmp_path):
    mark, gate = tmp_path / "mark", tmp_path / "gate"
    script = f"echo started >> {mark}; while [ ! -e {gate} ]; do sleep 0.1; done; echo done"
    running = machine.flexai("submit", "-s", "60%", "-m", "1Gi", "--", "sh", "-c", script).stdout.strip()
    until(mark.exists, "the job has started")
    assert f"jobs that go on: {running}" in machine.flexai("down", "--jobs", "keep", timeout=90).stdout
    machine.flexai("status", code=3)
    again = machine.flexai("up", "--simulate", "h200:2", "--detach", timeout=90)
    assert "taken over from an earlier `up`: simcard, arbiter, guardian" in again.stdout
    until(lambda: machine.job(running)["state"] == "running", "the job is found again")
    gate.touch()
    machine.flexai("wait", running, "--timeout", "40")
    assert mark.read_text() == "started\n"


def test_down_leaves_no_process_behind(machine):
    pids = [one["pid"] for one in json.loads((machine.state_dir / "up.json").read_text()).values()]
    assert len(pids) == 5
    machine.flexai("down", "--jobs", "cancel", timeout=90)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    machine.flexai("down", code=3)


def small_job(*command, **fields):
    return [
        "POST",
        "/v1/jobs",
        {"command": command, "cwd": "/", "compute_milli": 200, "memory_bytes": 1 << 30} | fields,
    ]


def other(pool, *calls):
    """What the pool answers to another user: a document, or the code of a refusal."""
    argv = [sys.executable, "-c", SPEAKS, str(pool.run_dir), json.dumps(calls)]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in said.splitlines()]


@two_users
def test_each_sees_and_ends_its_own_jobs_and_the_owner_of_the_pool_all(pool):
    roots = pool.flexai("submit", "-s", "20%", "-m", "1Gi", "--", "sleep", "60").stdout.strip()
    theirs = other(pool, small_job("sh", "-c", "id -u; id -g; sleep 60"))[0]["ids"][0]
    until(lambda: all(pool.job(one)["state"] == "running" for one in (roots, theirs)), "both run")
    until(lambda: len(pool.flexai("logs", theirs).stdout.split()) == 2, "it has said who it is")
    assert pool.flexai("logs", theirs).stdout.split() == [str(OTHER_UID)] * 2

    listed, history, cards, *refused = other(
        pool, ["GET", "/v1/jobs", None], ["GET", "/v1/history", None], ["GET", "/v1/devices", None],
        ["GET", f"/v1/jobs/{roots}", None], ["GET", f"/v1/jobs/{roots}/explain", None],
        ["GET", f"/v1/jobs/{roots}/history", None], ["POST", f"/v1/jobs/{roots}/cancel", {}],
        ["POST", f"/v1/jobs/{roots}/pause", {}], small_job("true", after=[roots]),
        ["POST", "/v1/devices/0/cordon", {}], ["PUT", "/v1/queues/theirs", {}], ["POST", "/v1/shutdown", {}],
    )  # fmt: skip
    assert [item["id"] for item in listed["items"]] == [theirs]
    assert {item["job_id"] for item in history["items"]} <= {theirs, None}
    slices = [entry for card in cards["items"] for entry in card["slices"]]
    assert {entry["job_id"] for entry in slices} == {theirs, None}
    assert all(entry["user"] is None and entry["name"] is None for entry in slices if entry["job_id"] is None)
    assert refused == ["UnknownJob"] * 6 + ["NotAllowed"] * 3
    assert pool.job(roots)["state"] == "running"

    pool.flexai("cancel", roots, theirs)
    until(lambda: pool.job(theirs)["state"] == "cancelled", "root ended the other's job")


@two_users
def test_a_queue_takes_jobs_only_of_those_on_its_list_and_holds_each_to_its_limit(pool):
    pool.flexai("queue", "set", "closed", "--user", "root")
    pool.flexai("queue", "set", "small", "--user-limit", "30%")
    refused, *taken = other(
        pool, small_job("true", queue="closed"), *(small_job("sleep", "60", queue="small") for _ in range(2))
    )
    assert refused == "NotAllowed"
    first, second = (answer["ids"][0] for answer in taken)
    until(lambda: pool.job(first)["state"] == "running", "the first runs")
    waiting = pool.job(second)
    assert (waiting["state"], waiting["reason"]["code"]) == ("queued", "UserLimit")
    assert other(pool, ["POST", f"/v1/jobs/{first}/cancel", {}], ["POST", f"/v1/jobs/{second}/cancel", {}])


@two_users
def test_a_pool_without_root_serves_its_own_user_only_and_says_why(pool):
    script = (
        "import os\n"
        "from flexai.apps.pool.identity import Peer\n"
        "os.setuid(54321)\n"
        "print([Peer(1, uid, uid, 'x').can_be_served() for uid in (54321, 54322, 0)])\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "[True, False, False]"
