"""Traces of others, line by line: openb, Philly, Slurm's ``sacct`` and series of serving pods.

Every reader takes lines and the name of their source, and gives rows; a row that does not parse raises ``BadInput``
naming file, line, field and value, or is counted when ``skip_bad`` is set. No file is opened here.

Sources: openb is Alibaba's cluster-trace-gpu-v2023 (its timestamps cannot load the cluster: packing only); Philly is
Microsoft's trace as filtered by the Sia artifact; ``sacct`` is ``sacct --parsable2 --format=...`` with a header line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai.wire.trace_rows import BadRows, Row, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "OPENB_DEVICE_MEMORY_BYTES",
    "BadRows",
    "ServingSample",
    "TraceJob",
    "TraceNode",
    "read_openb_nodes",
    "read_openb_pods",
    "read_philly",
    "read_sacct",
    "read_serving",
]
GIB = 2**30
OPENB_DEVICE_MEMORY_BYTES = {
    "P100": 16 * GIB,
    "T4": 16 * GIB,
    "V100M16": 16 * GIB,
    "V100M32": 32 * GIB,
    "A10": 24 * GIB,
    "G2": 24 * GIB,
    "G3": 80 * GIB,
}
"""The trace names models only. G2 and G3 are anonymised there; their sizes here are assumptions and are not used for
placement, since the trace's pods ask for no card memory."""


@dataclass(frozen=True, slots=True)
class TraceNode:
    """One host of a trace: ``n_devices`` cards of one model, with CPU (thousandths of a core) and memory (bytes)."""

    name: str
    n_devices: int
    model: str
    cpu_milli: int
    ram_bytes: int


@dataclass(frozen=True, slots=True)
class TraceJob:
    """One job of a trace, per member; times are ms from the trace's own epoch, -1 where it gives none.

    ``min_member`` -1 stands for all members. Where members are unlike, ``roles`` are what those of each role ask for.
    """

    name: str
    queue: str
    user: str
    submit_ms: int
    duration_ms: int
    n_members: int
    n_devices: int
    compute_milli: int
    cpu_milli: int = 0
    ram_bytes: int = 0
    models: tuple[str, ...] = ()
    priority: int = 0
    preemptible: bool = True
    checkpointable: bool = False
    min_member: int = -1
    gang: str = ""
    role: str = ""
    roles: tuple[TraceJob, ...] = ()


def read_openb_nodes(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceNode]:
    """Read openb's ``nodes.csv``; rows without cards are left out."""

    def make(row: Row) -> TraceNode | None:
        n_devices = row.integer("gpu", most=1024)
        if n_devices == 0:
            return None
        ram_bytes = row.integer("memory_mib") * 2**20
        return TraceNode(row.text("sn"), n_devices, row.text("model"), row.integer("cpu_milli"), ram_bytes)

    return read_rows(lines, source, ("sn", "cpu_milli", "memory_mib", "gpu", "model"), make, bad)


def read_openb_pods(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read an openb pod list: ``num_gpu`` cards at ``gpu_milli`` each; ``gpu_spec`` is models joined by ``|``.

    Pods without cards stay in (``n_devices`` 0): they take CPU and memory that others then miss.
    """

    def make(row: Row) -> TraceJob:
        has_spec = "gpu_spec" in row.names
        models = tuple(m for m in row.text("gpu_spec").split("|") if m) if has_spec else ()
        n_devices = row.integer("num_gpu", most=1024)
        milli = row.integer("gpu_milli", most=1000)
        if n_devices and not milli:
            raise row.wrong("gpu_milli", "is 0 although num_gpu is not")
        return TraceJob(
            name=row.text("name"), queue="", user="", submit_ms=-1, duration_ms=-1, n_members=1, n_devices=n_devices,
            compute_milli=milli, cpu_milli=row.integer("cpu_milli"), ram_bytes=row.integer("memory_mib") * 2**20,
            models=models,
        )  # fmt: skip

    return read_rows(lines, source, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), make, bad)


def read_philly(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read Philly: submit time, seconds, whole cards, virtual cluster (as queue); sorted by submit time."""

    def make(row: Row) -> TraceJob:
        n_devices = row.integer("num_gpus", least=1, most=100_000)
        return TraceJob(
            name=f"philly-{row.number}", queue=row.text("cluster"), user="", submit_ms=row.moment_ms("timestamp"),
            duration_ms=row.ms("duration"), n_members=1, n_devices=n_devices, compute_milli=1000,
        )  # fmt: skip

    return sorted(read_rows(lines, source, ("timestamp", "duration", "num_gpus", "cluster"), make, bad), key=_submit)


def read_sacct(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read ``sacct --parsable2 --allocations --format=JobID,User,Partition,Submit,ElapsedRaw,AllocTRES,NNodes``.

    Cards come from ``gres/gpu=N`` in AllocTRES and are spread evenly over the job's nodes; jobs without any are left
    out; the partition is the queue.
    """

    def make(row: Row) -> TraceJob | None:
        tres = dict(part.split("=", 1) for part in row.text("AllocTRES").split(",") if "=" in part)
        cards = tres.get("gres/gpu")
        if cards is None:
            return None
        if not cards.isdecimal() or int(cards) > 1_000_000:
            raise row.wrong("AllocTRES", "has a gres/gpu that is not a count")
        n_nodes = row.integer("NNodes", least=1, most=1_000_000)
        if int(cards) % n_nodes:
            n_nodes = 1
        cpus = tres.get("cpu", "0")
        return TraceJob(
            name=row.text("JobID"), queue=row.text("Partition"), user=row.text("User"),
            submit_ms=row.moment_ms("Submit"), duration_ms=row.ms("ElapsedRaw"), n_members=n_nodes,
            n_devices=int(cards) // n_nodes, compute_milli=1000,
            cpu_milli=int(cpus) * 1000 // n_nodes if cpus.isdecimal() else 0,
        )  # fmt: skip

    needed = ("JobID", "User", "Partition", "Submit", "ElapsedRaw", "AllocTRES", "NNodes")
    return sorted(read_rows(lines, source, needed, make, bad, delimiter="|"), key=_submit)


@dataclass(frozen=True, slots=True)
class ServingSample:
    """One sample of a serving pod: GPU duty in per cent (GenAI 2026) or bytes in use, at seconds since 1970."""

    at_s: float
    pod: str
    value: float


def read_serving(lines: Iterable[str], source: str, bad: BadRows) -> list[ServingSample]:
    """Read a GenAI-serving series (``timestamp,pod,value``)."""

    def make(row: Row) -> ServingSample:
        return ServingSample(row.number_of("timestamp"), row.text("pod"), row.number_of("value"))

    return read_rows(lines, source, ("timestamp", "pod", "value"), make, bad)


def _submit(job: TraceJob) -> int:
    return job.submit_ms
