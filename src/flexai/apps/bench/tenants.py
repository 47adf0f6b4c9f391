"""Tenants of a live pool for measuring: workloads with a shared control file, counted while they run."""

from __future__ import annotations

import mmap
import os
import shlex
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
READY_S = 55.0
"""Less than any case is given before it is taken for hung, so that what the pool says of the job is told."""
_LOOK_S = 0.5
_OVER = {"succeeded", "failed", "cancelled"}
_LAST_BYTES, _LAST_LINES = 4096, 4
_LOOK_AT_RATE_S, _STEADY, WARM_S = 0.25, 0.03, 6.0
"""A rate is steady when three spans in a row differ by less than that; what is not after ``WARM_S`` never will be."""
_FIRST_S = 2.0
"""Beyond its settling, for the end of a first iteration: a program may queue many before it waits for one."""
_REST_S = 0.25
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
    """What one tenant does and asks for.

    Attributes:
        bare: it strips the preload from its own environment, as a tenant may.
        memory_bytes: cap, for each of its processes: a context alone takes half a GiB on an H200. 0: all of the card's;
            the share of such a job cannot be lowered later.
        n_processes: so many of the same program, each with its own control file.
        n_devices: cards that it asks for; of C programs each process runs on its own, the first again after the last.
    """

    share_milli: int
    kernel_us: float
    limit_milli: int = 1000
    kind: str = "flood"
    tenant_class: str = "guaranteed"
    more: tuple[str, ...] = ()
    memory_bytes: int = _GIB
    bare: bool = False
    n_processes: int = 1
    n_devices: int = 1

    @property
    def is_torch(self) -> bool:
        """Whether it is one of ``torch_workloads``: kinds that begin with ``torch-``."""
        return self.kind.startswith("torch-")

    @property
    def is_by_host(self) -> bool:
        """Whether its rate is the host's as much as the card's: it launches kernel after kernel, or waits for each."""
        return self.kind in {"step", "torch-gpt", "torch-resnet", "torch-gemm-sync", "torch-decode-sync"}

    @property
    def program(self) -> tuple[object, ...]:
        """What it runs, whatever it asks for."""
        return self.kind, self.kernel_us, self.more, self.n_processes, self.n_devices

    def job(self, controls: Sequence[Path]) -> list[str]:
        """What the job runs: the program, or several of it that begin and end together; all end when one fails."""
        if len(controls) == 1:
            return self.command(controls[0])
        failed = "{ echo process %d of %d ended with exit code $? >&2; kill -USR1 $$ 2>/dev/null; }"
        words = [shlex.join(self.command(control, i % self.n_devices)) for i, control in enumerate(controls)]
        lines = [f"{{ {line} || {failed % (number, len(controls))}; }} &" for number, line in enumerate(words, 1)]
        return ["/bin/sh", "-c", "\n".join(["trap 'exit 1' USR1", *lines, "wait"])]

    def command(self, control: Path, device: int = 0) -> list[str]:
        """One process of it, on this of its cards."""
        if self.is_torch:
            module = "flexai.apps.bench.torch_workloads"
            words = [sys.executable, "-m", module, self.kind.removeprefix("torch-"), "--control", str(control)]
        else:
            words = [
                str(program("flexai-workload")), self.kind, "--kernel-us", str(self.kernel_us), "--control",
                str(control), *(("--device", str(device)) if device else ()),
            ]  # fmt: skip
        return [*(("env", "-u", "LD_PRELOAD") if self.bare else ()), *words, *self.more]


@dataclass(frozen=True, slots=True)
class Tenant:
    """One job of the pool that runs a workload; ``job_id`` is empty where it runs outside of the pool."""

    job_id: str
    load: Load
    controls: tuple[Control, ...]

    @property
    def control(self) -> Control:
        """Of its first process."""
        return self.controls[0]

    @property
    def is_ready(self) -> bool:
        """Whether all its processes wait for the order."""
        return all(control.is_ready for control in self.controls)

    def order(self, order: int) -> None:
        """IDLE, RUN or END, to all its processes."""
        for control in self.controls:
            control.order(order)

    def counted(self) -> tuple[int, int]:
        """Iterations of all its processes, and when the last one ended (CLOCK_MONOTONIC, ns)."""
        counts = [control.counted() for control in self.controls]
        return sum(n for n, _ in counts), max(last_ns for _, last_ns in counts)

    def close(self) -> None:
        """Forget its control files."""
        for control in self.controls:
            control.close()
            control.path.unlink()


def controls_in(folder: Path, load: Load) -> tuple[Control, ...]:
    """A control file for each process of a load."""
    at_ns = time.monotonic_ns()
    return tuple(Control(folder / f"control-{at_ns}-{number}") for number in range(load.n_processes))


