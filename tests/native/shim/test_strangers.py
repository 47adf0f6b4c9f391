"""Programs that nobody here wrote, in a slice of two cards that the tenant numbers its own way, and outside of any."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from flexai_native import library

from .conftest import GIB, Card

MIB = 1 << 20


@pytest.fixture(scope="module")
def card():
    """A tenant with 2 GiB of the second card, its 0, and 1 GiB of the first, its 1; the third is not its."""
    with tempfile.TemporaryDirectory(prefix="fx") as folder:
        made = Card(Path(folder), caps=(2 * GIB, GIB))
        yield made
        made.end()


def outside(card: Card) -> dict[str, str]:
    env = {k: v for k, v in card.env.items() if k not in {"LD_PRELOAD", "FLEXAI_TENANT_DIR", "CUDA_VISIBLE_DEVICES"}}
    return env | {"LD_LIBRARY_PATH": str(library("simcard/libcuda.so.1").parent)}


def python(card: Card, code: str, env: dict[str, str] | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=env or card.env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BINDINGS = """
from cuda.bindings import driver as d
def ok(result):
    assert result[0] == d.CUresult.CUDA_SUCCESS, result
    return result[1] if len(result) == 2 else result[1:]
ok(d.cuInit(0)); n = ok(d.cuDeviceGetCount()); print(n)
for i in range(n):
    device = ok(d.cuDeviceGet(i)); ok(d.cuCtxSetCurrent(ok(d.cuDevicePrimaryCtxRetain(device))))
    total = ok(d.cuDeviceTotalMem(device)); code, at = d.cuMemAlloc(total - (300 << 20)); first = code.value
    code, _ = d.cuMemAlloc(600 << 20)
    print(i, total >> 20, [x >> 20 for x in ok(d.cuMemGetInfo())], first, code.name)
"""


def test_cuda_bindings_see_each_cards_own_slice(card):
    free = (300 - 64, "CUDA_ERROR_OUT_OF_MEMORY")
    assert python(card, BINDINGS) == [
        "2", f"0 2048 [{free[0]}, 2048] 0 {free[1]}", f"1 1024 [{free[0]}, 1024] 0 {free[1]}",
    ]  # fmt: skip
    assert python(card, BINDINGS, outside(card))[0] == "3"
    assert card.look(0)["most_used_bytes"] > 100 * GIB  # outside, the card is the limit


MANAGEMENT = """
import pynvml as n
n.nvmlInit(); cards = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
for i, c in enumerate(cards):
    assert n.nvmlDeviceGetIndex(c) == i
    m, v = n.nvmlDeviceGetMemoryInfo(c), n.nvmlDeviceGetMemoryInfo(c, n.nvmlMemory_v2)
    print(n.nvmlDeviceGetUUID(c), m.total >> 20, m.used >> 20, v.total >> 20, v.used >> 20,
          len(n.nvmlDeviceGetComputeRunningProcesses(c)))
"""


def test_nvidia_ml_py_sees_the_cards_their_slices_and_the_tenants_processes(card):
    stranger = subprocess.Popen(
        [sys.executable, "-c", "from driver import *\nopen_card(); alloc(GIB); print('up', flush=True); input()"],
        env=outside(card), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    card.started.append(stranger)
    stranger.stdout.readline()
    holder = card.start("alloc(500 * MIB); print('up', flush=True); input()")
    holder.stdout.readline()
    first, second = card.uuid, card.look(0)["uuid"]
    assert python(card, MANAGEMENT) == [f"{first} 2048 564 2048 564 1", f"{second} 1024 0 1024 0 0"]
    shown = python(card, MANAGEMENT, outside(card))
    assert [line.split()[-1] for line in shown] == ["1", "1", "0"]
    assert shown[0].split()[1] == str(141 << 10)


def test_nvitop_shows_the_slices_as_cards(card):
    holder = card.start("alloc(500 * MIB); print('up', flush=True); input()")
    holder.stdout.readline()
    nvitop = [Path(sys.executable).with_name("nvitop"), "--once", "--no-unicode"]
    inside = subprocess.run(
        nvitop, env=card.env | {"COLUMNS": "120"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert inside.returncode == 0, inside.stderr
    rows = [line for line in inside.stdout.splitlines() if " / " in line and "MiB" in line]
    assert ["/ 2048MiB" in rows[0], "/ 1024MiB" in rows[1], len(rows)] == [True, True, 2], inside.stdout
    assert str(holder.pid) in inside.stdout


def test_the_cuda_runtime_is_told_the_truth_by_the_simulated_driver(card):
    """It wants functions that NVIDIA documents nowhere and that are not simulated: a plain error, and no crash."""
    code = """
import ctypes, importlib.metadata
path = next(f.locate() for f in importlib.metadata.files("nvidia-cuda-runtime") if "libcudart.so" in f.name)
runtime, n = ctypes.CDLL(str(path)), ctypes.c_int()
print(runtime.cudaGetDeviceCount(ctypes.byref(n)), n.value)
"""
    assert python(card, code) == python(card, code, outside(card)) == ["801 0"]
