"""Management programs inside a slice see the slice, by the vendor's own Python binding."""

import subprocess
from pathlib import Path

import pytest
from flexai_native import library

GIB = 1 << 30
UUID = "GPU-00112233-4455-6677-8899-aabbccddeeff"


@pytest.fixture(scope="module")
def management(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("stub") / "libnvidia-ml.so.1"
    source = Path(__file__).parent / "stub_nvml.c"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", path, source], check=True, capture_output=True)
    return path


@pytest.fixture
def managed(tenant, management):
    tenant.env["FLEXAI_REAL_NVML"] = str(management)
    tenant.env["LD_PRELOAD"] += f":{library('shim/libnvidia-ml.so.1')}"
    return tenant


ASK = """
import os, pynvml as n
n.nvmlInit()
cards = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
"""


def test_a_tenant_sees_its_cards_in_its_numbering(managed):
    code = ASK + (
        "one = cards[0]\n"
        "print([n.nvmlDeviceGetUUID(c) for c in cards], n.nvmlDeviceGetIndex(one), n.nvmlDeviceGetName(one))\n"
        "for ask in (lambda: n.nvmlDeviceGetHandleByIndex(1), lambda: n.nvmlDeviceSetPowerManagementLimit(one, 1),\n"
        "            lambda: n.nvmlDeviceGetHandleByUUID(b'GPU-ffffffff-0000-0000-0000-000000000000')):\n"
        "    try: ask(); print('allowed')\n"
        "    except n.NVMLError as e: print(e.value)"
    )
    inside = managed.python(code)
    assert inside.stdout.splitlines() == [f"['{UUID}'] 0 Stub", "2", "3", "6"], inside.stderr
    outside = managed.python(code, FLEXAI_TENANT_DIR="")
    assert outside.stdout.splitlines()[1:] == ["allowed", "allowed", "allowed"], outside.stderr


def test_the_memory_shown_is_the_cap_and_what_is_charged(managed):
    code = ASK + (
        "check(cuda.cuInit(0)); alloc(256 * MIB)\n"
        "for m in (n.nvmlDeviceGetMemoryInfo(cards[0]), n.nvmlDeviceGetMemoryInfo(cards[0], n.nvmlMemory_v2)):\n"
        "    print(m.total // MIB, m.used // MIB, m.free // MIB)"
    )
    done = managed.python(code)
    assert done.stdout.splitlines() == ["1024 256 768"] * 2, done.stderr


def test_processes_of_others_are_not_shown(managed):
    code = ASK + (
        "os.environ['STUB_PID'] = str(os.getpid()); check(cuda.cuInit(0))\n"
        "print([p.pid == os.getpid() for p in n.nvmlDeviceGetComputeRunningProcesses(cards[0])])"
    )
    assert managed.python(code).stdout == "[True]\n"
    assert managed.python(code, FLEXAI_TENANT_DIR="").stdout == "[False, True]\n"


def test_no_list_shows_what_processes_of_others_did(managed):
    code = ASK + (
        "me = os.getpid(); os.environ['STUB_PID'] = str(me); check(cuda.cuInit(0)); c = cards[len(cards) // 2]\n"
        "print([p.pid == me for p in n.nvmlDeviceGetProcessUtilization(c, 0)])\n"
        "use = n.c_nvmlProcessesUtilizationInfo_v1_t(version=n.ProcessesUtilizationInfo_v1, processSamplesCount=2)\n"
        "use.procUtilArray = (n.c_nvmlProcessUtilizationInfo_v1_t * 2)()\n"
        "n._nvmlGetFunctionPointer('nvmlDeviceGetProcessesUtilizationInfo')(c, byref(use))\n"
        "print([use.procUtilArray[i].pid == me for i in range(use.processSamplesCount)])\n"
        "found = n.c_nvmlProcessDetailList_v1_t(version=n.nvmlProcessDetailList_v1, numProcArrayEntries=2)\n"
        "found.procArray = (n.c_nvmlProcessDetail_v1_t * 2)()\n"
        "n._nvmlGetFunctionPointer('nvmlDeviceGetRunningProcessDetailList')(c, byref(found))\n"
        "print([found.procArray[i].pid == me for i in range(found.numProcArrayEntries)])\n"
        "print([pid == me for pid in n.nvmlDeviceGetAccountingPids(c)])\n"
        "try: n.nvmlDeviceGetAccountingStats(c, 1); print('shown')\n"
        "except n.NVMLError as e: print(e.value)"
    )
    inside = managed.python(code)
    assert inside.stdout.splitlines() == ["[True]"] * 4 + ["6"], inside.stderr
    outside = managed.python(code, FLEXAI_TENANT_DIR="")
    assert outside.stdout.splitlines() == ["[False, True]"] * 4 + ["shown"], outside.stderr


def test_what_the_driver_holds_beyond_the_allocations_is_charged(managed):
    code = (
        "import os, time; os.environ['STUB_PID'] = str(os.getpid()); os.environ['STUB_USED'] = str(600 * MIB)\n"
        "check(cuda.cuInit(0)); alloc(100 * MIB); time.sleep(0.8); print(mem_info()[0] // MIB)"
    )
    assert managed.python(code).stdout == "424\n"
    assert managed.ledger().charged_bytes[0] == 600 << 20


def test_the_name_without_a_number_is_the_same_library(managed):
    code = (
        "import ctypes; other = ctypes.CDLL('libcuda.so')\n"
        "print(ctypes.cast(other.cuInit, c_void_p).value == address_of('cuInit'))"
    )
    done = managed.python(code, LD_LIBRARY_PATH=str(library("shim/libcuda.so").parent))
    assert done.stdout == "True\n", done.stderr
