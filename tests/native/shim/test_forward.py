"""The shim as a library: what it exports and needs, and that calls arrive as they were made."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flexai_native import library

ROOT = Path(__file__).parents[3]
SHIM = library("shim/libcuda.so.1")


def out(*command: object) -> str:
    return subprocess.check_output([str(part) for part in command], text=True)


@pytest.mark.parametrize("shim", [SHIM, library("shim/libnvidia-ml.so.1")], ids=lambda path: path.name)
def test_it_loads_into_a_container_with_glibc_2_17(shim):
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", out("objdump", "-T", shim))}
    assert max(versions) <= (2, 17)


@pytest.mark.parametrize("shim", [SHIM, library("shim/libnvidia-ml.so.1")], ids=lambda path: path.name)
def test_it_needs_libc_alone_and_is_named_as_the_vendors_library(shim):
    dynamic = out("readelf", "-d", shim)
    # libdl and libpthread are parts of glibc: empty since 2.34.
    assert set(re.findall(r"NEEDED.*\[(.+)]", dynamic)) == {"libc.so.6", "libdl.so.2", "libpthread.so.0"}
    assert re.findall(r"SONAME.*\[(.+)]", dynamic) == [shim.name]


def test_every_listed_symbol_and_nothing_else_is_exported():
    listed = set()
    for line in (ROOT / "native/gen/cuda_symbols.txt").read_text().splitlines():
        if line.startswith(" "):
            listed.update(line.split())
    exported = {line.split()[-1] for line in out("nm", "-D", "--defined-only", SHIM).splitlines()}
    assert exported == listed | {"flexai_shim_build"}


def test_the_reference_page_is_the_list():
    lists = sorted((ROOT / "native/gen").glob("*_symbols.txt"))
    page = out(sys.executable, ROOT / "native/gen/shim.py", "table", *lists)
    assert (ROOT / "docs/reference/symbols.md").read_text() == page


def test_a_header_with_a_function_in_no_block_is_refused(tmp_path):
    header = tmp_path / "cuda.h"
    header.write_text("CUresult CUDAAPI cuInit(unsigned);\nCUresult CUDAAPI cuBrandNew(int x);\n")
    done = subprocess.run(
        [sys.executable, ROOT / "native/gen/shim.py", "check", ROOT / "native/gen/cuda_symbols.txt", header],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("in no block: cuBrandNew")


def test_without_a_tenant_calls_reach_the_driver_unchanged(tenant):
    done = tenant.python(
        "import ctypes\n"
        "check(cuda.cuInit(0))\n"
        "check(cuda.cuMemcpy3DPeer(*[c_uint64(i) for i in range(1, 9)]))\n"
        "check(cuda.cuMemcpy3DPeer(*[c_uint64(i) for i in range(1, 9)]))\n"
        "check(cuda.cuParamSetf(None, 7, ctypes.c_float(1.5)))\n"
        "print(cuda.cuMemcpy3DPeer(*[c_uint64(i) for i in range(8)]), cuda.cuMemMapArrayAsync(0, 0, 0))\n"
        "print(alloc(2 * GIB) is not None, mem_info()[1] // GIB)",
        FLEXAI_TENANT_DIR="",
    )
    assert done.stdout.splitlines() == ["1 801", "True 4"], done.stderr


def test_without_a_driver_there_is_no_device_and_no_crash(tenant, tmp_path):
    done = tenant.python("print(cuda.cuInit(0))", FLEXAI_REAL_CUDA=str(tmp_path / "none.so"))
    assert done.stdout == "100\n"
    assert "none.so" in done.stderr


def test_the_shim_is_never_taken_for_the_driver(tenant):
    done = tenant.python("print(cuda.cuInit(0))", FLEXAI_REAL_CUDA=str(SHIM), LD_LIBRARY_PATH=str(SHIM.parent))
    assert done.stdout == "100\n", done.stderr


def test_the_driver_is_found_behind_the_shim(tenant, stub):
    done = tenant.python("print(cuda.cuInit(0))", FLEXAI_REAL_CUDA="", LD_LIBRARY_PATH=f"{SHIM.parent}:{stub.parent}")
    assert done.stdout == "0\n", done.stderr


def test_get_proc_address_answers_with_our_functions(tenant):
    done = tenant.python(
        "check(cuda.cuInit(0))\n"
        "for name, version, ours in [('cuMemAlloc', 13000, 'cuMemAlloc_v2'), ('cuMemAlloc', 3000, 'cuMemAlloc'),"
        " ('cuMemFree', 13000, 'cuMemFree_v2'), ('cuLaunchKernel', 13000, 'cuLaunchKernel')]:\n"
        " print(proc(name, version) == address_of(ours))\n"
        "import ctypes; print(ctypes.CFUNCTYPE(c_int)(proc('cuFutureThing'))(), proc('cuDriverGetVersion') != 0)"
    )
    assert done.stdout.split() == ["True", "True", "True", "True", "77", "True"], done.stderr


def test_a_process_that_uses_no_card_pays_next_to_nothing(tenant):
    def best(env) -> float:
        times = []
        for _ in range(15):
            before = time.perf_counter()
            subprocess.run(["/bin/true"], env=env, check=True)
            times.append(time.perf_counter() - before)
        return min(times)

    plain = best({**os.environ, "LD_PRELOAD": ""})
    assert best(tenant.env) - plain < 0.005
