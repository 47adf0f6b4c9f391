"""Tenants of a live pool for measuring: workloads with a shared control file, counted while they run."""

from __future__ import annotations

import mmap
import os
import struct
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai_native import program

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from flexai.adapters.pool_client import PoolClient

IDLE, RUN, END = 0, 1, 2
_FILE_BYTES = 4096 + 4 * 65536
_READY_S = 90.0
_KEPT = ("PATH", "PYTHONPATH", "HOME")
_GIB = 1 << 30


class Control:
    """The control file of one workload; native/workloads/control.c says its layout."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_FILE_BYTES))
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @property
    def is_ready(self) -> bool:
        """Whether the workload has its context and waits for the order."""
        return bool(struct.unpack_from("<I", self._map, 8)[0])

    def order(self, order: int) -> None:
        """IDLE, RUN or END."""
        struct.pack_into("<I", self._map, 12, order)

    def counted(self) -> tuple[int, int]:
        """Iterations finished, and when the last one did (CLOCK_MONOTONIC, ns); from one moment."""
        while True:
            first = struct.unpack_from("<Q", self._map, 0)[0]
            last_ns = struct.unpack_from("<Q", self._map, 24)[0]
            if struct.unpack_from("<Q", self._map, 0)[0] == first:
                return int(first), int(last_ns)

    def latencies_ms(self) -> list[float]:
        """The latest ones, at most 65,536."""
        n = min(65536, struct.unpack_from("<Q", self._map, 16)[0])
        return list(struct.unpack_from(f"<{n}f", self._map, 4096))

    def close(self) -> None:
        """Unmap."""
        self._map.close()


@dataclass(frozen=True, slots=True)
class Load:
    """What one tenant does and asks for."""

    share_milli: int
    kernel_us: float
    limit_milli: int = 1000
    kind: str = "flood"
    tenant_class: str = "guaranteed"
    more: tuple[str, ...] = ()
    memory_bytes: int = _GIB
    bare: bool = False

    @property
    def is_torch(self) -> bool:
        """Whether it is one of ``torch_workloads``: kinds that begin with ``torch-``."""
        return self.kind.startswith("torch-")

    def command(self, control: Path) -> list[str]:
        """What the job runs; ``bare`` strips the preload from its own environment, as a tenant may."""
        if self.is_torch:
            module = "flexai.apps.bench.torch_workloads"
            words = [sys.executable, "-m", module, self.kind.removeprefix("torch-"), "--control", str(control)]
        else:
            words = [
                str(program("flexai-workload")), self.kind, "--kernel-us", str(self.kernel_us), "--control",
                str(control),
            ]  # fmt: skip
        return [*(("env", "-u", "LD_PRELOAD") if self.bare else ()), *words, *self.more]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One job of the pool that runs a workload."""

    job_id: str
    load: Load
    control: Control


@contextmanager
def tenants(pool: PoolClient, folder: Path, loads: Sequence[Load]) -> Iterator[list[Tenant]]:
    """Start all workloads, wait until each has its slice and its context, and end them afterwards.

    Raises:
        TimeoutError: one of them did not start; says what the pool says of it.
    """
    started: list[Tenant] = []
    try:
        for number, load in enumerate(loads):
            control = Control(folder / f"control-{time.monotonic_ns()}-{number}")
            body = {
                "kind": "submit",
                "name": f"{load.kind}-{number}",
                "command": load.command(control.path),
                "cwd": "/",
                "env": {name: os.environ[name] for name in _KEPT if name in os.environ},
                "compute_milli": load.share_milli,
                "limit_milli": load.limit_milli,
                "memory_bytes": 0 if load.share_milli == 1000 else load.memory_bytes,
                "tenant_class": load.tenant_class,
            }  # fmt: skip
            started.append(Tenant(str(pool.post("/v1/jobs", body)["ids"][0]), load, control))
        until = time.monotonic() + _READY_S
        while waiting := [tenant for tenant in started if not tenant.control.is_ready]:
            if time.monotonic() > until:
                job = pool.get(f"/v1/jobs/{waiting[0].job_id}")
                raise TimeoutError(f"job {job['id']} is {job['state']}: {job.get('reason') or job.get('cause')}")
            time.sleep(0.02)
        yield started
    finally:
        for tenant in started:
            tenant.control.order(END)
        for tenant in started:
            pool.get(f"/v1/jobs/{tenant.job_id}/wait", timeout_s=40.0, timeout_ms=10_000)
            pool.post(f"/v1/jobs/{tenant.job_id}/cancel")
            tenant.control.close()
            tenant.control.path.unlink()


def rates_per_s(running: Sequence[Tenant], seconds: float, settle_s: float = 1.0) -> list[float]:
    """Let all run together; iterations per second of each over ``seconds``, after ``settle_s``."""
    for tenant in running:
        tenant.control.order(RUN)
    time.sleep(settle_s)
    before = [tenant.control.counted() for tenant in running]
    time.sleep(seconds)
    after = [tenant.control.counted() for tenant in running]
    for tenant in running:
        tenant.control.order(IDLE)
    return [
        (n_after - n_before) / ((at_after - at_before) / 1e9) if at_after > at_before else 0.0
        for (n_before, at_before), (n_after, at_after) in zip(before, after, strict=True)
    ]
