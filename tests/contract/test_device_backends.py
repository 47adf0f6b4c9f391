"""Every device backend keeps the contract; the README's matrix is what the suite found."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import flexai_native
import pytest

from flexai.adapters.fake.backend import FakeBackend
from flexai.ports import DeviceProcess
from flexai.testing.device_contract import Holder, matrix, run

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "docs" / "benchmarks" / "contract-nvidia.json"
HOLD = 64 * 2**20

# NVML is one library per process, so each NVML backend is put through the suite in a process of its own.
CHILD = """
import json, os, sys, subprocess, time
from pathlib import Path
from flexai.adapters.nvidia.backend import NvidiaBackend
from flexai.testing.device_contract import Holder, run
import flexai_native
library, simcard = (Path(text) if text else None for text in sys.argv[1:3])
least = int(sys.argv[3])
backend = NvidiaBackend(library, simcard)
environment = dict(os.environ)
if simcard:
    environment.update(FLEXAI_SIMCARD=str(simcard), LD_LIBRARY_PATH=str(library.parent))
command = [flexai_native.program("flexai-workload"), "flood", "--memory", str(least), "--seconds", "60"]
holder = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
try:
    uuid = backend.devices()[0].uuid
    for _ in range(400):
        shown = [one.used_bytes for one in backend.processes() if one.pid == holder.pid]
        if any(used < 0 or used >= least for used in shown):
            break
        time.sleep(0.05)
    print(json.dumps(run(backend, Holder(holder.pid, uuid, least)), indent=2))
finally:
    holder.kill(); holder.wait(); backend.close()
"""


def in_a_process(library, simcard):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, library, simcard, str(HOLD)],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fake():
    backend = FakeBackend("h200:2")
    uuid = backend.devices()[0].uuid
    backend.shown.append(DeviceProcess(uuid, 4242, HOLD))
    return run(backend, Holder(4242, uuid, HOLD))


@pytest.fixture(scope="module")
def simulated():
    with tempfile.TemporaryDirectory(prefix="fx") as folder:
        socket = Path(folder) / "s"
        daemon = subprocess.Popen(
            [flexai_native.program("flexai-simcard"), "--socket", socket, "--cards", "h200:2"], stdout=subprocess.PIPE
        )
        assert daemon.stdout.readline()
        try:
            yield in_a_process(str(flexai_native.library("simcard/libnvidia-ml.so.1")), str(socket))
        finally:
            daemon.terminate()
            daemon.wait()
            daemon.stdout.close()


def test_the_fake_keeps_the_contract():
    assert fake()["lists cards"] == "yes"


def test_the_simulated_card_keeps_the_contract_through_its_nvml(simulated):
    assert simulated["sees processes and their memory"] == "yes"
    assert simulated["shows tenants only their cards"] == "yes"


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA card")
def test_a_real_nvidia_card_keeps_the_contract():
    found = in_a_process("", "")
    assert found["sees processes and their memory"] == "yes"
    out = os.environ.get("FLEXAI_CONTRACT_OUT")
    if out:
        Path(out).write_text(json.dumps(found, indent=2) + "\n")


def test_the_readme_shows_what_the_suite_found(simulated):
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else None
    table = matrix({"simulated card": simulated, "NVIDIA (H200)": kept})
    assert table in (ROOT / "README.md").read_text(), f"put this table into the README:\n{table}"


def test_a_backend_that_was_not_run_is_no_yes_in_the_matrix(simulated):
    assert [line.split("|")[3].strip() for line in matrix({"a": simulated, "b": None}).splitlines()[2:]] == [
        "not yet run"
    ] * len(simulated)
