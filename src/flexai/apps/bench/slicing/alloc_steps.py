"""Outside every slice: what each kind of call takes of the card, by the card's total; one line of JSON in the end.

``python -m flexai.apps.bench.slicing.alloc_steps``; a list of steps, each with its group, what was called, the bytes
asked for, and by how much the card's total, this process's listing and the pool's reserve grew. The card must be
nobody else's meanwhile. It allocates 17 GiB at most.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from flexai.apps.bench.pool.alloc_tenant import Driver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_T = TypeVar("_T")
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_SIZES = (
    1, 64 * _KIB, 256 * _KIB, 512 * _KIB, _MIB - 1, _MIB, _MIB + 1, 3 * _MIB // 2, 2 * _MIB, 2 * _MIB + 1, 3 * _MIB,
    16 * _MIB, 31 * _MIB, 33 * _MIB, 64 * _MIB, _GIB,
)  # fmt: skip
_POOL_SIZES = (
    1, _MIB, 3 * _MIB, 31 * _MIB, 32 * _MIB, 33 * _MIB, 40 * _MIB, 63 * _MIB, 64 * _MIB, 65 * _MIB, 100 * _MIB,
    159 * _MIB, 1000 * _MIB,
)  # fmt: skip
_RESERVED = 5  # CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT of cuda.h
_PTX = b""".version 7.0
.target sm_70
.address_size 64
.visible .entry flexai_nothing() { ret; }
\0"""


class Card(Driver):
    """More calls, and the books of the card."""

    def __init__(self) -> None:
        import pynvml as untyped  # noqa: PLC0415  found by LD_LIBRARY_PATH, which the starter sets

        self._nvml: Any = untyped
        self._nvml.nvmlInit()
        self._card = self._nvml.nvmlDeviceGetHandleByIndex(0)
        super().__init__()
        self.steps: list[dict[str, Any]] = []
        self._pool = ctypes.c_void_p()
        self.call("cuDeviceGetDefaultMemPool", ctypes.byref(self._pool), 0)

    def call(self, name: str, *words: Any) -> int:
        """The driver's answer; -1 when it has no such call."""
        function = getattr(self._cuda, name, None)
        return -1 if function is None else int(function(*words))

    def books(self) -> tuple[int, int, int]:
        """Bytes: of the card in use, listed as this process's, reserved by its pool."""
        listed = sum(
            one.usedGpuMemory or 0
            for one in self._nvml.nvmlDeviceGetComputeRunningProcesses(self._card)
            if one.pid == os.getpid()
        )
        reserved = ctypes.c_uint64()
        self.call("cuMemPoolGetAttribute", self._pool, _RESERVED, ctypes.byref(reserved))
        return int(self._nvml.nvmlDeviceGetMemoryInfo(self._card).used), int(listed), reserved.value

    def step(self, group: str, what: str, asked: int, act: Callable[..., _T], *words: Any) -> _T:
        """Do it, and note what it took."""
        before = self.books()
        got = act(*words)
        grown = [after - was for after, was in zip(self.books(), before, strict=True)]
        self.steps.append(
            {"group": group, "what": what, "asked": asked, "total": grown[0], "listed": grown[1], "reserved": grown[2]}
        )
        return got

    def settle(self, stream: int | None = None) -> None:
        """Wait for a stream, so that its pool lets go of what is free."""
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def trim(self) -> None:
        """Have the pool give back all that it does not use."""
        self.settle()
        self.call("cuMemPoolTrimTo", self._pool, ctypes.c_size_t(0))


def main() -> int:
    """All groups, one after the other."""
    card = Card()
    for group in (_code, _sizes, _small_ones, _tables, _pool_from_empty, _pool_in_use, _streams_and_pools):
        group(card)
    print(json.dumps(card.steps))
    return 0


def _sizes(card: Card) -> None:
    for path in ("plain", "pitched", "physical"):
        ((get, give_back),) = card.kinds([path])
        for size in _SIZES:
            if path == "plain" or size >= 2 * _MIB:
                _there_and_back(card, path, size, get, give_back)


def _there_and_back(
    card: Card, path: str, size: int, get: Callable[[int], int | None], give_back: Callable[[int], None]
) -> None:
    got = card.step(path, "get", size, get, size)
    if got is not None:
        card.step(path, "give back", size, give_back, got)


