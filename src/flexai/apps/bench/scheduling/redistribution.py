"""Redistribution in a live pool on simulated cards: what owners leave idle goes to waiting work, and comes back.

Measured from outside, by what the programs themselves have finished (kernels of known length), in a pool of processes
as users run it. A card is granted in full, with part of its memory, to one owner: to one that works for ``ON_S`` and
then idles for ``OFF_S``, or to one that uses three tenths all the time, in short requests. Best-effort jobs of
``GUEST_S`` of work, whose memory fits beside it, wait all the while.

Idle slice-time: granted compute that its owner did not use while a best-effort job waited whose memory fits (here:
always). Lent: what best-effort jobs used in that time. Of the idle time the first second after an owner fell idle is
left out of the judged figure ("within 1 s"); every later gap counts, also that between the end of one job and the start
of the next, and the time with that second counted in is given beside it.

Take-back: an owner that has been idle begins to work. How much later its first 50 ms of work are done than in 50 ms,
less the same without any borrower: so it is all the time that borrowers had of these 50 ms, not only until the first
kernel.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.adapters.own_pool import own_pool
from flexai.adapters.pool_client import PoolClient
from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.tenants import END, IDLE, RUN, Control, Load, Tenant, tenants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Run

GIB = 1 << 30
KERNEL_US = 1000.0
STEADY_MS, STEADY_OF_MS = 3.0, 10.0
ON_S, OFF_S = 3.0, 5.0
WITHIN_S = 1.0
GUEST_S = 2.0
SAMPLE_S = 0.05
FIRST_MS = 50
LONGEST_NS = 10_000_000_000
_KEPT = ("PATH", "PYTHONPATH", "HOME")


@dataclass(slots=True)
class Guests:
    """Best-effort jobs, each with a control file that lets it run as soon as it is started."""

    pool: PoolClient
    folder: Path
    controls: list[Control] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)

    def submit(self, n_jobs: int, work_s: float) -> None:
        """So many more, each of so much card time."""
        for _ in range(n_jobs):
            control = Control(self.folder / f"guest-{len(self.controls)}")
            control.order(RUN)
            load = Load(
                500, KERNEL_US, tenant_class="best_effort", more=("--iterations", f"{work_s * 1e6 / KERNEL_US:.0f}")
            )
            body = {
                "kind": "submit", "name": f"guest-{len(self.controls)}", "command": load.command(control.path),
                "cwd": "/", "env": {name: os.environ[name] for name in _KEPT if name in os.environ},
                "compute_milli": load.share_milli, "memory_bytes": 8 * GIB, "tenant_class": load.tenant_class,
            }  # fmt: skip
            self.controls.append(control)
            self.job_ids.append(str(self.pool.post("/v1/jobs", body)["ids"][0]))

    def worked_s(self) -> float:
        """Card time of all kernels that they have finished."""
        return sum(control.counted()[0] for control in self.controls) * KERNEL_US / 1e6

    @property
    def n_waiting(self) -> int:
        """Those that have not started."""
        return sum(self.pool.get(f"/v1/jobs/{job_id}")["state"] == "queued" for job_id in self.job_ids[-8:])

    def end(self) -> None:
        """All of them."""
        for control in self.controls:
            control.order(END)
        for job_id in self.job_ids:
            self.pool.post(f"/v1/jobs/{job_id}/cancel")
        for control in self.controls:
            control.close()
            control.path.unlink()


@contextmanager
def _stand(run: Run, n_cards: int, loads: Sequence[Load]) -> Iterator[tuple[list[Tenant], Guests]]:
    with own_pool(f"h200:{n_cards}") as own:
        pool = PoolClient(own.run_dir)
        guests = Guests(pool, run.folder)
        with tenants(pool, run.folder, loads) as owners:
            try:
                yield owners, guests
            finally:
                guests.end()


def _owner(kind: str, *more: str, kernel_us: float = KERNEL_US) -> Load:
    """A whole card's compute, so that nothing but what is idle is left, and part of its memory."""
    return Load(999, kernel_us, kind=kind, memory_bytes=40 * GIB, more=more)


