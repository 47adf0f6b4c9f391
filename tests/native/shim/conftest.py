"""A driver that can be capped, and tenant directories, for tests of the shim."""

import json
import mmap
import os
import re
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from flexai_native import library, program

from flexai.wire import region
from flexai.wire.region import Ledger, Limits, Slot

HERE = Path(__file__).parent
UUID = "GPU-00112233-4455-6677-8899-aabbccddeeff"  # what stub_cuda.c says
NATIVE = HERE.parents[2] / "native"
GEN = NATIVE / "gen"
GIB = 1 << 30
CAP = 2 * GIB
SIMCARD = program("flexai-simcard")


@pytest.fixture(scope="session")
def stub(tmp_path_factory) -> Path:
    """The stub driver, built."""
    path = tmp_path_factory.mktemp("stub") / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-o", path, HERE / "stub_cuda.c"], check=True, capture_output=True
    )
    return path


def compile_shim(library_name: str, soname: str, folder: Path, compiler: list[object], *flags: str) -> Path:
    """A shim built from its sources with another compiler or other flags than the installed one."""
    prefix = library_name.removeprefix("shim_")
    emit = [sys.executable, GEN / "shim.py", "emit", GEN / f"{prefix}_symbols.txt", prefix, folder]
    subprocess.run([*emit, *([GEN / "cuda_versions.txt"] if prefix == "cuda" else [])], check=True)
    cmake = (NATIVE / "shim/CMakeLists.txt").read_text()
    listed = re.search(rf"add_library\({library_name} SHARED \S+ ([^)]+)\)", cmake)[1].split()
    folders = [folder, NATIVE / "shim", NATIVE.parent / "api", NATIVE / "include"]
    done = subprocess.run(
        [*compiler, "-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-D_GNU_SOURCE",
         '-DFX_BUILD="test"', *flags,
         *(f"-I{each}" for each in folders), f"-Wl,-soname,{soname}", "-o", folder / soname,
         folder / f"{prefix}_trampolines.S", folder / f"{prefix}_names.c", *(NATIVE / "shim" / name for name in listed),
         "-ldl", "-lpthread"],
        capture_output=True, text=True, timeout=280, check=False, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / soname


class Tenant:
    """One tenant on one stub card."""

    def __init__(self, root: Path, stub: Path, cap: int, capacity: int) -> None:
        self.dir, self.card = root / "tenant", root / "card"
        self.dir.mkdir()
        (self.dir / "policy").write_bytes(region.policy_image("t1"))
        (self.dir / "ledger").write_bytes(region.ledger_image())
        self.limit(cap)
        self.started: list[subprocess.Popen[str]] = []
        self.card.write_bytes(struct.pack("<Q", capacity) + bytes(64 * 16))
        self.env = {
            **os.environ,
            "LD_PRELOAD": str(library("shim/libcuda.so.1")),
            "FLEXAI_TENANT_DIR": str(self.dir),
            "FLEXAI_REAL_CUDA": str(stub),
            "STUB_LEDGER": str(self.card),
            "PYTHONPATH": str(HERE),
        }

    def limit(self, cap: int) -> None:
        """Change the cap in place, as the agent does."""
        with (self.dir / "policy").open("r+b") as file, mmap.mmap(file.fileno(), 0) as policy:
            region.write_limits(policy, [Limits(UUID, cap, 500, 500)])

    def ledger(self) -> Ledger:
        """What the tenant's processes have charged."""
        return region.decode_ledger((self.dir / "ledger").read_bytes())

    def reap(self, slots: tuple[Slot, ...]) -> int:
        """Have slots released, as the agent does."""
        wanted = [f"{slot.index}:{slot.pid}:{slot.start_ticks}" for slot in slots]
        return int(subprocess.check_output([program("flexai-reap"), self.dir, *wanted]))

    def held(self) -> int:
        """Bytes that the card says living processes hold."""
        data = self.card.read_bytes()
        slots = struct.iter_unpack("<qQ", data[8 : 8 + 64 * 16])
        return sum(n for pid, n in slots if pid and Path(f"/proc/{pid}").exists())

    def python(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program in the tenant; it has `cuda` (the loaded library) and `check`."""
        return subprocess.run(
            [sys.executable, "-c", f"from driver import *\n{code}"],
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self, code: str) -> subprocess.Popen[str]:
        """As `python`, left running, with pipes."""
        process = subprocess.Popen(
            [sys.executable, "-c", f"from driver import *\n{code}"],
            env=self.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """Nothing of it is left."""
        for process in self.started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def tenant(tmp_path, stub):
    """A tenant capped to 1 GiB on a card of 4 GiB."""
    made = Tenant(tmp_path, stub, cap=1 * GIB, capacity=4 * GIB)
    yield made
    made.end()


def until(condition, timeout_s: float = 15.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.05)


class Card:
    """Three simulated cards and one tenant: on the second, and with two caps on the first as well, in this order."""

    def __init__(self, folder: Path, caps: tuple[int, ...] = (CAP,), *options: str) -> None:
        self.socket, self.dir = folder / "s", folder / "t"
        self.daemon = subprocess.Popen(
            [SIMCARD, "--socket", self.socket, "--cards", "h200:3", *options], stdout=subprocess.PIPE, text=True
        )
        self.started: list[subprocess.Popen[str]] = []
        self.daemon.stdout.readline()
        self.uuids = [self.look(1)["uuid"], self.look(0)["uuid"]]
        self.uuid = self.uuids[0]
        self.dir.mkdir()
        (self.dir / "policy").write_bytes(region.policy_image("t1"))
        (self.dir / "ledger").write_bytes(region.ledger_image())
        self.limit(*caps)
        shims = [library(f"shim/{name}") for name in ("libcuda.so.1", "libnvidia-ml.so.1")]
        self.env = {
            **os.environ,
            "LD_PRELOAD": ":".join(map(str, shims)),
            "FLEXAI_TENANT_DIR": str(self.dir),
            "FLEXAI_SIMCARD": str(self.socket),
            "FLEXAI_REAL_CUDA": str(library("simcard/libcuda.so.1")),
            "FLEXAI_REAL_NVML": str(library("simcard/libnvidia-ml.so.1")),
            "CUDA_VISIBLE_DEVICES": ",".join(self.uuids[: len(caps)]),
            "PYTHONPATH": str(Path(__file__).parent),
        }

    def limit(self, *caps: int, context_bytes: int = 0) -> None:
        """Write the caps, as the agent does, and what a context takes, if it knows that."""
        uuids = self.uuids[: len(caps)]
        limits = [region.Limits(*pair, 500, 500, context_bytes=context_bytes) for pair in zip(uuids, caps, strict=True)]
        with (self.dir / "policy").open("r+b") as file, mmap.mmap(file.fileno(), 0) as policy:
            region.write_limits(policy, limits)

    def look(self, card: int) -> dict:
        """What the card says of itself."""
        said = subprocess.check_output([SIMCARD, "--socket", self.socket, "show"], text=True)
        return json.loads(said.splitlines()[card])

    def used(self) -> int:
        return self.look(1)["used_bytes"]

    def start(self, code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"from driver import *\nopen_card()\n{code}"],
            env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, code: str) -> str:
        return self.start(code).communicate(timeout=60)[0]

    def charged(self) -> int:
        return region.decode_ledger((self.dir / "ledger").read_bytes()).charged_bytes[0]

    def reap(self) -> None:
        """Take back what dead processes charged, as the agent does."""
        slots = region.decode_ledger((self.dir / "ledger").read_bytes()).slots
        dead = [f"{s.index}:{s.pid}:{s.start_ticks}" for s in slots if not Path(f"/proc/{s.pid}").exists()]
        subprocess.run([program("flexai-reap"), self.dir, *dead], check=True, capture_output=True)

    def end(self) -> None:
        for process in [*self.started, self.daemon]:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


@pytest.fixture
def card():
    with tempfile.TemporaryDirectory(prefix="fx") as folder:
        made = Card(Path(folder))
        yield made
        made.end()
