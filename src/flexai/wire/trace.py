"""Traces of jobs and nodes: openb, Philly, Slurm's ``sacct`` and our own CSV, line by line.

Every reader takes lines and the name of their source, and gives rows; a row that does not parse raises ``BadInput``
naming file, line, field and value, or is counted when ``skip_bad`` is set. No file is opened here.

Sources: openb is Alibaba's cluster-trace-gpu-v2023 (its timestamps cannot load the cluster: packing only); Philly is
Microsoft's trace as filtered by the Sia artifact; ``sacct`` is ``sacct --parsable2 --format=...`` with a header line.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from _csv import Reader as CsvReader
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
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
    """One job of a trace, per member; times are ms from the trace's own epoch, -1 where it gives none."""

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


@dataclass(slots=True)
class BadRows:
    """What was left out of a trace, for the run card: first few errors in words, all of them counted."""

    skip: bool = False
    n: int = 0
    first: list[str] = field(default_factory=list)

    def take(self, error: BadInput) -> None:
        """Count the error, or raise it when bad rows are not to be skipped."""
        if not self.skip:
            raise error
        self.n += 1
        if len(self.first) < 5:
            self.first.append(str(error))


def _rows(lines: Iterable[str], source: str, needed: tuple[str, ...], delimiter: str = ",") -> Iterator[_Row]:
    reader = csv.reader(lines, delimiter=delimiter)
    header = _next(reader)
    if not header:
        raise BadInput(source, "", "has no header line", "Give a trace whose first line names its columns")
    missing = [name for name in needed if name not in header]
    if missing:
        raise BadInput(
            f"{source}:1", ",".join(header)[:200], f"lacks the columns {', '.join(missing)}", "Check --format"
        )
    while (values := _next(reader)) is not None:
        yield _Row(source, reader.line_num, header, values)


def _next(reader: CsvReader) -> list[str] | None:
    """The next line's fields; none of a line that is no CSV (its field count then tells), None at the end."""
    try:
        return next(reader, None)
    except csv.Error:
        return []


class _Row:
    """One line, whose fields are read with errors that name file, line, field and value."""

    def __init__(self, source: str, number: int, header: list[str], values: list[str]) -> None:
        self._where = f"{source}:{number}"
        self.number = number
        self.names = frozenset(header)
        if len(values) != len(header):
            self._values: dict[str, str] = {}
            self.problem: str | None = f"has {len(values)} fields where the header has {len(header)}"
        else:
            self._values = dict(zip(header, values, strict=True))
            self.problem = None

    def text(self, name: str) -> str:
        if self.problem:
            raise BadInput(self._where, "", self.problem, "Mend the line, or use --skip-bad")
        return self._values[name].strip()

    def integer(self, name: str, *, least: int = 0, most: int = 2**53) -> int:
        return int(self._number(name, least, most))

    def number_of(self, name: str) -> float:
        return self._number(name, 0, 2**53)

    def scaled(self, name: str, scale: int, least: int) -> int:
        return round(self._number(name, least / scale, 2**53 / scale) * scale)

    def ms(self, name: str) -> int:
        """A number of seconds, as ms."""
        return round(self._number(name, 0, 2**40) * 1000)

    def moment_ms(self, name: str) -> int:
        """A time written ``2017-10-02 12:00:00`` or with a T; as ms since 1970 in UTC."""
        text = self.text(name)
        try:
            return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
        except ValueError:
            raise self.wrong(name, "is not a time like 2017-10-02 12:00:00") from None

    def _number(self, name: str, least: float, most: float) -> float:
        text = self.text(name)
        try:
            value = float(text)
        except ValueError:
            raise self.wrong(name, "is not a number") from None
        if not least <= value <= most:
            raise self.wrong(name, f"is not within {least:g} to {most:g}")
        return value

    def wrong(self, name: str, problem: str) -> BadInput:
        return BadInput(f"{self._where}: {name}", self._values.get(name, ""), problem, "Mend it, or use --skip-bad")


def _read(
    lines: Iterable[str],
    source: str,
    needed: tuple[str, ...],
    make: Callable[[_Row], T | None],
    bad: BadRows,
    *,
    delimiter: str = ",",
) -> list[T]:
    out: list[T] = []
    for row in _rows(lines, source, needed, delimiter):
        try:
            made = make(row)
        except BadInput as error:
            bad.take(error)
        else:
            if made is not None:
                out.append(made)
    return out