def lent(run: Run) -> Iterable[Row]:
    """How much of what owners left idle was used by best-effort jobs that waited, for three kinds of owners."""
    seconds = 16.0 if run.quick else 48.0
    period = ("--period-us", f"{STEADY_OF_MS * 1000:g}")
    part = f"{100 * STEADY_MS / STEADY_OF_MS:g} %"
    kinds = (
        (f"owner {ON_S:g} s on, {OFF_S:g} s off", _owner("flood"), KERNEL_US),
        (f"latency owner at {part}", replace(_steady(*period), tenant_class="latency"), STEADY_MS * 1000),
        (f"guaranteed owner at {part}, {STEADY_OF_MS - STEADY_MS:g} ms gaps", _steady(*period), STEADY_MS * 1000),
    )
    for what, load, kernel_us in kinds:
        yield from _lent_by(run, what, load, kernel_us, seconds)


def _steady(*more: str) -> Load:
    return _owner("latency", *more, kernel_us=STEADY_MS * 1000)


def _lent_by(run: Run, what: str, load: Load, kernel_us: float, seconds: float) -> Iterator[Row]:
    is_wave = load.kind == "flood"
    idle_s = used_s = late_idle_s = late_used_s = 0.0
    with _stand(run, 1, (load,)) as ((owner,), guests):
        owner.control.order(RUN)
        time.sleep(2.0)
        guests.submit(int(seconds / GUEST_S) + 24, GUEST_S)
        began = time.monotonic()
        off_since = None if is_wave else began
        before = began, owner.control.counted()[0] * kernel_us / 1e6, 0.0
        while before[0] - began < seconds:
            time.sleep(SAMPLE_S)
            now = time.monotonic(), owner.control.counted()[0] * kernel_us / 1e6, guests.worked_s()
            idle, used = now[0] - before[0] - (now[1] - before[1]), now[2] - before[2]
            idle_s, used_s = idle_s + idle, used_s + used
            if off_since is None or now[0] - off_since > WITHIN_S:
                late_idle_s, late_used_s = late_idle_s + idle, late_used_s + used
            before = now
            if is_wave:
                is_on = (now[0] - began) % (ON_S + OFF_S) < ON_S
                owner.control.order(RUN if is_on else IDLE)
                off_since = None if is_on else off_since or now[0]
        if not guests.n_waiting:
            raise RuntimeError("at the end nothing waited, so idle time was not wanted")
    conditions = f"live pool, simulated card granted in full; {what}; jobs of {GUEST_S:g} s wait; {seconds:g} s"
    note = f"{late_used_s:.1f} of {late_idle_s:.1f} card-seconds; {100 * used_s / idle_s:.1f} % with the first second"
    yield Row("idle slice-time lent within 1 s", conditions, at_least(90.0), 100 * late_used_s / late_idle_s, "%", note)


def taken_back(run: Run) -> Iterable[Row]:
    """How late an owner's first work is because borrowers have its card."""
    n_times = 10 if run.quick else 40
    with _stand(run, 1, (_owner("flood"),)) as ((owner,), guests):
        alone = sorted(_first_work_late_ms(owner.control) for _ in range(n_times))
        median_ms = alone[len(alone) // 2]
        guests.submit(2, 6_000.0)
        until = time.monotonic() + 30.0
        while min(control.counted()[0] for control in guests.controls) < FIRST_MS:
            if time.monotonic() > until:
                raise TimeoutError("nothing was lent within 30 s")
            time.sleep(0.05)
        late = sorted(_first_work_late_ms(owner.control) - median_ms for _ in range(n_times))
    conditions = f"live pool, 1 simulated card, 2 borrowers that never rest, {n_times} times"
    for name, got in (("take-back, median", late[len(late) // 2]), ("take-back, longest", late[-1])):
        yield Row(name, conditions, at_most(50.0), max(0.0, got), "ms",
                  f"alone {median_ms:.1f} ms late", tuple(late))  # fmt: skip


def _first_work_late_ms(control: Control) -> float:
    """Let the owner work after a pause: how much later its first work is done than its kernels are long."""
    control.order(IDLE)
    time.sleep(0.5)
    before, _ = control.counted()
    began_ns = time.monotonic_ns()
    control.order(RUN)
    while True:
        n_done, last_ns = control.counted()
        late_ms = (last_ns - began_ns) / 1e6 - (n_done - before) * KERNEL_US / 1000
        if (n_done - before) * KERNEL_US / 1000 >= FIRST_MS or time.monotonic_ns() - began_ns > LONGEST_NS:
            control.order(IDLE)
            return late_ms
        time.sleep(0.001)


CASES = (
    Case("lent", "live pool: idle slice-time lent while a waiting job's memory fits", lent, 160),
    Case("take-back", "live pool: how late an owner's work is because its compute was lent", taken_back, 50),
)
