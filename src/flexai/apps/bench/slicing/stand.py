"""A pool on the cards that are measured, its tenants, the arbiter's accounts and the card's clock."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexai_native import library

from flexai.adapters.own_pool import own_pool
from flexai.adapters.pool_client import PoolClient
from flexai.adapters.shm import TimelineFile, UsageFile
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.tenants import (
    END,
    READY_S,
    Load,
    Tenant,
    controls_in,
    last_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.wire.timeline import Record

SIMULATED = "h200"
_HEARD_S = 2.0
"""A log is read at most a second late."""


def has_torch() -> bool:
    """Whether PyTorch tenants can run: it is installed, and the card computes."""
    return is_real() and importlib.util.find_spec("torch") is not None


def clock_mhz() -> float:
    """SM clock of the first card now; NaN where there is none, as on a simulated card."""
    if not is_real():
        return math.nan
    pynvml: Any = importlib.import_module("pynvml")
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return float(pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM))
    except pynvml.NVMLError:
        return math.nan


def stolen_s() -> float:
    """Processor time that this machine's host has taken from it so far, in processors' seconds over their number."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)


def clock_text(mhz: float) -> str:
    """For people; a simulated card has no clock."""
    return "clock n/a" if math.isnan(mhz) else f"{mhz:.0f} MHz"


@dataclass(slots=True)
class Stand:
    """A pool for one case."""

    pool: PoolClient
    usage: UsageFile
    ring: TimelineFile
    run_dir: Path
    state_dir: Path
    told: list[Record] = field(default_factory=list)

    def held_ns(self, tenants: Sequence[Tenant]) -> list[int]:
        """Card time that each tenant has had so far."""
        usage = self.usage.read()
        held = {entry.tenant: entry.held_ns for entry in usage.tenants} if usage else {}
        return [held.get(name_of(tenant), 0) for tenant in tenants]

    def control(self) -> tuple[int, int, str]:
        """(ns spent in control calls, calls, backend) of the card so far."""
        usage = self.usage.read()
        if usage is None or not usage.devices:
            return 0, 0, "none"
        card = usage.devices[0]
        return card.control_ns, card.n_control, card.backend

    def arbiter_pid(self) -> int:
        """Process of the arbiter."""
        usage = self.usage.read()
        return usage.arbiter_pid if usage else 0

    def pid_of(self, part: str) -> int:
        """Process of a part of the pool, as ``agent``; 0 when it is not known."""
        try:
            return int(json.loads((self.state_dir / "up.json").read_text())[part]["pid"])
        except (OSError, ValueError, KeyError):
            return 0

    def listen(self) -> list[Record]:
        """All that the timeline has told so far."""
        self.told += self.ring.read()
        return self.told

    def hear_out(self, until_ns: int) -> bool:
        """Wait until the arbiter has read the card's log up to then; whether it has, within ``_HEARD_S``."""
        give_up_s = time.monotonic() + _HEARD_S
        while time.monotonic() < give_up_s:
            usage = self.usage.read()
            if usage is not None and all(usage.told_until_ns(card.uuid) >= until_ns for card in usage.devices):
                return True
            time.sleep(0.01)
        return False

    @property
    def overwritten(self) -> str:
        """Why what the timeline tells has holes; empty when it has none."""
        missed = self.ring.n_missed
        return f"{missed} records of the timeline were overwritten before they were read" if missed else ""

    def outside(self) -> dict[str, str]:
        """Environment of a program beside the pool, on the same card."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLEXAI_")}
        if is_real():
            return plain
        folder = str(library("simcard/libcuda.so.1").parent)
        return plain | {"FLEXAI_SIMCARD": str(self.run_dir / "simcard.sock"), "LD_LIBRARY_PATH": folder}


def name_of(tenant: Tenant) -> str:
    """As the arbiter calls it."""
    return f"{tenant.job_id}.0"


@contextmanager
def stand(backend: str = "hwslice", n_cards: int = 1) -> Iterator[Stand]:
    """A fresh pool on the machine's cards, or on so many simulated ones."""
    simulate = "" if is_real() else f"{SIMULATED}:{n_cards}"
    with own_pool(simulate, {"FLEXAI_BACKEND": backend}) as own:
        folder = own.run_dir
        yield Stand(
            PoolClient(folder), UsageFile(folder / "usage"), TimelineFile(folder / "timeline"), folder, own.state_dir
        )


@contextmanager
def outside(on: Stand, folder: Path, loads: Sequence[Load]) -> Iterator[list[Tenant]]:
    """The same programs with nobody who controls them: no pool, no shim.

    Raises:
        RuntimeError: one of them ended or did not start; says what it wrote last.
    """
    started: list[tuple[Tenant, subprocess.Popen[bytes]]] = []
    try:
        for load in loads:
            tenant = Tenant("", load, controls_in(folder, load))
            words = load.job([control.path for control in tenant.controls])
            with tenant.control.path.with_suffix(".log").open("wb") as log:
                program = subprocess.Popen(words, env=on.outside(), stdout=log, stderr=subprocess.STDOUT)
            started.append((tenant, program))
        until = time.monotonic() + READY_S
        while waiting := [(tenant, program) for tenant, program in started if not tenant.is_ready]:
            for tenant, program in waiting:
                if (code := program.poll()) is not None or time.monotonic() > until:
                    wrote = last_lines(tenant.control.path.with_suffix(".log").read_bytes())
                    how = "is not ready" if code is None else f"ended with exit code {code}"
                    raise RuntimeError(f"{tenant.load.kind} outside of the pool {how}; it wrote last: {wrote}")
            time.sleep(0.02)
        yield [tenant for tenant, _ in started]
    finally:
        for tenant, program in started:
            tenant.order(END)
            try:
                program.wait(timeout=20)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()
            tenant.close()


def flood(milli: int, kernel_us: float, limit_milli: int = 1000, *, bare: bool = False, n_processes: int = 1) -> Load:
    """Kernels back to back, enough of them queued for 20 ms."""
    depth = max(4, min(256, round(20_000 / kernel_us)))
    return Load(milli, kernel_us, limit_milli, more=("--depth", str(depth)), bare=bare, n_processes=n_processes)


def graph(milli: int, kernel_us: float, *, bare: bool = False) -> Load:
    """Replays of a graph of 20 kernels."""
    return Load(milli, kernel_us, kind="graph", bare=bare)


def step(milli: int, kernel_us: float, host_us: float, limit_milli: int = 1000, *, bare: bool = False) -> Load:
    """A kernel, a wait for it, and so long on the host."""
    return Load(milli, kernel_us, limit_milli, kind="step", more=("--host-us", str(host_us)), bare=bare)


def torch(milli: int, kind: str, limit_milli: int = 1000, *, bare: bool = False) -> Load:
    """A PyTorch tenant."""
    return Load(milli, 0.0, limit_milli, kind=f"torch-{kind}", memory_bytes=8 << 30, bare=bare)