def read_openb_nodes(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceNode]:
    """Read openb's ``nodes.csv``; rows without cards are left out."""

    def make(row: _Row) -> TraceNode | None:
        n_devices = row.integer("gpu", most=1024)
        if n_devices == 0:
            return None
        ram_bytes = row.integer("memory_mib") * 2**20
        return TraceNode(row.text("sn"), n_devices, row.text("model"), row.integer("cpu_milli"), ram_bytes)

    return _read(lines, source, ("sn", "cpu_milli", "memory_mib", "gpu", "model"), make, bad)


def read_openb_pods(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read an openb pod list: ``num_gpu`` cards at ``gpu_milli`` each; ``gpu_spec`` is models joined by ``|``.

    Pods without cards stay in (``n_devices`` 0): they take CPU and memory that others then miss.
    """

    def make(row: _Row) -> TraceJob:
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

    return _read(lines, source, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), make, bad)


def read_philly(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read Philly: submit time, seconds, whole cards, virtual cluster (as queue); sorted by submit time."""

    def make(row: _Row) -> TraceJob:
        n_devices = row.integer("num_gpus", least=1, most=100_000)
        return TraceJob(
            name=f"philly-{row.number}", queue=row.text("cluster"), user="", submit_ms=row.moment_ms("timestamp"),
            duration_ms=row.ms("duration"), n_members=1, n_devices=n_devices, compute_milli=1000,
        )  # fmt: skip

    return sorted(_read(lines, source, ("timestamp", "duration", "num_gpus", "cluster"), make, bad), key=_submit)


def read_own(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read our own CSV: submit_s, duration_s, devices, and optionally share, members, queue, user, cpus, ram_gib, name.

    The clock may not run back: a row earlier than the one before it is an error that names both times.
    """
    latest = -1

    def make(row: _Row) -> TraceJob:
        nonlocal latest
        submit_ms = row.ms("submit_s")
        if submit_ms < latest:
            raise row.wrong("submit_s", f"runs back from {latest / 1000:g} s")
        latest = submit_ms

        def number(name: str, default: int, scale: int, *, least: int = 0) -> int:
            return row.scaled(name, scale, least) if name in row.names and row.text(name) else default

        def text(name: str, default: str) -> str:
            return row.text(name) or default if name in row.names else default

        return TraceJob(
            name=text("name", f"{source}-{row.number}"), queue=text("queue", "default"), user=text("user", ""),
            submit_ms=submit_ms, duration_ms=row.ms("duration_s"), n_members=number("members", 1, 1, least=1),
            n_devices=row.integer("devices", most=100_000), compute_milli=number("share", 1000, 1000, least=1),
            cpu_milli=number("cpus", 0, 1000), ram_bytes=number("ram_gib", 0, GIB),
        )  # fmt: skip

    return _read(lines, source, ("submit_s", "duration_s", "devices"), make, bad)


def read_sacct(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read ``sacct --parsable2 --allocations --format=JobID,User,Partition,Submit,ElapsedRaw,AllocTRES,NNodes``.

    Cards come from ``gres/gpu=N`` in AllocTRES and are spread evenly over the job's nodes; jobs without any are left
    out; the partition is the queue.
    """

    def make(row: _Row) -> TraceJob | None:
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
    return sorted(_read(lines, source, needed, make, bad, delimiter="|"), key=_submit)


@dataclass(frozen=True, slots=True)
class ServingSample:
    """One sample of a serving pod: GPU duty in per cent (GenAI 2026) or bytes in use, at seconds since 1970."""

    at_s: float
    pod: str
    value: float


def read_serving(lines: Iterable[str], source: str, bad: BadRows) -> list[ServingSample]:
    """Read a GenAI-serving series (``timestamp,pod,value``)."""

    def make(row: _Row) -> ServingSample:
        return ServingSample(row.number_of("timestamp"), row.text("pod"), row.number_of("value"))

    return _read(lines, source, ("timestamp", "pod", "value"), make, bad)


def _submit(job: TraceJob) -> int:
    return job.submit_ms
