"""Inside a slice: processes that allocate and free at random, then one that takes all it can get.

``python -m flexai.apps.bench.pool.alloc_tenant SEED SECONDS N_PROCESSES CAP_BYTES [PATHS]``; prints one line of JSON,
in it when each process had its context, made its last call and had ended (CLOCK_MONOTONIC, ns). Each begins to allocate
as soon as it has its context, and ends with all it holds, whatever the others do. PATHS are the kinds of calls by which
memory comes, with commas: plain (unless said), pitched, stream-ordered, physical. Managed memory is left out: more of
it than a card has free can take the card down for others.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_OUT_OF_MEMORY = 2
_PAGE = 2 << 20
_PINNED = _ON_DEVICE = 1
PATHS = ("plain", "pitched", "stream-ordered", "physical")


class _AllocationProp(ctypes.Structure):
    """``CUmemAllocationProp`` of cuda.h."""

    _fields_ = (
        ("type", ctypes.c_uint), ("handle_types", ctypes.c_uint), ("location_type", ctypes.c_uint),
        ("location_id", ctypes.c_int), ("win32", ctypes.c_void_p), ("flags", ctypes.c_ubyte * 8),
    )  # fmt: skip


class Driver:
    """The few calls that are needed, as any program makes them."""

    def __init__(self) -> None:
        self._cuda = ctypes.CDLL("libcuda.so.1")
        context = ctypes.c_void_p()
        self._check(self._cuda.cuInit(0))
        self._check(self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
        self._check(self._cuda.cuCtxSetCurrent(context))

    def alloc(self, n_bytes: int) -> int | None:
        """An address, or None when refused for want of memory."""
        at = ctypes.c_uint64()
        return self._got(at, self._cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(n_bytes)))

    def alloc_pitched(self, n_bytes: int) -> int | None:
        """Rows of 4,000 bytes, which the driver makes longer."""
        at, pitch = ctypes.c_uint64(), ctypes.c_size_t()
        rows = ctypes.c_size_t(max(1, n_bytes // 4096))
        code = self._cuda.cuMemAllocPitch_v2(ctypes.byref(at), ctypes.byref(pitch), ctypes.c_size_t(4000), rows, 16)
        return self._got(at, code)

    def alloc_async(self, n_bytes: int) -> int | None:
        """In the order of the default stream, from the device's pool."""
        at = ctypes.c_uint64()
        return self._got(at, self._cuda.cuMemAllocAsync(ctypes.byref(at), ctypes.c_size_t(n_bytes), None))

    def create(self, n_bytes: int) -> int | None:
        """Physical memory without an address."""
        handle = ctypes.c_uint64()
        size = ctypes.c_size_t(-(-n_bytes // _PAGE) * _PAGE)
        prop = _AllocationProp(type=_PINNED, location_type=_ON_DEVICE)
        code = self._cuda.cuMemCreate(ctypes.byref(handle), size, ctypes.byref(prop), ctypes.c_ulonglong(0))
        return self._got(handle, code)

    def free(self, at: int) -> None:
        """Give plain or pitched memory back."""
        self._check(self._cuda.cuMemFree_v2(ctypes.c_uint64(at)))

    def free_async(self, at: int) -> None:
        """Give stream-ordered memory back."""
        self._check(self._cuda.cuMemFreeAsync(ctypes.c_uint64(at), None))

    def release(self, handle: int) -> None:
        """Give physical memory back."""
        self._check(self._cuda.cuMemRelease(ctypes.c_uint64(handle)))

    def free_bytes(self) -> int:
        """What the driver says is left."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._check(self._cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
        return free.value

    def kinds(self, paths: Sequence[str]) -> list[tuple[Callable[[int], int | None], Callable[[int], None]]]:
        """Pairs of calls that get memory and give it back, of ``PATHS``."""
        pairs: dict[str, tuple[Callable[[int], int | None], Callable[[int], None]]] = {
            "plain": (self.alloc, self.free),
            "pitched": (self.alloc_pitched, self.free),
            "stream-ordered": (self.alloc_async, self.free_async),
            "physical": (self.create, self.release),
        }
        return [pairs[path] for path in paths]

    def _got(self, what: ctypes.c_uint64, code: int) -> int | None:
        if code == _OUT_OF_MEMORY:
            return None
        self._check(code)
        return what.value

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"the driver answered {code}")


def main(seed: int, seconds: float, n_processes: int, cap_bytes: int, paths: Sequence[str]) -> int:
    """Fork the allocators, wait for them, then see how much one process can get."""
    children = []
    told, tell = os.pipe()
    for number in range(n_processes):
        pid = os.fork()
        if pid == 0:
            chance = random.Random(seed * 100 + number)  # noqa: S311  reproducible on purpose
            words = _at_random(chance, seconds, cap_bytes, paths)
            os.write(tell, f"{' '.join(map(str, words))}\n".encode())
            os._exit(0)
        children.append(pid)
    os.close(tell)
    failed, ended_ns = 0, []
    for pid in children:
        failed += os.waitpid(pid, 0)[1] != 0
        ended_ns.append(time.monotonic_ns())
    with os.fdopen(told) as lines:
        did = [tuple(map(int, line.split())) for line in lines]
    driver = Driver()
    free_bytes = driver.free_bytes()
    held, size = 0, cap_bytes
    while size >= _PAGE:
        if driver.alloc(size) is None:
            size //= 2
        else:
            held += size
    answer = {
        "obtained_bytes": held, "failed": failed, "free_bytes": free_bytes, "n_calls": sum(one[0] for one in did),
        "n_refused": sum(one[1] for one in did), "ready_ns": [one[2] for one in did],
        "stopped_ns": [one[3] for one in did], "ended_ns": ended_ns,
    }  # fmt: skip
    print(json.dumps(answer))
    return 0


def _at_random(
    chance: random.Random, seconds: float, cap_bytes: int, paths: Sequence[str]
) -> tuple[int, int, int, int]:
    """How many calls it made, how many of them were refused, when it had its context and when it stopped (ns)."""
    driver = Driver()
    ready_ns = time.monotonic_ns()
    kinds = driver.kinds(paths)
    held: list[tuple[int, Callable[[int], None]]] = []
    until = time.monotonic() + seconds
    n_calls = n_refused = 0
    while time.monotonic() < until:
        n_calls += 1
        if held and chance.random() < 0.3:
            what, give_back = held.pop(chance.randrange(len(held)))
            give_back(what)
            continue
        size = int(cap_bytes * chance.choice((0.001, 0.01, 0.05, 0.2, 0.6)) * chance.random()) + 1
        get, give_back = chance.choice(kinds)
        got = get(size)
        if got is None:
            n_refused += 1
        else:
            held.append((got, give_back))
    return n_calls, n_refused, ready_ns, time.monotonic_ns()


if __name__ == "__main__":
    given = sys.argv[5].split(",") if len(sys.argv) > 5 else PATHS[:1]
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), given))
