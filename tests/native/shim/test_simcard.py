"""The shim on the simulated card: the cap by the card's own books, contexts and every allocation path included."""

import json
import mmap
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flexai_native
import pytest

from flexai.wire import region

MIB, GIB = 1 << 20, 1 << 30
CAP = 2 * GIB
SIMCARD = flexai_native.program("flexai-simcard")


class Card:
    """A simulated card and one tenant on the second of two."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.dir = folder / "s", folder / "t"
        self.daemon = subprocess.Popen(
            [SIMCARD, "--socket", self.socket, "--cards", "h200:2"], stdout=subprocess.PIPE, text=True
        )
        self.started: list[subprocess.Popen[str]] = []
        self.daemon.stdout.readline()
        self.uuid = self.look(1)["uuid"]
        self.dir.mkdir()
        (self.dir / "policy").write_bytes(region.policy_image("t1"))
        (self.dir / "ledger").write_bytes(region.ledger_image())
        with (self.dir / "policy").open("r+b") as file, mmap.mmap(file.fileno(), 0) as policy:
            region.write_limits(policy, [region.Limits(self.uuid, CAP, 500, 500)])
        shims = [flexai_native.library(f"shim/{name}") for name in ("libcuda.so.1", "libnvidia-ml.so.1")]
        self.env = {
            **os.environ,
            "LD_PRELOAD": ":".join(map(str, shims)),
            "FLEXAI_TENANT_DIR": str(self.dir),
            "FLEXAI_SIMCARD": str(self.socket),
            "FLEXAI_REAL_CUDA": str(flexai_native.library("simcard/libcuda.so.1")),
            "FLEXAI_REAL_NVML": str(flexai_native.library("simcard/libnvidia-ml.so.1")),
            "CUDA_VISIBLE_DEVICES": self.uuid,
            "PYTHONPATH": str(Path(__file__).parent),
        }

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


def test_a_context_is_charged_as_the_card_counts_it_and_the_second_before_it_is_made(card):
    out = card.run("print(mem_info()[0] // MIB, mem_info()[1] // MIB, flush=True)")
    context = 2048 - int(out.split()[0])
    assert context == 64  # of the simulated card
    first = card.start("alloc(1950 * MIB); print('up', flush=True); input()")
    first.stdout.readline()
    assert card.charged() == card.used() == (1950 + 64) * MIB
    second = card.run("print('made')")  # 34 MiB are left
    assert second == "", "the context does not fit and is refused"
    assert card.used() == card.charged() == (1950 + 64) * MIB


def test_every_path_is_held_to_the_cap_by_the_cards_books(card):
    code = """
import sys, random
print('up', flush=True); chance = random.Random(int(sys.stdin.readline()))
plain, async_, physical = [], [], []
prop = (ctypes.c_int * 8)(1, 0, 1, 0, 0, 0, 0, 0)
def vmm(size):
    h = c_uint64()
    code = cuda.cuMemCreate(byref(h), c_size_t(size), prop, c_uint64(0))
    if code == 2: return None
    check(code); at = c_uint64()
    check(cuda.cuMemAddressReserve(byref(at), c_size_t(size), c_size_t(0), c_uint64(0), c_uint64(0)))
    check(cuda.cuMemMap(at, c_size_t(size), c_size_t(0), h, c_uint64(0)))
    check(cuda.cuMemRelease(h))   # the mapping keeps it
    return at.value, size
def drop():
    kind = chance.choice([k for k in (plain, async_, physical) if k])
    one = kind.pop(chance.randrange(len(kind)))
    if kind is plain: free(one)
    elif kind is async_: check(cuda.cuMemFreeAsync(c_uint64(one), None))
    else:
        check(cuda.cuMemUnmap(c_uint64(one[0]), c_size_t(one[1])))
        check(cuda.cuMemAddressFree(c_uint64(one[0]), c_size_t(one[1])))
for _ in range(300):
    if (plain or async_ or physical) and chance.random() < 0.4: drop(); continue
    way, size = chance.randrange(5), int(2 ** chance.uniform(9, 28.5))
    at, pitch = c_uint64(), c_size_t()
    if way == 0: one = alloc(size); one and plain.append(one)
    elif way == 1:
        if cuda.cuMemAllocManaged(byref(at), c_size_t(size), 1) == 0: plain.append(at.value)
    elif way == 2:
        if cuda.cuMemAllocPitch_v2(byref(at), byref(pitch), c_size_t(700), c_size_t(size // 700 + 1), 4) == 0:
            plain.append(at.value)
    elif way == 3:
        if cuda.cuMemAllocAsync(byref(at), c_size_t(size), None) == 0: async_.append(at.value)
    else:
        one = vmm((size // (2 * MIB) + 1) * 2 * MIB); one and physical.append(one)
while plain or async_ or physical: drop()
check(cuda.cuCtxSynchronize())
print('done', flush=True); sys.stdin.readline()
"""
    workers = [card.start(code) for _ in range(4)]
    for worker in workers:
        assert worker.stdout.readline() == "up\n"  # a late one would find no room for its context
    for seed, worker in enumerate(workers):
        worker.stdin.write(f"{seed}\n")
        worker.stdin.flush()
    most = 0
    for worker in workers:
        while True:
            most = max(most, card.used())
            if select.select([worker.stdout], [], [], 0)[0]:
                assert worker.stdout.readline() == "done\n"
                break
    assert most <= CAP
    assert most > CAP // 2
    assert region.decode_ledger((card.dir / "ledger").read_bytes()).n_refused[0] > 0
    assert card.used() == 4 * 64 * MIB  # the contexts
    time.sleep(1.2)
    assert card.charged() == 4 * 64 * MIB


def test_nearly_all_of_the_cap_can_be_had_and_a_kill_gives_it_back(card):
    code = "n = 0\nwhile alloc(2 * MIB): n += 1\nprint(n, flush=True); input()"
    first = card.start(code)
    assert int(first.stdout.readline()) * 2 * MIB >= 0.99 * (CAP - 64 * MIB)
    assert 0.99 * CAP <= card.used() <= CAP
    first.kill()
    first.wait()
    second = card.start(code)
    assert int(second.stdout.readline()) * 2 * MIB >= 0.99 * (CAP - 64 * MIB)
    assert card.used() <= CAP


def test_the_end_of_a_context_gives_back_what_was_allocated_in_it(card):
    out = card.run(
        "other = c_void_p(); check(cuda.cuCtxCreate_v2(byref(other), 0, 0)); alloc(500 * MIB)\n"
        "a = mem_info()[0]; check(cuda.cuCtxDestroy_v2(other)); open_card(); print((mem_info()[0] - a) // MIB)"
    )
    assert int(out) == 564


def test_nvidias_own_management_binding_sees_the_slice(card):
    out = card.run(
        "import pynvml as n; n.nvmlInit(); c = n.nvmlDeviceGetHandleByIndex(0); alloc(300 * MIB)\n"
        "m = n.nvmlDeviceGetMemoryInfo(c); print(n.nvmlDeviceGetCount(), m.total // MIB, m.used // MIB)"
    )
    assert out == "1 2048 364\n"
