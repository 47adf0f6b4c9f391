"""Inside a slice: processes that allocate and free at random, then one that takes all it can get.

``python -m flexai.apps.bench.pool.alloc_tenant SEED SECONDS N_PROCESSES CAP_BYTES``; prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
import time

_OUT_OF_MEMORY = 2
_PAGE = 2 << 20


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
        code = self._cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(n_bytes))
        if code == _OUT_OF_MEMORY:
            return None
        self._check(code)
        return at.value

    def free(self, at: int) -> None:
        """Give it back."""
        self._check(self._cuda.cuMemFree_v2(ctypes.c_uint64(at)))

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise RuntimeError(f"the driver answered {code}")


def main(seed: int, seconds: float, n_processes: int, cap_bytes: int) -> int:
    """Fork the allocators, wait for them, then see how much one process can get."""
    children = []
    for number in range(n_processes):
        pid = os.fork()
        if pid == 0:
            _at_random(random.Random(seed * 100 + number), seconds, cap_bytes)  # noqa: S311  reproducible on purpose
            os._exit(0)
        children.append(pid)
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
    driver = Driver()
    held, size = 0, cap_bytes
    while size >= _PAGE:
        if driver.alloc(size) is None:
            size //= 2
        else:
            held += size
    print(json.dumps({"obtained_bytes": held, "failed": failed}))
    return 0


def _at_random(chance: random.Random, seconds: float, cap_bytes: int) -> None:
    driver = Driver()
    held: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if held and chance.random() < 0.3:
            driver.free(held.pop(chance.randrange(len(held))))
            continue
        size = int(cap_bytes * chance.choice((0.001, 0.01, 0.05, 0.2, 0.6)) * chance.random()) + 1
        at = driver.alloc(size)
        if at is not None:
            held.append(at)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
