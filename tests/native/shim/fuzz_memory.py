"""A tenant's program that takes and gives memory by every path of the driver API, at random: SEED STEPS FOLDER.

Prints ``up``, waits for a line, does its steps, gives all back, prints ``done`` and how often each path was taken, and
waits for another line. Handles that others may hold lie in FOLDER.
"""

import contextlib
import ctypes
import itertools
import json
import os
import random
import struct
import sys
from collections import Counter
from ctypes import byref, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

from driver import MIB, OUT_OF_MEMORY, alloc, check, cuda, free, open_card

BLOCK = 2 * MIB
DEVICE = (c_int * 64)(1, 1, 1, 0)  # pinned, may be exported as a file, on device 0
FLOAT, HOST_MEMORY = 0x20, 8


class Shape(ctypes.Structure):
    _fields_ = (("width", c_size_t), ("height", c_size_t), ("depth", c_size_t), ("format", c_int), ("channels", c_uint),
                ("flags", c_uint))  # fmt: skip


class AllocNode(ctypes.Structure):
    _fields_ = (("pool", c_int * 4), ("security", c_void_p), ("most", c_size_t), ("rest", c_char * 56),
                ("access", c_void_p), ("n_access", c_size_t), ("bytes", c_size_t), ("at", c_uint64))  # fmt: skip


class IpcHandle(ctypes.Structure):
    _fields_ = (("bytes", c_char * 64),)


def elf(n_bytes: int) -> bytes:
    """An image whose head says that it is so long."""
    head = bytearray(64)
    head[:4] = b"\x7fELF"
    struct.pack_into("<Q", head, 0x28, n_bytes)
    return bytes(head)


def took(code: int) -> bool:
    """Whether it was given; anything but a refusal for want of memory is an error of ours."""
    if code == OUT_OF_MEMORY:
        return False
    check(code)
    return True


