"""The gate of the lease backend, with the test in the part of the arbiter."""

import ctypes
import mmap
import struct
import time

import pytest

from flexai.wire import region

LEASE = 1
CARD = region.HEAD.size
BACKEND, GATE, WINDOW = CARD + 84, CARD + 88, CARD + 96
HEARTBEAT = 88
FUTEX_WAKE, SYS_FUTEX = 1, {"x86_64": 202, "aarch64": 98}
WAITING_ON = 7 + 3 * 16 + 1 + 16  # place of waiting_on[0] among the words of a slot


class Arbiter:
    """Writes the words that the arbiter writes."""

    def __init__(self, directory) -> None:
        self.dir, self.generation = directory, 0
        with (directory / "policy").open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), 0)
        self.word(BACKEND, LEASE)
        self.beat()

    def word(self, at: int, value: int) -> None:
        struct.pack_into("<I", self.map, at, value)
        view = (ctypes.c_char * 4).from_buffer(self.map, at)
        import platform

        ctypes.CDLL(None).syscall(SYS_FUTEX[platform.machine()], view, FUTEX_WAKE, 1 << 30, None, None, 0)
        del view

    def beat(self, age_s: float = 0.0) -> None:
        struct.pack_into("<Q", self.map, HEARTBEAT, time.monotonic_ns() - int(age_s * 1e9))

    def gate(self, opened: bool) -> int:
        """Open or close; returns the generation."""
        self.generation += 1
        self.word(GATE, self.generation << 1 | opened)
        return self.generation

    def slot(self) -> tuple[int, ...]:
        """The words of the first process."""
        data = (self.dir / "ledger").read_bytes()
        return region.SLOT.unpack_from(data, region.LEDGER_HEAD.size)

    def demand(self) -> int:
        return region.LEDGER_HEAD.unpack_from((self.dir / "ledger").read_bytes())[3 + 48]

    def until(self, condition, timeout_s: float = 5.0) -> float:
        """Wait for it, heart beating; returns how long it took in seconds."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() - begin < timeout_s, "did not happen in time"
            self.beat()
            time.sleep(0.001)
        return time.monotonic() - begin


@pytest.fixture
def arbiter(tenant):
    made = Arbiter(tenant.dir)
    yield made
    made.map.close()


LAUNCH = """
check(cuda.cuInit(0))
def launch(us, stream=0): check(cuda.cuLaunchKernel(0, us, 1, 1, 1, 1, 1, 0, c_void_p(stream), 0, 0))
launch(0)
print('up', flush=True)
import sys, time
"""


def begin(tenant, code):
    one = tenant.start(LAUNCH + code)
    assert one.stdout.readline() == "up\n"
    return one


def said(one) -> str:
    return one.stdout.readline().strip()


def tell(one) -> None:
    one.stdin.write("\n")
    one.stdin.flush()


@pytest.mark.parametrize(
    "call",
    [
        "launch(0)",
        "cuda.cuLaunchKernel_ptsz(*[0] * 11)",
        "cuda.cuGraphLaunch(0, 0)",
    ],
)
def test_a_closed_gate_holds_every_kind_of_launch_until_it_opens(tenant, arbiter, call):
    one = begin(tenant, f"input(); {call}; print('through', flush=True); input()")
    arbiter.gate(opened=False)
    before = arbiter.demand()
    tell(one)
    arbiter.until(lambda: arbiter.slot()[5] == 1 and arbiter.slot()[WAITING_ON] == 1)
    assert arbiter.demand() > before
    time.sleep(0.15)
    arbiter.beat()
    assert arbiter.slot()[5] == 1
    arbiter.gate(opened=True)
    assert arbiter.until(lambda: arbiter.slot()[5] == 0) < 0.04  # woken, not timed out
    assert said(one) == "through"


def test_a_close_is_answered_when_the_work_has_ended_and_not_before(tenant, arbiter):
    one = begin(tenant, "input(); launch(400_000); print('sent', flush=True); input()")
    arbiter.until(lambda: arbiter.slot()[6] & region.SLOT_DRAINS)
    tell(one)
    assert said(one) == "sent"
    sent = time.monotonic()
    generation = arbiter.gate(opened=False)
    drained = lambda: arbiter.slot()[7 + 16 + 16] == generation  # noqa: E731
    arbiter.until(drained)
    assert 0.3 < time.monotonic() - sent < 1.0


def test_an_arbiter_that_is_late_holds_nobody(tenant, arbiter):
    one = begin(tenant, "input(); t = time.monotonic(); launch(0); print(time.monotonic() - t, flush=True); input()")
    arbiter.gate(opened=False)
    arbiter.beat()
    tell(one)
    assert 0.8 < float(said(one)) < 1.5


def test_with_another_backend_the_gate_does_not_count(tenant, arbiter):
    arbiter.word(BACKEND, 2)
    one = begin(tenant, "input(); launch(0); print('through', flush=True); input()")
    arbiter.gate(opened=False)
    tell(one)
    assert said(one) == "through"


def test_a_process_with_collectives_is_never_held(tenant, arbiter):
    one = begin(
        tenant,
        "f = c_void_p(); check(cuda.cuModuleGetFunction(byref(f), 0, b'ncclDevKernel_AllReduce_Sum_f32'))\n"
        "print('found', flush=True); input(); launch(0); print('through', flush=True); input()",
    )
    assert said(one) == "found"
    arbiter.gate(opened=False)
    arbiter.beat()
    tell(one)
    assert said(one) == "through"
    assert tenant.ledger().slots[0].flags & region.SLOT_COLLECTIVE


def test_the_window_bounds_what_is_queued_and_the_work_goes_on(tenant, arbiter):
    arbiter.word(WINDOW, 5000)
    one = begin(
        tenant,
        "t = time.monotonic()\nfor _ in range(300): launch(1000)\n"
        "print(time.monotonic() - t, flush=True)\n"
        "check(cuda.cuCtxSynchronize()); print(time.monotonic() - t, flush=True)\n"
        "input()",
    )
    most = []

    def sample() -> bool:
        most.append(arbiter.slot()[7 + 16])
        return len(most) >= 120

    arbiter.until(sample)
    launching, all_done = float(said(one)), float(said(one))
    assert launching > 0.27  # unpaced, it would be nothing
    assert all_done < 10  # and the work went on (0.3 where nothing else runs on the machine)
    # 5 ms of 1 ms each, one running, and what was sent since the last look, which a busy machine takes late
    assert sorted(most[20:])[len(most[20:]) // 2] <= 8


def test_a_queue_that_ran_empty_is_told(tenant, arbiter):
    arbiter.word(WINDOW, 5000)
    one = begin(tenant, "launch(50_000); print('sent', flush=True); input(); launch(50_000); input()")
    assert said(one) == "sent"
    arbiter.until(lambda: arbiter.slot()[7 + 16] == 0, 1.0)
    before = arbiter.demand()
    tell(one)
    arbiter.until(lambda: arbiter.slot()[7 + 16] == 1, 1.0)
    took = arbiter.until(lambda: arbiter.demand() > before, 1.0)
    assert took < 0.2
    assert arbiter.slot()[7 + 16] == 0


def test_threads_wait_together_and_go_on_together(tenant, arbiter):
    one = begin(
        tenant,
        "import threading; input()\n"
        "many = [threading.Thread(target=launch, args=(0, n + 16)) for n in range(8)]\n"
        "[t.start() for t in many]; [t.join() for t in many]; print('all', flush=True); input()",
    )
    arbiter.gate(opened=False)
    tell(one)
    arbiter.until(lambda: arbiter.slot()[5] == 8)
    arbiter.gate(opened=True)
    assert said(one) == "all"
    assert arbiter.slot()[5] == 0