def _small_ones(card: Card) -> None:
    """Many, then half of them given back at random, then the rest: how blocks are shared."""
    for size in (1, 60 * _KIB, 300 * _KIB, 700 * _KIB, 1000 * _KIB):
        n = 64
        held = card.step("small", f"{n} of {size}", n * size, _take, card, n, size)
        random.Random(1).shuffle(held)  # noqa: S311  reproducible on purpose
        card.step("small", "half given back", n * size, _give, card, held[: len(held) // 2])
        card.step("small", "the rest given back", n * size, _give, card, held[len(held) // 2 :])


def _tables(card: Card) -> None:
    """What mappings take beside what is mapped."""
    for n, size in ((16, _GIB), (512, 32 * _MIB), (2048, 2 * _MIB)):
        for turn in ("first", "second"):
            held = card.step("tables", f"{turn} {n} of {size}", n * size, _take, card, n, size)
            card.step("tables", "given back", n * size, _give, card, held)


def _take(card: Card, n: int, size: int) -> list[int]:
    return [at for at in (card.alloc(size) for _ in range(n)) if at is not None]


def _give(card: Card, held: Sequence[int]) -> None:
    for at in held:
        card.free(at)


def _pool_from_empty(card: Card) -> None:
    for size in _POOL_SIZES:
        card.trim()
        got = card.step("pool, empty", "get", size, card.alloc_async, size)
        if got is not None:
            card.step("pool, empty", "give back", size, card.free_async, got)
            card.step("pool, empty", "wait", size, card.settle)
            card.step("pool, empty", "trim", size, card.trim)


def _pool_in_use(card: Card) -> None:
    """One after the other, all held; then every second given back, and sizes that may not fit into the gaps."""
    sizes = (_MIB, 3 * _MIB, 40 * _MIB, 20 * _MIB, 20 * _MIB, 33 * _MIB, _MIB, 100 * _MIB, 7 * _MIB, 50 * _MIB)
    held = [card.step("pool, in use", "get", size, card.alloc_async, size) for size in sizes]
    for at in held[::2]:
        if at is not None:
            card.step("pool, in use", "give back", 0, card.free_async, at)
    card.step("pool, in use", "trim", 0, card.trim)
    sizes_again = (_MIB, 30 * _MIB, 33 * _MIB, 90 * _MIB, 3 * _MIB)
    again = [card.step("pool, in use", "get again", size, card.alloc_async, size) for size in sizes_again]
    for at in (*held[1::2], *again):
        if at is not None:
            card.free_async(at)
    card.step("pool, in use", "trim", 0, card.trim)


def _streams_and_pools(card: Card) -> None:
    stream, at, event, host = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.c_void_p(), ctypes.c_void_p()

    def make(n: int) -> None:
        for _ in range(n):
            card.call("cuStreamCreate", ctypes.byref(stream), 1)

    for n in (1, 31):
        card.step("streams", f"{n} made", 0, make, n)
    of_pool = ("cuMemAllocAsync", ctypes.byref(at), ctypes.c_size_t(_MIB), stream)
    if card.step("streams", "first of a new stream", _MIB, card.call, *of_pool) == 0:
        card.step("streams", "given back on the default stream", 0, card.free_async, at.value)
        card.step("streams", "trim", 0, card.trim)
    card.step("streams", "event", 0, card.call, "cuEventCreate", ctypes.byref(event), 0)
    pinned = ("cuMemAllocHost_v2", ctypes.byref(host), ctypes.c_size_t(_MIB))
    card.step("streams", "pinned host memory", 0, card.call, *pinned)


def _code(card: Card) -> None:
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    at = card.alloc(_MIB)

    def launch() -> None:
        card.call("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, None, None, None)
        card.settle()

    def fill() -> None:
        card.call("cuMemsetD8_v2", ctypes.c_uint64(at or 0), 1, ctypes.c_size_t(_MIB))
        card.settle()

    card.step("code", "module", 0, card.call, "cuModuleLoadData", ctypes.byref(module), _PTX)
    card.call("cuModuleGetFunction", ctypes.byref(function), module, b"flexai_nothing")
    for turn in ("first", "second"):
        card.step("code", f"{turn} launch", 0, launch)
    if at is not None:
        card.step("code", "fill", 0, fill)
        card.free(at)


if __name__ == "__main__":
    sys.exit(main())
