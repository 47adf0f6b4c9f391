"""A member's life, as the pool asks for it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .conftest import CARD, GIB, Refused, alive, grant, wait_for

KEY = {"job_id": "1", "member": 0}
FROZEN = "TD"  # stopped by a signal; as a frozen group's processes are shown
LOOP = ("sh", "-c", "echo $$; while :; do sleep 0.05; done")


def pid_of(rig, job_id="1"):
    return int(wait_for(lambda: rig.log(job_id).strip() or None).split()[0])


def test_it_runs_records_and_tells(rig):
    rig.submit("1", "sh", "-c", "echo $FLEXAI_TENANT_DIR; exit 4")
    assert rig.client.wait_event("started", job_id="1")["token"] == "1.0.1"
    ended = rig.client.wait_event("finished", job_id="1")
    assert (ended["exit_code"], ended["signal"], ended["cause"], ended["token"]) == (4, 0, "exited", "1.0.1")
    assert rig.log("1").strip() == str(rig.run / "tenants" / "1.0")
    assert rig.tenant("1")["state"] == "finished"
    rig.client.call("unprepare", **KEY)
    assert rig.tenant("1") is None
    assert not (rig.run / "tenants" / "1.0").exists()


def test_one_without_a_card_sees_none_and_is_held_to_its_cpus_and_memory(rig):
    held = {"grants": [], "cpu_milli": 500, "ram_bytes": GIB}
    rig.submit("1", "sh", "-c", "echo [$CUDA_VISIBLE_DEVICES]; cat /proc/self/cgroup; sleep 60", prepare=held)
    log = wait_for(lambda: rig.log("1") if "]" in rig.log("1") else None)
    assert log.startswith("[]\n")
    limits = [*Path("/sys/fs/cgroup").glob("cpu/flexai/*/1.0/cpu.cfs_quota_us"),
              *Path("/sys/fs/cgroup").glob("flexai/*/1.0/cpu.max")]  # fmt: skip
    if rig.arguments == () and limits:
        assert any(path.read_text().split()[0] == "50000" for path in limits)
    for op, state in (("pause", True), ("unpause", False)):
        rig.client.call(op, **KEY)
        assert rig.tenant("1")["paused"] is state
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=1000, **KEY)
    assert rig.client.wait_event("finished", job_id="1")["signal"] == signal.SIGTERM


def test_a_token_starts_once(rig):
    first = rig.submit("1", "sh", "-c", f"echo x >> {rig.directory}/starts; sleep 0.2")
    assert rig.launch("1", "sh", "-c", f"echo x >> {rig.directory}/starts") == first | {"id": rig.client.number}
    rig.client.wait_event("finished", job_id="1")
    rig.launch("1", "sh", "-c", f"echo x >> {rig.directory}/starts")
    rig.client.call("unprepare", **KEY)
    rig.prepare("1")
    rig.launch("1", "sh", "-c", f"echo x >> {rig.directory}/starts")
    assert rig.in_state("1", "finished")["exit_code"] == 0  # how the one start it had ended
    assert (rig.directory / "starts").read_text() == "x\n"
    rig.client.call("unprepare", **KEY)
    rig.submit("1", "sh", "-c", f"echo y >> {rig.directory}/starts", run=2, prepare={"run": 2})
    rig.client.wait_event("finished", job_id="1", token="1.0.2")
    assert (rig.directory / "starts").read_text() == "x\ny\n"


def test_a_start_that_was_withdrawn_before_it_began_cannot_begin(rig):
    rig.prepare("1")
    rig.client.call("unprepare", **KEY)
    with pytest.raises(Refused, match="TokenUsed"):
        rig.submit("1", "sh", "-c", f"echo x >> {rig.directory}/starts")
    assert not (rig.directory / "starts").exists()


def test_a_command_that_does_not_exist_ends_with_127_and_the_reason(rig):
    rig.submit("1", "no-such-program")
    ended = rig.client.wait_event("finished", job_id="1")
    assert ended["exit_code"] == 127
    assert "no-such-program" in ended["cause"]


def test_a_signal_with_grace_ends_what_ignores_it(rig):
    rig.submit("1", "sh", "-c", "trap '' TERM; echo $$; (while :; do sleep 0.05; done) & while :; do sleep 0.05; done")
    pid = pid_of(rig)
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=200, **KEY)
    ended = rig.client.wait_event("finished", job_id="1")
    assert ended["signal"] == signal.SIGKILL
    assert not alive(pid)


def test_a_pause_stops_every_process_and_an_unpause_lets_them_go_on(rig):
    count = rig.directory / "count"
    rig.submit("1", "sh", "-c", f"while :; do echo x >> {count}; sleep 0.02; done")
    wait_for(count.exists)
    rig.client.call("pause", **KEY)
    time.sleep(0.1)
    before = count.stat().st_size
    time.sleep(0.3)
    assert count.stat().st_size == before
    assert rig.tenant("1")["paused"] is True
    rig.client.call("unpause", **KEY)
    wait_for(lambda: count.stat().st_size > before)


def test_a_paused_member_can_be_ended(rig):
    rig.submit("1", *LOOP)
    pid_of(rig)
    rig.client.call("pause", **KEY)
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=2000, **KEY)
    assert rig.client.wait_event("finished", job_id="1")["signal"] == signal.SIGTERM


def test_a_resize_rewrites_the_policy_at_once(rig):
    from flexai.wire import region

    rig.submit("1", *LOOP)
    began = time.monotonic()
    rig.client.call("resize", grants=[grant(compute_milli=250, memory_bytes=2 * GIB)], **KEY)
    took_s = time.monotonic() - began
    name, cards = region.read_limits(bytearray((rig.run / "tenants/1.0/policy").read_bytes()))
    assert (name, cards[0].compute_milli, cards[0].memory_bytes) == ("1.0", 250, 2 * GIB)
    assert took_s < 0.5  # 0.1 on a machine that does nothing else
    with pytest.raises(Refused, match="OtherDevices"):
        rig.client.call("resize", grants=[grant(device="FAKE-h200-1")], **KEY)


def test_a_child_of_a_run_is_attached_and_its_tree_is_watched(rig):
    reply = rig.prepare("1")
    command = ["sh", "-c", "read go; sleep 0.4 & exec sleep 0.1"]
    env = os.environ | reply["env"] | {"LD_PRELOAD": ""}
    with subprocess.Popen(command, env=env, stdin=subprocess.PIPE) as child:
        rig.client.call("attach", pid=child.pid, **KEY)
        assert rig.tenant("1")["state"] == "running"
        began = time.monotonic()
        child.stdin.write(b"go\n")
    ended = rig.client.wait_event("finished", job_id="1")
    assert ended["exit_code"] is None
    assert time.monotonic() - began > 0.2  # the one in the background counted


def test_a_process_of_somebody_else_cannot_be_attached(rig):
    rig.prepare("1", uid=12345)
    child = subprocess.Popen(["sleep", "5"])
    try:
        with pytest.raises(Refused, match="CannotAttach"):
            rig.client.call("attach", pid=child.pid, **KEY)
        with pytest.raises(Refused, match="CannotAttach"):
            rig.client.call("attach", pid=2**22 + 7, **KEY)
        assert rig.tenant("1")["state"] == "prepared"
    finally:
        child.kill()
        child.wait()


def test_a_killed_supervisor_takes_its_member_with_it_and_the_member_is_lost(rig):
    pid = rig.submit("1", *LOOP)["pid"]
    command = pid_of(rig)
    os.kill(pid, signal.SIGKILL)
    ended = rig.client.wait_event("finished", job_id="1")
    assert ended["cause"] == "lost: its supervisor was killed"
    assert not alive(command)


def test_the_time_limit_is_the_cause(rig):
    rig.submit("1", *LOOP, time_limit_ms=200)
    assert rig.client.wait_event("finished", job_id="1")["cause"] == "time limit"


def test_unprepare_of_what_runs_is_refused_and_of_what_is_not_there_is_fine(rig):
    rig.submit("1", *LOOP)
    with pytest.raises(Refused, match="StillRunning"):
        rig.client.call("unprepare", **KEY)
    rig.client.call("unprepare", job_id="2", member=0)


def test_prepare_on_an_unknown_card_is_refused_and_leaves_nothing(rig):
    with pytest.raises(Refused, match="NoSuchDevice"):
        rig.prepare("1", grants=[grant(device="GPU-nowhere")])
    assert list((rig.run / "tenants").iterdir()) == []


def test_malformed_lines_are_answered_and_the_agent_goes_on(rig):
    for line in (b"nonsense\n", b"[]\n", b"{}\n", b'{"v":1}\n', b'{"v":1,"id":5,"op":"launch"}\n', b"\xff\xfe\n",
                 b'{"v":1,"id":6,"op":"prepare"}\n', b'{"v":1,"id":7,"op":"start","job_id":"../x","member":0}\n',
                 b"[" * 100_000 + b"\n", b"x" * (3 << 20) + b"\n"):  # fmt: skip
        rig.client.send(line)
        assert rig.client.read()["code"] == "BadRequest", line[:60]
    assert rig.client.call("hello")["node"]["devices"][0]["uuid"] == CARD


def test_parking_is_refused_with_a_reason_or_done(rig):
    rig.submit("1", *LOOP)
    pid = pid_of(rig)
    assert rig.client.call("park", **KEY)["seconds"] >= 0
    assert rig.tenant("1")["parked"] is True
    wait_for(lambda: _state_of(pid) in FROZEN, what="nothing of it comes back to the card by itself")
    rig.client.call("wake", **KEY)
    wait_for(lambda: _state_of(pid) not in FROZEN)
    assert rig.tenant("1")["parked"] is False


def test_a_parked_member_can_be_ended(rig):
    rig.submit("1", *LOOP)
    pid_of(rig)
    rig.client.call("park", **KEY)
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=2000, **KEY)
    assert rig.client.wait_event("finished", job_id="1")["signal"] == signal.SIGTERM


def test_a_member_that_makes_many_processes_is_ended_whole(rig):
    rig.submit(
        "1", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c 'sleep 60; sleep 60' &) ; done; echo $$; sleep 60"
    )
    pid_of(rig)
    rig.client.call("signal", signal=signal.SIGKILL, grace_ms=1, **KEY)
    rig.client.wait_event("finished", job_id="1")
    mine = [p for p in Path("/proc").iterdir() if p.name.isdigit() and _carries(p, rig.run)]
    assert mine == []


def _carries(path, run_dir):
    try:
        return f"FLEXAI_TENANT_DIR={run_dir}/".encode() in (path / "environ").read_bytes()
    except OSError:
        return False


def _state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
