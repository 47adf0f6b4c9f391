"""NVIDIA's controls on a real card, as root, with PyTorch tenants: what docs/explanation/nvidia-controls.md claims.

Run by ``pytest -m gpu tests/gpu``. Nothing of the card's settings is touched.
"""

import json
import mmap
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import flexai_native
import pytest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA card"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
CONTROL_BYTES = 4096 + 4 * 65_536


class Tenant:
    """A PyTorch program that multiplies matrices without end."""

    def __init__(self, folder):
        path = folder / f"tenant{time.monotonic_ns()}"
        path.write_bytes(bytes(CONTROL_BYTES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), CONTROL_BYTES)
        command = [sys.executable, "-m", "flexai.apps.bench.torch_workloads", "gemm", "--control", path]
        self.process = subprocess.Popen(command)
        self.pid = self.process.pid

    def wait(self):
        until = time.monotonic() + 90
        while struct.unpack_from("<I", self._map, 8)[0] == 0:
            assert self.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        struct.pack_into("<I", self._map, 12, 1)
        time.sleep(0.5)
        return self

    def rate(self, seconds=1.0):
        before, began = struct.unpack_from("<Q", self._map)[0], time.monotonic()
        time.sleep(seconds)
        return (struct.unpack_from("<Q", self._map)[0] - before) / (time.monotonic() - began)

    def end(self):
        self.process.kill()
        self.process.wait()


def nvprobe(*arguments):
    command = [flexai_native.program("flexai-nvprobe"), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def tenants(tmp_path_factory):
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("tenants")
    both = [Tenant(folder), Tenant(folder)]
    for tenant in both:
        tenant.wait()
    yield both
    for tenant in both:
        tenant.end()


def test_every_control_works_here():
    code, checks = nvprobe("check")
    assert code == 0, checks
    assert all(check["ok"] for check in checks)
    assert sum(check.get("us", 0) for check in checks) < 100_000


def test_a_pytorch_process_has_one_compute_group_and_it_is_found_in_time(tenants):
    code, [found] = nvprobe("discover", tenants[0].pid)
    assert code == 0
    assert found["groups"] == 1
    assert found["channels"] == [8]
    assert found["ms"] < 50
    assert found["again_ms"] < found["ms"]


def test_the_log_accounts_for_the_whole_card(tenants):
    code, [watched] = nvprobe("watch", 2)
    assert code == 0
    assert watched["dropped"] == 0
    assert {t["pid"] for t in watched["tenants"]} == {t.pid for t in tenants}
    assert watched["used_percent"] > 90


@pytest.mark.parametrize("percent", [10, 30, 70])
def test_a_limit_holds_to_a_third_of_a_point(tenants, percent):
    other = tenants[1]
    assert nvprobe("stop", other.pid)[0] == 0
    try:
        code, [_, run] = nvprobe("limit", tenants[0].pid, percent, 4, 30)
    finally:
        assert nvprobe("resume", other.pid)[0] == 0
    assert code == 0
    [held] = [t for t in run["tenants"] if t["pid"] == tenants[0].pid]
    assert abs(held["percent_of_time"] - percent) < 0.3


@pytest.mark.parametrize("first", [10, 30, 50])
def test_turns_share_the_card_as_asked(tenants, first):
    code, lines = nvprobe("share", 6, 20, f"{tenants[0].pid}:{first}", f"{tenants[1].pid}:{100 - first}")
    assert code == 0
    held = {t["pid"]: t["percent_of_use"] for t in lines[-1]["tenants"]}
    assert abs(held[tenants[0].pid] - first) < 0.5
    assert lines[-1]["used_percent"] > 98


def test_a_time_slice_that_somebody_changed_reads_back_changed(tenants):
    assert nvprobe("timeslice", tenants[0].pid, 4000)[1][-1]["timeslice_us"] == 4000
    assert nvprobe("timeslice", tenants[0].pid, 900)[1][-1]["timeslice_us"] == 900
    assert nvprobe("timeslice", tenants[0].pid)[1][-1]["timeslice_us"] == 900


def test_a_stop_outlives_who_stopped_and_anybody_can_resume(tenants):
    assert nvprobe("stop", tenants[0].pid)[0] == 0
    assert tenants[0].rate() == 0
    assert nvprobe("resume", tenants[0].pid)[0] == 0
    assert tenants[0].rate() > 0


def test_a_tenant_killed_while_stopped_leaves_nothing(tenants, tmp_path):
    def used_mib():
        command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[0])

    before = used_mib()
    third = Tenant(tmp_path).wait()
    assert nvprobe("stop", third.pid)[0] == 0
    assert used_mib() > before
    third.end()
    until = time.monotonic() + 2
    while used_mib() > before + 16:
        assert time.monotonic() < until
    assert tenants[0].rate() > 0
