"""The shim built for hosts other than this one: an old glibc, and Arm. The compiler is zig's, from PyPI."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import GEN, compile_shim


@pytest.mark.slow
@pytest.mark.parametrize("target", ["x86_64-linux-gnu.2.17", "aarch64-linux-gnu.2.17"])
@pytest.mark.parametrize(("library", "soname"), [("shim_cuda", "libcuda.so.1"), ("shim_nvml", "libnvidia-ml.so.1")])
def test_it_builds_for_glibc_2_17_on_both_processors_and_needs_no_more(tmp_path, target, library, soname):
    uv = Path(sys.executable).with_name("uv")
    zig = [
        uv,
        "run",
        "--quiet",
        "--no-project",
        "--with",
        "ziglang",
        "python",
        "-m",
        "ziglang",
        "cc",
        "-target",
        target,
    ]
    out = compile_shim(library, soname, tmp_path, zig, "-O2", "-fno-plt", "-Wall", "-Wextra", "-Werror")
    shown = subprocess.check_output(["readelf", "--wide", "-d", "-V", "-s", "-h", out], text=True)
    assert ("AArch64" in shown) == target.startswith("aarch64")
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([\d.]+)", shown)}
    assert versions
    assert max(versions) <= (2, 17)
    needed = set(re.findall(r"NEEDED.*\[(.+)]", shown))
    assert needed <= {"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-aarch64.so.1"}
    names = {line.split()[-1] for line in shown.splitlines() if " GLOBAL DEFAULT " in line and " UND " not in line}
    rows = (GEN / f"{library.removeprefix('shim_')}_symbols.txt").read_text().splitlines()
    assert {name for row in rows if row[:1] == " " for name in row.split()} - names == set()
