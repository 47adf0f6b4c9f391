"""The audit of device memory on simulated cards: who got past its cap is named with the path, and dealt with."""

import json
import os
import signal
import subprocess

import flexai_native
import pytest

from .conftest import GIB, Rig, grant, wait_for

SIMCARD = flexai_native.program("flexai-simcard")
DRIVER = flexai_native.library("simcard/libcuda.so.1").parent
WORKLOAD = flexai_native.program("flexai-workload")


@pytest.fixture
def simulated(tmp_path):
    """(rig on two simulated cards, their uuids, a way to give orders to the cards)"""
    socket = tmp_path / "sim"
    daemon = subprocess.Popen([SIMCARD, "--socket", socket, "--cards", "h200:2"], stdout=subprocess.PIPE, text=True)
    daemon.stdout.readline()

    def order(*words):
        return subprocess.run(
            [SIMCARD, "--socket", socket, *map(str, words)], check=True, capture_output=True, text=True
        )

    uuids = [json.loads(line)["uuid"] for line in order("show").stdout.splitlines()]
    rig = Rig(tmp_path, "--simcard", str(socket), "--over-cap", "kill")
    try:
        yield rig.start(), uuids, order
    finally:
        rig.close()
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()


def test_a_program_over_its_cap_is_named_with_its_path_and_stopped_or_ended_by_policy(simulated):
    rig, (first, second), order = simulated
    bare = ("env", "-u", "LD_PRELOAD", f"LD_LIBRARY_PATH={DRIVER}", str(WORKLOAD), "flood", "--memory")
    held = (str(WORKLOAD), "flood", "--memory")
    rig.submit("bare", *bare, str(3 * GIB), "--seconds", "60", prepare={"grants": [grant("bare", first)]})
    rig.submit("good", *held, str(GIB // 2), "--seconds", "60", prepare={"grants": [grant("good", first)]})
    rig.submit(
        "host", *held, str(GIB // 2), "--seconds", "60",
        prepare={"grants": [grant("host", second)], "over_cap": "stop"},
    )  # fmt: skip

    def pid():
        rows = json.loads(order("show").stdout.splitlines()[1])["processes"]
        return rows[0]["pid"] if rows and rows[0]["memory_bytes"] > GIB // 2 else 0

    order("place", 1, 4 * GIB, wait_for(pid))

    event = rig.client.wait_event("over_cap", job_id="bare", timeout_s=30)
    assert (event["leak"], event["action"]) == ("NoShim", "kill")
    assert event["used_bytes"] >= 3 * GIB
    assert "without the shim" in event["says"]
    ended = rig.in_state("bare", "finished")
    assert "of card memory with a cap of 1024 MiB" in ended["cause"]

    event = rig.client.wait_event("over_cap", job_id="host", timeout_s=30)
    assert (event["leak"], event["action"]) == ("ManagedOrHost", "stop")
    assert event["used_bytes"] >= 4 * GIB
    stopped = wait_for(lambda: (row := rig.tenant("host"))["paused"] and row)
    assert "of card memory with a cap" in stopped["paused_for"]
    shown = {row["job_id"]: row for row in rig.client.call("usage")["tenants"]}
    assert shown["host"]["leak"] == "ManagedOrHost"
    assert shown["host"]["over_cap_bytes"] >= 3 * GIB
    assert shown["good"]["over_cap_bytes"] == 0
    rig.client.call("unpause", job_id="host", member=0)
    assert rig.tenant("host")["paused_for"] == ""
    assert [e["job_id"] for e in rig.client.events if e["event"] == "over_cap"] == ["bare", "host"]


def test_a_program_that_left_the_shim_behind_is_told_of_once_though_it_stays_within_its_cap(simulated):
    rig, (first, _), _ = simulated
    bare = ("env", "-u", "LD_PRELOAD", f"LD_LIBRARY_PATH={DRIVER}", str(WORKLOAD), "flood", "--seconds", "60")
    held = (str(WORKLOAD), "flood", "--seconds", "60")
    rig.submit("held", *held, prepare={"grants": [grant("held", first)]})
    rig.submit("bare", *bare, prepare={"grants": [grant("bare", first)]})
    event = rig.client.wait_event("no_shim", job_id="bare", timeout_s=30)
    assert event["pid"] > 0
    assert "without the shim" in event["says"]
    assert [e["job_id"] for e in rig.client.events if e["event"] == "no_shim"] == ["bare"]


def test_a_tenant_that_spoils_its_own_region_hurts_nobody_else(simulated):
    rig, (first, _), order = simulated
    held = (str(WORKLOAD), "flood", "--memory", str(GIB // 2), "--seconds", "60")
    for job_id in ("good", "cut", "noise"):
        rig.submit(job_id, *held, prepare={"grants": [grant(job_id, first)]})

    def on_the_card():
        return {row["pid"] for row in json.loads(order("show").stdout.splitlines()[0])["processes"]}

    wait_for(lambda: len(on_the_card()) == 3)
    (rig.run / "tenants" / "cut.0" / "ledger").write_bytes(b"")  # its own program dies of it: SIGBUS
    with (rig.run / "tenants" / "noise.0" / "ledger").open("r+b") as ledger:
        ledger.write(os.urandom(64 << 10))
    assert rig.in_state("cut", "finished")["signal"] == signal.SIGBUS

    def used(job_id):
        rows = rig.client.call("usage")["tenants"]
        return sum(row["used_bytes"] for row in rows if row["job_id"] == job_id)

    # By the driver's word, whatever a ledger says. A program may die of noise in its own region.
    wait_for(lambda: used("good") >= GIB // 2)
    wait_for(lambda: rig.tenant("noise")["state"] != "running" or used("noise") >= GIB // 2)
    assert rig.tenant("good")["state"] == "running"
    for job_id in ("cut", "noise"):
        if rig.tenant(job_id)["state"] == "running":
            rig.client.call("signal", job_id=job_id, member=0, signal=signal.SIGKILL, grace_ms=1)
        rig.in_state(job_id, "finished")
        rig.client.call("unprepare", job_id=job_id, member=0)
    rig.submit("next", *held, prepare={"grants": [grant("next", first)]})
    wait_for(lambda: len(on_the_card()) == 2)
    assert rig.process.poll() is None
