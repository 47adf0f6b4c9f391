"""The cores that need no driver, under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer."""

import mmap
import struct
import subprocess
from pathlib import Path

import pytest

from flexai.wire import region

ROOT = Path(__file__).parents[3]
SHIM = ROOT / "native/shim"
SOURCES = [SHIM / f"{name}.c" for name in ("tests/core_test", "region_core", "gate_core", "table")]


def build(out: Path, *flags: str) -> Path:
    # Without the binding to old glibc names: the sanitizers wrap the current ones.
    common = ["-std=gnu11", "-D_GNU_SOURCE", "-DFLEXAI_GLIBC_H", "-g", "-O1", f"-I{ROOT / 'api'}", f"-I{SHIM}"]
    subprocess.run(["gcc", *common, *flags, "-o", out, *SOURCES, "-lpthread"], check=True)
    return out


@pytest.fixture
def directory(tmp_path) -> Path:
    made = tmp_path / "tenant"
    made.mkdir()
    (made / "policy").write_bytes(region.policy_image("t"))
    with (made / "policy").open("r+b") as file, mmap.mmap(file.fileno(), 0) as policy:
        region.write_limits(policy, [region.Limits("GPU-x", 64 << 20, 500, 500)])
        struct.pack_into("<I", policy, region.HEAD.size + 84, 1)  # the lease backend
    (made / "ledger").write_bytes(region.ledger_image())
    return made


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_books_are_right_after_threads_processes_and_deaths(tmp_path, directory, sanitizer):
    program = build(tmp_path / "core", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    done = subprocess.run([program, directory], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr[-3000:]


@pytest.mark.parametrize("name", ["policy", "ledger"])
@pytest.mark.parametrize("at", [0, 7, 8, 12])
def test_a_spoilt_head_is_refused_by_the_c_side_with_a_sentence(tmp_path, directory, name, at):
    program = build(tmp_path / "core")
    data = bytearray((directory / name).read_bytes())
    data[at] ^= 0x40
    (directory / name).write_bytes(data)
    done = subprocess.run([program, directory], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 3
    assert name in done.stderr
    assert ("not a region file" in done.stderr) == (at < 8)
