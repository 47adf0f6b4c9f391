"""Speed of the scheduler: binds a second, time from event to decision, reclaim of a gang, verdicts, memory.

Each function measures one thing on the production core and returns what it got, with its conditions. The core runs in
this process and alone; nothing is simulated but the cluster. The traces are the caller's.
"""

from __future__ import annotations

import gc
import hashlib
import resource
import sys
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.model import Device, Job, Node, Queue, SliceRequest, TenantClass, TopologyLevel
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut, Tick

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.scheduling.commands import Command
    from flexai.scheduling.events import Event

GIB = 2**30
QUEUES = ("team-a", "team-b", "team-c", "team-d")
NODES_PER_RACK = 16


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure: what, how much, in which unit, under which conditions (numbers that a reader may want)."""

    name: str
    got: float
    unit: str
    conditions: Mapping[str, float] = field(default_factory=dict)


def replicated(nodes: Sequence[Node], n_cards: int) -> list[Node]:
    """The nodes over and over, each copy with its own names, until there are ``n_cards``: the same mix, larger."""
    out: list[Node] = []
    total = 0
    for copy in range(sys.maxsize):
        for node in nodes:
            if total >= n_cards:
                return out
            devices = tuple(replace(device, uuid=f"{copy}/{device.uuid}") for device in node.devices)
            out.append(replace(node, name=f"{copy}/{node.name}", devices=devices))
            total += len(devices)
    raise AssertionError


def racks_of_eight(n_nodes: int, model: str = "H200") -> list[Node]:
    """Nodes of eight like cards, 16 nodes to a rack, 4 racks to a pod."""
    return [
        Node(
            f"n{index}",
            tuple(Device(f"n{index}/{card}", model, "simulated", card, 141 * GIB, 0) for card in range(8)),
            128_000,
            2_048 * GIB,
            (
                TopologyLevel("pod", f"p{index // NODES_PER_RACK // 4}", 1),
                TopologyLevel("rack", f"r{index // NODES_PER_RACK}", 2),
            ),
        )
        for index in range(n_nodes)
    ]


def filled(nodes: Iterable[Node], queues: Iterable[Queue]) -> Scheduler:
    """A scheduler that knows these queues and nodes."""
    scheduler = Scheduler()
    for queue in queues:
        scheduler.step(QueuePut(0, queue))
    for node in nodes:
        scheduler.step(NodePut(0, node))
    return scheduler


def binds_per_second(nodes: Sequence[Node], jobs: Sequence[Job], arrival: float = 1.0) -> list[Measured]:
    """Submit jobs over four queues of different weights until ``arrival`` of capacity is asked for.

    Nothing leaves; what does not fit stays, is asked for its Reason, and is what later events must not trip over. What
    is there before, nodes and trace, is frozen for the collector, as the pool's process does.
    """
    capacity_milli = 1000 * sum(len(node.devices) for node in nodes)
    scheduler = filled(nodes, [Queue(name, weight=1000 * (1 + at)) for at, name in enumerate(QUEUES)])
    asked_milli = n_bound = n_waiting = n_reasons = 0
    spread = [replace(job, queue=QUEUES[at % len(QUEUES)]) for at, job in enumerate(jobs)]
    gc.collect()
    gc.freeze()
    began = time.perf_counter()
    for job in spread:
        commands = scheduler.step(JobSubmitted(job.submitted_at_ms, job))
        starts = {command.job_id for command in commands if isinstance(command, Start)}
        n_bound += len(starts)
        if job.id not in starts:
            n_waiting += 1
            n_reasons += scheduler.reason_for(job.id) is not None
        asked_milli += job.n_members * job.request.n_devices * job.request.compute_milli
        if asked_milli >= arrival * capacity_milli:
            break
    took_s = time.perf_counter() - began
    gc.unfreeze()
    conditions = {
        "cards": capacity_milli // 1000, "bound": n_bound, "waiting": n_waiting, "reasons": n_reasons,
        "seconds": round(took_s, 3), "allocated_percent": round(100 * _granted(scheduler) / capacity_milli, 2),
    }  # fmt: skip
    return [Measured("binds", n_bound / took_s, "1/s", conditions)]


def event_latency(n_nodes: int = 776, n_pending: int = 5_000, n_events: int = 2_000) -> list[Measured]:
    """Time of one step while ``n_pending`` jobs wait on a full cluster: one ends, one comes, again and again."""
    scheduler = filled(racks_of_eight(n_nodes), [Queue(name) for name in QUEUES])
    running: list[tuple[str, int]] = []
    seq = 0

    def submit() -> float:
        nonlocal seq
        seq += 1
        job = _mixed_job(seq, QUEUES[seq % len(QUEUES)], at_ms=seq * 10)
        return _timed(scheduler, JobSubmitted(seq * 10, job), running)

    while scheduler.n_waiting < n_pending:
        submit()
    gc.collect()
    gc.freeze()
    times: list[float] = []
    for turn in range(n_events // 2):
        job_id, member = running.pop((turn * 7919) % len(running))
        times.append(_timed(scheduler, MemberFinished(seq * 10, job_id, member, 0), running))
        times.append(submit())
        while scheduler.n_waiting < n_pending:  # an end may let several start
            times.append(submit())
    gc.unfreeze()
    times.sort()
    conditions = {"cards": 8 * n_nodes, "waiting": scheduler.n_waiting, "events": len(times)}
    return [
        Measured("event to decision, p50", 1000 * times[len(times) // 2], "ms", conditions),
        Measured("event to decision, p99", 1000 * times[len(times) * 99 // 100], "ms", conditions),
        Measured("event to decision, worst", 1000 * times[-1], "ms", conditions),
    ]


def gang_reclaim(n_nodes: int = 1_000, n_members: int = 100) -> list[Measured]:
    """A gang of ``n_members`` x 8 cards comes to a full cluster of mixed jobs of another queue, within its quota."""
    quota = 8_000 * n_members
    scheduler = filled(racks_of_eight(n_nodes), [Queue("owner", quota_milli=quota), Queue("guest")])
    running: list[tuple[str, int]] = []
    for seq in range(1, 20 * n_nodes):
        _timed(scheduler, JobSubmitted(seq, _mixed_job(seq, "guest", seq)), running)
        if scheduler.n_waiting > 200:
            break
    gang = Job(
        "gang", "ann", "owner", SliceRequest(1000, 1000, 0, n_devices=8), n_members, n_members,
        submitted_at_ms=10**6, seq=10**6,
    )  # fmt: skip
    gc.collect()
    began = time.perf_counter()
    commands = scheduler.step(JobSubmitted(10**6, gang))
    decided_s = time.perf_counter() - began
    evicted = [command for command in commands if isinstance(command, Evict)]
    out: list[Command] = []
    began = time.perf_counter()
    for command in evicted:
        out += scheduler.step(MemberFinished(10**6 + 1, command.job_id, command.member, 143, "evicted"))
    drained_s = time.perf_counter() - began
    started = sum(isinstance(command, Start) and command.job_id == "gang" for command in out)
    conditions = {"cards": 8 * n_nodes, "gang_cards": 8 * n_members, "victims": len(evicted), "started": started}
    return [
        Measured("gang reclaim: whom to evict", decided_s, "s", conditions),
        Measured("gang reclaim: all ends booked and gang started", drained_s, "s", conditions),
    ]


def verdict(n_nodes: int = 8_125) -> list[Measured]:
    """A gang that cannot fit, with its Reason, on fragmented cards; topology and reclaim are tried."""
    scheduler = filled(racks_of_eight(n_nodes), [Queue("owner", quota_milli=10**9), Queue("guest")])
    running: list[tuple[str, int]] = []
    request = SliceRequest(600, 600, 60 * GIB)
    for seq in range(1, 8 * n_nodes + 1):  # one job that may not be evicted on each card: 40 % of each is free
        job = Job(f"j{seq}", "bob", "guest", request, preemptible=seq % 3 == 0, submitted_at_ms=seq, seq=seq)
        _timed(scheduler, JobSubmitted(seq, job), running)
    gang = Job(
        "gang", "ann", "owner", SliceRequest(500, 500, 10 * GIB, n_devices=8), 12, 12, required_level="rack",
        submitted_at_ms=10**7, seq=10**7,
    )  # fmt: skip
    gc.collect()
    began = time.perf_counter()
    commands = scheduler.step(JobSubmitted(10**7, gang))
    reason = scheduler.reason_for("gang")
    first_s = time.perf_counter() - began
    began = time.perf_counter()
    scheduler.step(Tick(10**7 + 1))
    scheduler.reason_for("gang")
    again_s = time.perf_counter() - began
    conditions = {"cards": 8 * n_nodes, "commands": len(commands), "has_reason": float(reason is not None)}
    return [
        Measured("cannot fit: step and Reason", 1000 * first_s, "ms", conditions),
        Measured("cannot fit: the tick after", 1000 * again_s, "ms", conditions),
    ]


def memory(n_nodes: int = 8_125, n_jobs: int = 100_000) -> list[Measured]:
    """Peak resident memory of this process with so many cards and jobs. Run it in a process of its own."""
    scheduler = filled(racks_of_eight(n_nodes), [Queue(name) for name in QUEUES])
    running: list[tuple[str, int]] = []
    for seq in range(1, n_jobs + 1):
        _timed(scheduler, JobSubmitted(seq, _mixed_job(seq, QUEUES[seq % len(QUEUES)], seq)), running)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    conditions = {"cards": 8 * n_nodes, "jobs": n_jobs, "running": len(running), "waiting": scheduler.n_waiting}
    return [Measured("peak resident memory", peak_kib / 1024, "MiB", conditions)]


def digest_of_afternoon(n_jobs: int) -> str:
    """SHA-256 over every command while ``n_jobs`` come to 512 cards, the oldest end, and one gang reclaims."""
    scheduler = filled(racks_of_eight(64), [*(Queue(name) for name in QUEUES), Queue("owner", quota_milli=256_000)])
    digest = hashlib.sha256()
    running: list[tuple[str, int]] = []

    def step(event: Event) -> None:
        for command in scheduler.step(event):
            digest.update(repr(command).encode())
            if isinstance(command, Start):
                running.append((command.job_id, command.member))
                step(MemberStarted(event.at_ms, command.job_id, command.member))
            elif isinstance(command, Evict):
                running.remove((command.job_id, command.member))
                step(MemberFinished(event.at_ms, command.job_id, command.member, 143, "evicted"))

    for seq in range(1, n_jobs + 1):
        step(JobSubmitted(seq * 1000, _mixed_job(seq, QUEUES[seq * 7919 % len(QUEUES)], seq * 1000)))
        if seq == n_jobs // 2:
            request = SliceRequest(1000, 1000, 0, n_devices=8)
            step(JobSubmitted(seq * 1000, Job("gang", "ann", "owner", request, 16, 16, submitted_at_ms=seq, seq=10**6)))
        if len(running) > 200:
            step(MemberFinished(seq * 1000, *running.pop(0), 0))
        if seq % 50 == 0:
            step(Tick(seq * 1000))
    return digest.hexdigest()


def _mixed_job(seq: int, queue: str, at_ms: int) -> Job:
    """Slices, whole cards, and a few that take half a node or all of it, by turns."""
    kinds = (
        SliceRequest(500, 1000, 60 * GIB), SliceRequest(1000, 1000, 0), SliceRequest(250, 500, 20 * GIB),
        SliceRequest(1000, 1000, 0, n_devices=2), SliceRequest(250, 250, 30 * GIB, TenantClass.LATENCY),
        SliceRequest(1000, 1000, 0, n_devices=4), SliceRequest(500, 500, 40 * GIB, n_devices=2),
        SliceRequest(1000, 1000, 0, n_devices=8),
    )  # fmt: skip
    return Job(
        f"j{seq}", f"user{seq % 40}", queue, kinds[(seq * 2_654_435_761 >> 7) % len(kinds)],
        cpu_milli=1000, submitted_at_ms=at_ms, seq=seq,
    )  # fmt: skip


def _timed(scheduler: Scheduler, event: Event, running: list[tuple[str, int]]) -> float:
    began = time.perf_counter()
    commands = scheduler.step(event)
    took_s = time.perf_counter() - began
    for command in commands:
        if isinstance(command, Start):
            running.append((command.job_id, command.member))
            scheduler.step(MemberStarted(event.at_ms, command.job_id, command.member))
    return took_s


def _granted(scheduler: Scheduler) -> int:
    return int(scheduler.state.books.granted_milli.sum())
