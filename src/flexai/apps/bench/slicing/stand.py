"""A pool on the cards that are measured, its tenants, and the arbiter's counters."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flexai.adapters.own_pool import own_pool
from flexai.adapters.pool_client import PoolClient
from flexai.adapters.shm.usage import UsageFile
from flexai.apps.bench.tenants import IDLE, RUN, Load, Tenant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIMULATED = "h200:1"


def cards_here() -> tuple[str, str]:
    """(cards, driver) of the machine; simulated where it has none."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        names = [
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index)))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
        return "real: " + ", ".join(names), str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no NVML library, no driver, no card: all mean the same here
        return "simulated: h200", "simulated"


def is_real() -> bool:
    """Whether cases run on a real card."""
    return not os.environ.get("FLEXAI_BENCH_SIMULATE") and cards_here()[0].startswith("real")


def has_torch() -> bool:
    """Whether PyTorch tenants can run: it is installed, and the card computes."""
    return is_real() and importlib.util.find_spec("torch") is not None


@dataclass(slots=True)
class Stand:
    """A pool for one case."""

    pool: PoolClient
    usage: UsageFile
    run_dir: str

    def held_ns(self, tenants: Sequence[Tenant]) -> list[int]:
        """Card time that each tenant has had so far."""
        usage = self.usage.read()
        held = {entry.tenant: entry.held_ns for entry in usage.tenants} if usage else {}
        return [held.get(f"{tenant.job_id}.0", 0) for tenant in tenants]

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


@contextmanager
def stand(backend: str = "hwslice") -> Iterator[Stand]:
    """A fresh pool on the machine's cards, or on one simulated card."""
    simulate = "" if is_real() else SIMULATED
    with own_pool(simulate, {"FLEXAI_BACKEND": backend}) as own:
        yield Stand(PoolClient(own.run_dir), UsageFile(own.run_dir / "usage"), str(own.run_dir))


@dataclass(frozen=True, slots=True)
class Window:
    """What tenants did over a time: rates (iterations/s) and parts of the card's time."""

    seconds: float
    rates: tuple[float, ...]
    parts: tuple[float, ...]


def measure(on: Stand, running: Sequence[Tenant], seconds: float, settle_s: float = 1.0) -> list[Window]:
    """Let all run together; one window per second, after ``settle_s``."""
    for tenant in running:
        tenant.control.order(RUN)
    time.sleep(settle_s)
    windows = []
    before = _state(on, running)
    for _ in range(max(1, round(seconds))):
        time.sleep(1.0)
        after = _state(on, running)
        windows.append(_window(before, after))
        before = after
    for tenant in running:
        tenant.control.order(IDLE)
    time.sleep(0.2)
    return windows


def over(windows: Sequence[Window]) -> Window:
    """Several windows as one."""
    seconds = sum(window.seconds for window in windows)
    n = len(windows[0].rates)
    return Window(
        seconds,
        tuple(sum(window.rates[i] * window.seconds for window in windows) / seconds for i in range(n)),
        tuple(sum(window.parts[i] * window.seconds for window in windows) / seconds for i in range(n)),
    )


def solo(on: Stand, tenant: Tenant, seconds: float) -> float:
    """Iterations per second of a tenant that has the card to itself."""
    return over(measure(on, [tenant], seconds, settle_s=0.5)).rates[0]


def _state(on: Stand, running: Sequence[Tenant]) -> tuple[int, list[tuple[int, int]], list[int]]:
    return time.monotonic_ns(), [tenant.control.counted() for tenant in running], on.held_ns(running)


def _window(
    before: tuple[int, list[tuple[int, int]], list[int]], after: tuple[int, list[tuple[int, int]], list[int]]
) -> Window:
    took_s = (after[0] - before[0]) / 1e9
    rates = tuple(
        (n_after - n_before) / ((at_after - at_before) / 1e9)
        if at_after > at_before > 0
        else (n_after - n_before) / took_s
        for (n_before, at_before), (n_after, at_after) in zip(before[1], after[1], strict=True)
    )
    parts = tuple((held - was) / 1e9 / took_s for was, held in zip(before[2], after[2], strict=True))
    return Window(took_s, rates, parts)


def flood(milli: int, kernel_us: float, limit_milli: int = 1000, *, bare: bool = False) -> Load:
    """Kernels back to back, enough of them queued for 20 ms."""
    depth = max(4, min(256, round(20_000 / kernel_us)))
    return Load(milli, kernel_us, limit_milli, more=("--depth", str(depth)), bare=bare)


def torch(milli: int, kind: str, limit_milli: int = 1000, *, bare: bool = False) -> Load:
    """A PyTorch tenant."""
    return Load(milli, 0.0, limit_milli, kind=f"torch-{kind}", memory_bytes=8 << 30, bare=bare)
