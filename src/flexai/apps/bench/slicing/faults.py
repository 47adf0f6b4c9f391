"""What others notice when somebody comes, or dies."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from flexai.adapters.pool_client import PoolUnreachable
from flexai.apps.bench.frame import Case, Row, at_most, quantile
from flexai.apps.bench.slicing.memory import watched
from flexai.apps.bench.slicing.moments import full_from_ns, runs_of
from flexai.apps.bench.slicing.stand import Stand, flood, name_of, stand
from flexai.apps.bench.tenants import RUN, Load, tenants
from flexai.wire.timeline import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.tenants import Tenant
    from flexai.wire.timeline import Record

_GIB = 1 << 30
_BACK_S = 20.0


def found(run: Run) -> Iterator[Row]:
    """Processes of a tenant one after the other, beside a busy neighbour: from first on the card to first held."""
    n_processes = 4 if run.quick else 10
    with stand() as on:
        for bare in (False, True):
            with tenants(on.pool, run.folder, [flood(500, 500)]) as (neighbour,):
                neighbour.order(RUN)
                time.sleep(0.5)
                one = " ".join(flood(500, 500).command(run.folder / "none")[:4])
                strip = "env -u LD_PRELOAD " if bare else ""
                script = f"for i in $(seq {n_processes}); do {strip}{one} --seconds 0.3 >/dev/null; done"
                body = {
                    "kind": "submit", "name": "comers", "command": ["/bin/sh", "-c", script], "cwd": "/",
                    "env": {"PATH": os.environ["PATH"]}, "compute_milli": 500, "memory_bytes": _GIB,
                }  # fmt: skip
                job = str(on.pool.post("/v1/jobs", body)["ids"][0])
                until = time.monotonic() + 5.0 * n_processes
                while on.pool.get(f"/v1/jobs/{job}")["exit_code"] is None and time.monotonic() < until:
                    on.listen()
                    time.sleep(0.05)
                told = on.listen()
            delays_ms = _held_after_ms(told, f"{job}.0")
            note = f"p50 {quantile(delays_ms, 0.5):.1f} ms; {n_processes - len(delays_ms)} of {n_processes} never"
            yield Row(
                "a new process found and held, worst",
                f"beside a flood, 50 % each, {'no preload' if bare else 'with preload'}, {len(delays_ms)} processes",
                at_most(50.0), max(delays_ms, default=float("nan")), "ms",
                f"from its context's first moment on the card, by the log, until the arbiter can stop it; {note}",
                tuple(delays_ms),
            )  # fmt: skip


def _held_after_ms(told: Sequence[Record], tenant: str) -> list[float]:
    """For each process that the arbiter can hold: how long after its first moment on the card; 0 if before."""
    first_ns: dict[int, int] = {}
    held_ms: dict[int, float] = {}
    found: set[int] = set()
    pids = {record.pid for record in told if record.tenant == tenant and record.pid}
    for record in told:
        if record.pid not in pids:
            continue
        if record.kind is Kind.RUNS:
            first_ns.setdefault(record.pid, record.at_ns)
            if record.pid in found:
                held_ms.setdefault(record.pid, 0.0)
        if record.kind is Kind.FOUND:
            found.add(record.pid)
            if record.pid in first_ns:
                held_ms.setdefault(record.pid, (record.at_ns - first_ns[record.pid]) / 1e6)
    return list(held_ms.values())


def holder_killed(run: Run) -> Iterator[Row]:
    """Kill -9 of a tenant while it has the card: when the other has all of it, and when its memory is free."""
    n_kills = 3 if run.quick else 8
    full_ms, free_ms = [], []
    loads = [Load(500, 500.0, more=("--memory", str(4 * _GIB)), memory_bytes=6 * _GIB), flood(500, 500)]
    with stand() as on:
        for _ in range(n_kills):
            with watched(on, "changes") as watch:
                with tenants(on.pool, run.folder, loads) as (victim, other):
                    for tenant in (victim, other):
                        tenant.order(RUN)
                    time.sleep(0.8)
                    killed_ns = _kill_on_the_card(on, name_of(victim))
                    time.sleep(0.5)
                    told, end_ns = on.listen(), time.monotonic_ns()
                    from_ns = full_from_ns(runs_of(told, name_of(other), killed_ns, end_ns), killed_ns, 0.95)
                time.sleep(0.1)
            full_ms.append((from_ns - killed_ns) / 1e6 if from_ns is not None else float("inf"))
            free_ms.append(_free_after_ms(watch.told["changes"], killed_ns))
    conditions = f"two floods 50/50, the holder has 4 GiB, worst of {n_kills}"
    yield Row(
        "holder killed -9: others at full share", conditions, at_most(10.0), max(full_ms), "ms",
        f"95 % of the 20 ms that follow, by the log; p50 {quantile(full_ms, 0.5):.2f}", tuple(full_ms),
    )  # fmt: skip
    yield Row(
        "holder killed -9: its memory free", conditions, at_most(100.0), max(free_ms), "ms",
        f"by the card's own books, from the signal; p50 {quantile(free_ms, 0.5):.1f}", tuple(free_ms),
    )  # fmt: skip


def _kill_on_the_card(on: Stand, tenant: str) -> int:
    """Kill the tenant's process while the log says that it has the card; when (ns)."""
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        told = on.listen()
        last = next((record for record in reversed(told) if record.kind in {Kind.RUNS, Kind.LEFT}), None)
        if last is not None and last.kind is Kind.RUNS and last.tenant == tenant:
            killed_ns = time.monotonic_ns()
            os.kill(last.pid, signal.SIGKILL)
            return killed_ns
    raise RuntimeError("the tenant that was to be killed never had the card")


