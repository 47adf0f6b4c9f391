"""The agent is killed at every place where it matters; the next one finds the truth, and nothing runs twice."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from .conftest import Refused, Rig, alive, wait_for

KEY = {"job_id": "1", "member": 0}
DYING = Path(__file__).with_name("dying_agent.py")


def start_dying(rig, place, nth):
    argv = [sys.executable, str(DYING), place, str(nth), "--run-dir", rig.run, "--state-dir", rig.state,
            "--fake-cards", "h200:2", *rig.arguments]  # fmt: skip
    with (rig.directory / "agent.log").open("ab") as log:
        rig.process = subprocess.Popen(argv, stderr=log)
    rig.connect()


def towards_running(rig, command):
    """What the pool does when it meets an agent: look, and ask for what is missing."""
    row = rig.tenant("1")
    if row is None or row["state"] == "prepared":
        rig.submit("1", *command)


PLACES = [
    ("before:Save", 1), ("after:Save", 1), ("after:MakePlace", 1), ("after:AddTenant", 1),
    ("before:Save", 2), ("after:Save", 2), ("before:Launch", 1), ("forked", 1), ("before:Save", 3), ("after:Save", 3),
    ("before:Say", 1), ("after:Say", 1), ("after:Launch", 1),
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_a_job_starts_once_whenever_the_agent_is_killed_while_starting_it(stopped, place):
    rig = stopped
    command = ("sh", "-c", f"echo x >> {rig.directory}/starts; sleep 0.3; exit 9")
    start_dying(rig, *place)
    with contextlib.suppress(ConnectionError):
        rig.submit("1", *command)
        rig.tenant("1")
        wait_for(lambda: rig.process.poll() is not None)
    assert rig.process.wait(10) == -signal.SIGKILL
    rig.client.close()
    rig.start()
    towards_running(rig, command)
    ended = rig.in_state("1", "finished")
    assert (ended["exit_code"], ended["cause"]) == (9, "exited")
    assert (rig.directory / "starts").read_text() == "x\n"
    rig.client.call("unprepare", **KEY)
    assert list((rig.run / "tenants").iterdir()) == []


END_PLACES = [
    ("before:Forbid", 1), ("after:Forbid", 1), ("after:Save", 4), ("before:Say", 2), ("after:DropTenant", 1),
    ("before:RemovePlace", 1), ("after:RemovePlace", 1), ("after:Save", 5),
]  # fmt: skip


@pytest.mark.parametrize("place", END_PLACES, ids=lambda place: f"{place[0]}-{place[1]}")
def test_an_end_is_not_lost_whenever_the_agent_is_killed_while_it_ends(stopped, place):
    rig = stopped
    start_dying(rig, *place)
    with contextlib.suppress(ConnectionError):
        rig.submit("1", "sh", "-c", f"echo x >> {rig.directory}/starts; exit 9")
        rig.in_state("1", "finished")
        rig.client.call("unprepare", **KEY)
        rig.tenant("1")
        wait_for(lambda: rig.process.poll() is not None)
    assert rig.process.wait(10) == -signal.SIGKILL
    rig.client.close()
    rig.start()
    row = rig.tenant("1")
    if row is not None:
        row = rig.in_state("1", "finished")
        assert row["exit_code"] == 9
        rig.client.call("unprepare", **KEY)
    assert (rig.directory / "starts").read_text() == "x\n"
    assert rig.tenant("1") is None
    assert list((rig.run / "tenants").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_life_is_lived_once_whichever_write_the_agent_is_killed_before(tmp_path):
    for number in itertools.count(1):
        rig = Rig(tmp_path / str(number))
        rig.directory.mkdir()
        try:
            died = a_life(rig, number)
        finally:
            rig.close()
        if not died:
            break
    print(number - 1, "points")
    assert number > 40


def a_life(rig, number):
    """Started, paused, resumed, ended by itself and cleared away; whether the agent was killed on the way."""
    starts, end = rig.directory / "starts", rig.directory / "end"
    command = ("sh", "-c", f"echo x >> {starts}; while [ ! -e {end} ]; do sleep 0.01; done; exit 9")
    died = False
    try:
        start_dying(rig, "any", number)
        rig.submit("1", *command)
        rig.client.call("pause", **KEY)
        rig.client.call("unpause", **KEY)
        end.touch()
        rig.in_state("1", "finished")
        rig.client.call("unprepare", **KEY)
        rig.tenant("1")
    except (OSError, AssertionError):
        assert rig.process.wait(10) == -signal.SIGKILL
        died = True
        if rig.client:
            rig.client.close()
        rig.start()
        # What the pool does when it meets an agent again: it asks for what is missing, and no more.
        if not end.exists():
            towards_running(rig, command)
            rig.client.call("unpause", **KEY)
            end.touch()
        if rig.tenant("1"):
            ended = rig.in_state("1", "finished")
            assert (ended["exit_code"], ended["cause"]) == (9, "exited"), number
            rig.client.call("unprepare", **KEY)
    assert starts.read_text() == "x\n", number
    assert list((rig.run / "tenants").iterdir()) == [], number
    return died


def test_a_job_goes_on_while_the_agent_is_away_and_is_found_and_held_again(rig):
    rig.submit("1", "sh", "-c", "echo $$; while :; do sleep 0.05; done")
    pid = int(wait_for(lambda: rig.log("1").strip() or None))
    before = rig.tenant("1")
    rig.kill()
    time.sleep(0.1)
    assert alive(pid)
    rig.start()
    assert rig.tenant("1") == before
    rig.client.call("pause", **KEY)
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=1000, **KEY)
    assert rig.client.wait_event("finished", job_id="1")["signal"] == signal.SIGTERM
    assert not alive(pid)


def test_an_end_while_the_agent_was_away_is_told(rig):
    rig.submit("1", "sh", "-c", "sleep 0.3; exit 6")
    rig.kill()
    time.sleep(0.5)
    rig.start()
    row = rig.tenant("1")
    assert (row["state"], row["exit_code"], row["cause"]) == ("finished", 6, "exited")


def test_a_supervisor_killed_while_the_agent_was_away_takes_its_member_with_it(rig):
    supervisor = rig.submit("1", "sh", "-c", "echo $$; while :; do sleep 0.05; done")["pid"]
    pid = int(wait_for(lambda: rig.log("1").strip() or None))
    rig.kill()
    os.kill(supervisor, signal.SIGKILL)
    assert alive(pid)
    rig.start()
    assert rig.in_state("1", "finished")["cause"].startswith("lost")
    assert not alive(pid)


def test_an_attached_child_is_found_again(rig):
    env = rig.prepare("1")["env"]
    with subprocess.Popen(["sleep", "60"], env=os.environ | env | {"LD_PRELOAD": ""}) as child:
        rig.client.call("attach", pid=child.pid, **KEY)
        rig.restart()
        assert rig.tenant("1")["pid"] == child.pid
        child.kill()
        child.wait()
        assert rig.client.wait_event("finished", job_id="1")["exit_code"] is None


def test_a_spoilt_checkpoint_loses_nothing_since_a_copy_stands_by(rig):
    rig.submit("1", "sh", "-c", "echo $$; while :; do sleep 0.05; done")
    pid = int(wait_for(lambda: rig.log("1").strip() or None))
    rig.kill()
    (rig.state / "agent.json").write_bytes(b"{half")
    rig.start()
    assert rig.tenant("1")["state"] == "running"
    assert any("Its copy was read instead" in note for note in rig.client.call("hello")["notes"])
    assert alive(pid)
    rig.client.call("signal", job_id="1", member=0, signal=9, grace_ms=1)
    rig.client.wait_event("finished", job_id="1")


def test_a_checkpoint_that_is_unreadable_with_its_copy_ends_what_it_knew_of_and_says_so(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("without cgroups a process is found by its environment only")
    rig = Rig(tmp_path).start()
    try:
        rig.submit("1", "sh", "-c", "echo $$; while :; do sleep 0.05; done")
        pid = int(wait_for(lambda: rig.log("1").strip() or None))
        rig.kill()
        for name in ("agent.json", "agent.copy.json"):
            (rig.state / name).write_bytes(b"{half")
        rig.start()
        assert rig.client.call("tenants")["tenants"] == []
        assert any("checkpoint" in note for note in rig.client.call("hello")["notes"])
        wait_for(lambda: not alive(pid))
    finally:
        rig.close()


def test_a_second_agent_on_the_same_state_is_refused(rig):
    other = Rig(rig.directory).start(wait=False)
    assert other.process.wait(10) == 2
    assert rig.client.call("hello")["ok"]


@pytest.mark.slow
def test_jobs_start_once_under_kills_at_random_moments(stopped):
    rig, rng = stopped, random.Random(7)
    rig.start()
    for number in range(1, 25):
        job_id = str(number)
        command = ("sh", "-c", f"echo x >> {rig.directory}/starts.{job_id}; exit 3")
        killer = threading.Timer(rng.uniform(0, 0.03), rig.process.kill)
        killer.start()
        with contextlib.suppress(ConnectionError, OSError, Refused):
            rig.submit(job_id, *command)
        killer.join()
        rig.restart()
        row = rig.tenant(job_id)
        if row is None or row["state"] == "prepared":
            rig.submit(job_id, *command)
        assert rig.in_state(job_id, "finished")["exit_code"] == 3
        assert (rig.directory / f"starts.{job_id}").read_text() == "x\n"