class Program:
    """What it holds, by path: each entry is how to give it back."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.folder = random.Random(seed), folder
        self.held: list = []
        self.n: Counter[str] = Counter()
        self.number = itertools.count()
        self.pool = c_void_p()
        check(cuda.cuMemPoolCreate(byref(self.pool), DEVICE))
        keep = c_uint64(self.chance.choice([0, 64 * MIB, 1 << 62]))
        check(cuda.cuMemPoolSetAttribute(self.pool, 4, byref(keep)))
        self.stream = c_void_p()
        check(cuda.cuStreamCreate(byref(self.stream), 1))

    def size(self, least: int = 9, most: float = 27.5) -> int:
        return int(2 ** self.chance.uniform(least, most))

    def plain(self) -> None:
        if at := alloc(self.size()):
            give = (lambda: free(at)) if self.chance.random() < 0.7 else (lambda: self.free_async(at))
            self.held.append(give)

    def free_async(self, at: int) -> None:
        check(cuda.cuMemFreeAsync(c_uint64(at), self.stream))

    def managed(self) -> None:
        at = c_uint64()
        if took(cuda.cuMemAllocManaged(byref(at), c_size_t(self.size()), 1)):
            self.held.append(lambda: free(at.value))

    def pitch(self) -> None:
        at, pitch = c_uint64(), c_size_t()
        if took(cuda.cuMemAllocPitch_v2(byref(at), byref(pitch), c_size_t(700), c_size_t(self.size() // 700 + 1), 4)):
            self.held.append(lambda: free(at.value))

    def stream_ordered(self) -> None:
        at = c_uint64()
        if took(cuda.cuMemAllocAsync(byref(at), c_size_t(self.size()), self.stream)):
            give = (lambda: self.free_async(at.value)) if self.chance.random() < 0.7 else (lambda: free(at.value))
            self.held.append(give)

    def from_pool(self) -> None:
        at = c_uint64()
        if took(cuda.cuMemAllocFromPoolAsync(byref(at), c_size_t(self.size()), self.pool, self.stream)):
            self.held.append(lambda: self.free_async(at.value))

    def pool_that_ends(self) -> None:
        pool, at = c_void_p(), c_uint64()
        check(cuda.cuMemPoolCreate(byref(pool), DEVICE))
        if took(cuda.cuMemAllocFromPoolAsync(byref(at), c_size_t(self.size()), pool, self.stream)):
            self.held.append(lambda: self.free_async(at.value))
        check(cuda.cuMemPoolDestroy(pool))

    def array(self) -> None:
        array = c_void_p()
        n = self.size(4, 12)
        shape = Shape(n, self.chance.choice([0, n]), self.chance.choice([0, 2]), FLOAT, 4, 0)
        if took(cuda.cuArray3DCreate_v2(byref(array), byref(shape))):
            self.held.append(lambda: check(cuda.cuArrayDestroy(array)))

    def mipmapped(self) -> None:
        array = c_void_p()
        n = self.size(4, 11)
        if took(cuda.cuMipmappedArrayCreate(byref(array), byref(Shape(n, n, 0, FLOAT, 4, 0)), 5)):
            self.held.append(lambda: check(cuda.cuMipmappedArrayDestroy(array)))

    def reserve_and_map(self, handle: c_uint64, size: int) -> int:
        at = c_uint64()
        check(cuda.cuMemAddressReserve(byref(at), c_size_t(size), c_size_t(0), c_uint64(0), c_uint64(0)))
        check(cuda.cuMemMap(at, c_size_t(size), c_size_t(0), handle, c_uint64(0)))
        return at.value

    def unmap(self, at: int, size: int) -> None:
        check(cuda.cuMemUnmap(c_uint64(at), c_size_t(size)))
        check(cuda.cuMemAddressFree(c_uint64(at), c_size_t(size)))

    def physical(self) -> None:
        handle, again, size = c_uint64(), c_uint64(), (self.size() // BLOCK + 1) * BLOCK
        if not took(cuda.cuMemCreate(byref(handle), c_size_t(size), DEVICE, c_uint64(0))):
            return
        maps = [self.reserve_and_map(handle, size) for _ in range(self.chance.choice([1, 1, 2]))]
        check(cuda.cuMemRetainAllocationHandle(byref(again), c_void_p(maps[0])))
        check(cuda.cuMemRelease(handle))
        handles = [again]
        if self.chance.random() < 0.4:
            self.export(again, size)

        def give() -> None:
            for each in maps:
                self.unmap(each, size)
            for each in handles:
                check(cuda.cuMemRelease(each))

        self.held.append(give)

    def export(self, handle: c_uint64, size: int) -> None:
        file = c_int()
        check(cuda.cuMemExportToShareableHandle(byref(file), handle, 1, c_uint64(0)))
        self.put({"kind": "file", "pid": os.getpid(), "fd": file.value, "size": size})

    def put(self, what: dict) -> None:
        path = self.folder / f".{os.getpid()}-{next(self.number)}"
        path.write_text(json.dumps(what))
        path.rename(path.with_name(path.name[1:]))

    def exported(self) -> None:
        at, handle = alloc(MIB + self.size(20)), IpcHandle()
        if not at:
            return
        check(cuda.cuIpcGetMemHandle(byref(handle), c_uint64(at)))
        self.put({"kind": "ipc", "pid": os.getpid(), "bytes": bytes(handle).hex()})
        self.held.append(lambda: free(at))

    def imported(self) -> None:
        for path in self.chance.sample(found := list(self.folder.iterdir()), len(found)):
            if path.name.startswith((".", f"{os.getpid()}-")):
                continue
            with contextlib.suppress(OSError, ValueError):
                what = json.loads(path.read_text())
                path.unlink()
                if what["kind"] == "ipc":
                    self.open_ipc(bytes.fromhex(what["bytes"]))
                else:
                    self.open_file(f"/proc/{what['pid']}/fd/{what['fd']}", what["size"])
            return

    def open_ipc(self, handle: bytes) -> None:
        at = c_uint64()
        code = cuda.cuIpcOpenMemHandle_v2(byref(at), IpcHandle.from_buffer_copy(handle), 1)
        if code == 0:  # else it was freed by the other meanwhile
            self.held.append(lambda: check(cuda.cuIpcCloseMemHandle(at)))

    def open_file(self, path: str, size: int) -> None:
        file, handle = os.open(path, os.O_RDWR), c_uint64()
        code = cuda.cuMemImportFromShareableHandle(byref(handle), c_void_p(file), 1)
        os.close(file)
        if code:
            return
        at = self.reserve_and_map(handle, size)
        check(cuda.cuMemRelease(handle))
        self.held.append(lambda: self.unmap(at, size))

    def graph(self) -> None:
        graph, node, execution = c_void_p(), c_void_p(), c_void_p()
        check(cuda.cuGraphCreate(byref(graph), 0))
        params = AllocNode((c_int * 4)(1, 0, 1, 0), bytes=self.size())
        check(cuda.cuGraphAddMemAllocNode(byref(node), graph, None, c_size_t(0), byref(params)))
        if took(cuda.cuGraphInstantiateWithFlags(byref(execution), graph, c_uint64(0))):
            if self.chance.random() < 0.8:
                check(cuda.cuGraphLaunch(execution, self.stream))
            self.held.append(lambda: check(cuda.cuGraphExecDestroy(execution)))
        check(cuda.cuGraphDestroy(graph))

    def code(self) -> None:
        module = c_void_p()
        if took(cuda.cuModuleLoadData(byref(module), elf(self.size(16, 25)))):
            self.held.append(lambda: check(cuda.cuModuleUnload(module)))

    def limit(self) -> None:
        took(cuda.cuCtxSetLimit(*self.chance.choice(
            [(0, c_size_t(self.size(10, 10.5))), (1, c_size_t(self.size(20, 25))), (2, c_size_t(self.size(22, 26)))]
        )))  # fmt: skip

    def context(self) -> None:
        mine, other, popped = c_void_p(), c_void_p(), c_void_p()
        check(cuda.cuCtxGetCurrent(byref(mine)))
        if took(cuda.cuCtxCreate_v2(byref(other), 0, 0)):
            alloc(self.size())
            check(cuda.cuCtxDestroy_v2(other))
            check(cuda.cuCtxSetCurrent(mine))
        del popped

    def wait(self) -> None:
        check(cuda.cuCtxSynchronize())

    def trim(self) -> None:
        check(cuda.cuMemPoolTrimTo(self.pool, c_size_t(0)))
        check(cuda.cuDeviceGraphMemTrim(0))

    def step(self) -> None:
        if self.held and self.chance.random() < 0.42:
            self.held.pop(self.chance.randrange(len(self.held)))()
            return
        way = self.chance.choice(WAYS)
        self.n[way.__name__] += 1
        way(self)

    def end(self) -> None:
        self.chance.shuffle(self.held)
        while self.held:
            self.held.pop()()
        for what, default in ((0, 1024), (1, MIB), (2, 8 * MIB)):
            took(cuda.cuCtxSetLimit(what, c_size_t(default)))  # raised again, it may be refused
        self.wait()
        self.trim()


WAYS = [getattr(Program, name) for name in (
    "plain", "plain", "managed", "pitch", "stream_ordered", "from_pool", "pool_that_ends", "array", "mipmapped",
    "physical", "physical", "exported", "imported", "imported", "graph", "code", "limit", "context", "wait", "trim",
)]  # fmt: skip


def main() -> None:
    """Run."""
    seed, steps, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    open_card()
    program = Program(seed, folder)
    print("up", flush=True)
    sys.stdin.readline()
    for _ in range(steps):
        program.step()
    program.end()
    print("done", json.dumps(program.n), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