def _free_after_ms(changes: Sequence[tuple[int, int]], killed_ns: int) -> float:
    """When the card's used memory had fallen by most of what the victim had, after the kill."""
    held = [above for at_ns, above in changes if at_ns <= killed_ns][-1]
    for at_ns, above in changes:
        if at_ns > killed_ns and held - above >= 4 * _GIB:
            return (at_ns - killed_ns) / 1e6
    return float("inf")


def _longest_stall_ms(watched_tenants: Sequence[Tenant], seconds: float) -> float:
    """Longest time in which one of these tenants finished no kernel."""
    until = time.monotonic() + seconds
    last = [(tenant.counted()[0], time.monotonic()) for tenant in watched_tenants]
    longest = 0.0
    while (now := time.monotonic()) < until:
        for place, tenant in enumerate(watched_tenants):
            n = tenant.counted()[0]
            longest = max(longest, now - last[place][1])
            if n != last[place][0]:
                last[place] = n, now
        time.sleep(0.0005)
    return 1000 * longest


def arbiter_killed(run: Run) -> Iterator[Row]:
    """Kill -9 of the arbiter while two tenants take turns: who is stopped goes on, and is held again soon."""
    return _part_killed("arbiter", "held again", 2 if run.quick else 5, run, Stand.arbiter_pid, _all_held)


def agent_killed(run: Run) -> Iterator[Row]:
    """Kill -9 of the agent: the arbiter goes on by itself, and the next agent adopts what runs."""
    return _part_killed("agent", "re-adopted", 1 if run.quick else 4, run, lambda on: on.pid_of("agent"), _has_agent)


def _part_killed(
    part: str,
    again: str,
    n_kills: int,
    run: Run,
    pid_of: Callable[[Stand], int],
    is_back: Callable[[Stand, Sequence[Tenant], Sequence[int]], bool],
) -> Iterator[Row]:
    """``is_back`` is asked once there is a new process, with what each tenant held before the kill (ns)."""
    stalls, back = [], []
    with stand() as on, tenants(on.pool, run.folder, [flood(500, 500), flood(500, 500)]) as running:
        for tenant in running:
            tenant.order(RUN)
        time.sleep(1.5)
        for _ in range(n_kills):
            pid, held_ns = pid_of(on), on.held_ns(running)
            os.kill(pid, signal.SIGKILL)
            began_s = time.monotonic()
            stalls.append(_longest_stall_ms(running, 0.4))
            while pid_of(on) in {0, pid} or not is_back(on, running, held_ns):
                if time.monotonic() - began_s > _BACK_S:
                    break
                time.sleep(0.01)
            back.append(1000 * (time.monotonic() - began_s))
            time.sleep(1.5)
        states = [on.pool.get(f"/v1/jobs/{tenant.job_id}")["state"] for tenant in running]
    conditions = f"two floods 50/50, worst of {n_kills}"
    n_ended = sum(state != "running" for state in states)
    yield Row(
        f"{part} killed -9: longest stop of a tenant", conditions, at_most(100.0), max(stalls), "ms",
        samples=tuple(stalls),
    )  # fmt: skip
    yield Row(f"{part} killed -9: tenants that failed", conditions, at_most(0.0), n_ended, "", ", ".join(states))
    yield Row(f"{part} killed -9: {again}", conditions, at_most(1000.0), max(back), "ms", samples=tuple(back))


def _all_held(on: Stand, running: Sequence[Tenant], held_ns: Sequence[int]) -> bool:
    return all(now > was for now, was in zip(on.held_ns(running), held_ns, strict=True))


def _has_agent(on: Stand, _running: Sequence[Tenant], _held_ns: Sequence[int]) -> bool:
    try:
        return bool((on.pool.get("/v1/status").get("agent") or {}).get("connected"))
    except PoolUnreachable:
        return False


CASES = (
    Case("found", "a new process of a tenant is found and held", found, 22, 9),
    Case("holder-killed", "kill -9 of the tenant that has the card", holder_killed, 25, 10),
    Case("arbiter-killed", "kill -9 of the arbiter", arbiter_killed, 16, 11),
    Case("agent-killed", "kill -9 of the agent", agent_killed, 13, 8),
)