@contextmanager
def tenants(pool: PoolClient, folder: Path, loads: Sequence[Load]) -> Iterator[list[Tenant]]:
    """Start all workloads, wait until each has its slice and its context, and end them afterwards.

    Raises:
        RuntimeError: one of them ended or did not start; says what the pool says of it, and what it wrote last.
    """
    started: list[Tenant] = []
    try:
        for number, load in enumerate(loads):
            controls = controls_in(folder, load)
            body = {
                "kind": "submit",
                "name": f"{load.kind}-{number}",
                "command": load.job([control.path for control in controls]),
                "cwd": "/",
                "env": {name: os.environ[name] for name in _KEPT if name in os.environ},
                "compute_milli": load.share_milli,
                "limit_milli": load.limit_milli,
                "memory_bytes": load.n_processes * load.memory_bytes,
                "tenant_class": load.tenant_class,
                "n_devices": load.n_devices,
            }  # fmt: skip
            started.append(Tenant(str(pool.post("/v1/jobs", body)["ids"][0]), load, controls))
        began = looked = time.monotonic()
        while waiting := [tenant for tenant in started if not tenant.is_ready]:
            if (now := time.monotonic()) > looked + _LOOK_S:
                looked = now
                for tenant in waiting:
                    _alive(pool, tenant, now - began)
            time.sleep(0.02)
        yield started
    finally:
        for tenant in started:
            tenant.order(END)
        for tenant in started:
            pool.get(f"/v1/jobs/{tenant.job_id}/wait", timeout_s=40.0, timeout_ms=10_000)
            pool.post(f"/v1/jobs/{tenant.job_id}/cancel")
            tenant.close()


def _alive(pool: PoolClient, tenant: Tenant, waited_s: float) -> None:
    """Raises RuntimeError when the job has ended, or should long be ready."""
    job = pool.get(f"/v1/jobs/{tenant.job_id}")
    if job["state"] not in _OVER and waited_s < READY_S:
        return
    wrote = b"".join(pool.chunks(f"/v1/jobs/{tenant.job_id}/logs", offset=-_LAST_BYTES))
    code = job["exit_code"]
    raise RuntimeError(
        f"job {job['id']} ({tenant.load.kind}) was not ready after {waited_s:.1f} s: it is {job['state']}, "
        f"{job['cause'] or job['reason']}"
        + (f", exit code {code}" if code is not None else "")
        + f"; it wrote last: {last_lines(wrote)}"
    )


def last_lines(wrote: bytes) -> str:
    """The end of what a program wrote, on one line."""
    lines = [line.strip() for line in wrote.decode(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-_LAST_LINES:]) or "nothing"


def rate_between(before: tuple[int, int], after: tuple[int, int], took_s: float) -> float:
    """Iterations per second between two counts, ``took_s`` apart.

    By when the last iterations ended; by the time that passed, where none had ended before or none ended since.
    """
    (n_before, at_before), (n_after, at_after) = before, after
    if at_after > at_before > 0:
        return (n_after - n_before) / ((at_after - at_before) / 1e9)
    return (n_after - n_before) / max(took_s, 1e-9)


def steady(tenant: Tenant, least_s: float, most_s: float | None = None) -> bool:
    """Let it run for ``least_s`` and until its rate is steady, for ``most_s`` at most; whether it is.

    PyTorch loads and chooses its kernels as it comes to them, so its programs are given ``WARM_S``, others no more than
    ``least_s``. What has not ended its first iterations yet has no rate.
    """
    if most_s is None:
        most_s = WARM_S if tenant.load.is_torch else least_s
    tenant.order(RUN)
    began_s = time.monotonic()
    time.sleep(max(0.0, least_s - 3 * _LOOK_AT_RATE_S))
    last, rates = tenant.counted(), list[float]()
    while True:
        time.sleep(_LOOK_AT_RATE_S)
        count = tenant.counted()
        passed_s = time.monotonic() - began_s
        if count[1] > last[1]:
            rates = [*rates[-2:], rate_between(last, count, _LOOK_AT_RATE_S)]
            last = count
        is_steady = len(rates) == 3 and max(rates) - min(rates) < _STEADY * max(rates)
        if (is_steady and passed_s > least_s - 0.01) or passed_s > most_s - 0.01:
            return is_steady


def begin(running: Sequence[Tenant], settle_s: float) -> None:
    """Let all run for ``settle_s``, and until each has ended an iteration since (for two seconds more at most).

    The last one that ended before is no date to count from: the time in which it was idle would be in the rate.
    """
    before = [tenant.counted()[0] for tenant in running]
    for tenant in running:
        tenant.order(RUN)
    time.sleep(settle_s)
    until_s = time.monotonic() + _FIRST_S
    while time.monotonic() < until_s:
        if all(tenant.counted()[0] != n for tenant, n in zip(running, before, strict=True)):
            return
        time.sleep(0.01)


def rest(running: Sequence[Tenant], most_s: float = 3.0) -> None:
    """Let all be idle, and wait until nobody has ended an iteration for a while: what they had queued is over.

    Queues of ten tenants that are stopped by turns take a second to empty; what runs beside that is not alone.
    """
    for tenant in running:
        tenant.order(IDLE)
    counts = [tenant.counted()[0] for tenant in running]
    began_s = changed_s = time.monotonic()
    while (now_s := time.monotonic()) - changed_s < _REST_S and now_s - began_s < most_s:
        time.sleep(0.02)
        after = [tenant.counted()[0] for tenant in running]
        if after != counts:
            counts, changed_s = after, time.monotonic()


def rates_per_s(running: Sequence[Tenant], seconds: float, settle_s: float = 1.0) -> list[float]:
    """Let all run together; iterations per second of each over ``seconds``, after ``settle_s``."""
    begin(running, settle_s)
    before = [tenant.counted() for tenant in running]
    time.sleep(seconds)
    after = [tenant.counted() for tenant in running]
    rest(running)
    return [rate_between(was, now, seconds) for was, now in zip(before, after, strict=True)]
