"""Trace files: opened, hashed, recognised by their header line, read."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.simulation.serving import ServingPods, pods_of
from flexai.simulation.workload import Work
from flexai.wire.cluster_spec import nodes_of_trace, parse_cluster
from flexai.wire.errors import BadInput
from flexai.wire.own_trace import NEEDED, read_own, read_own_yaml
from flexai.wire.recorded_trace import HEADER as RECORDING
from flexai.wire.recorded_trace import read_recorded
from flexai.wire.trace import (
    BadRows,
    TraceJob,
    read_openb_nodes,
    read_openb_pods,
    read_philly,
    read_sacct,
    read_serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from flexai.model import Node

    Reader = Callable[[Iterable[str], str, BadRows], list[TraceJob]]

SERVING_HEADER = "timestamp,pod,value"
MOST_DUTY_PERCENT = 100.0
FORMATS: dict[str, tuple[tuple[str, ...], Reader]] = {
    "openb": (("num_gpu", "gpu_milli"), read_openb_pods),
    "philly": (("timestamp", "duration", "num_gpus"), read_philly),
    "sacct": (("JobID", "AllocTRES"), read_sacct),
    "csv": (NEEDED, read_own),
    "recording": ((RECORDING,), read_recorded),
}


@dataclass(frozen=True, slots=True)
class LoadedTrace:
    """The rows of one file, what format it was, and its SHA-256 as it lies on disk."""

    path: str
    kind: str
    sha256: str
    works: tuple[Work, ...]

    @property
    def has_times(self) -> bool:
        """Whether it can load a cluster in time; else only by amount."""
        return all(work.submit_ms >= 0 and work.duration_ms >= 0 for work in self.works)


def open_text(path: str) -> tuple[str, str]:
    """A file's text (gunzipped when it ends in ``.gz``) and its SHA-256.

    Raises:
        BadInput: it cannot be read, or is no text.
    """
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if path.endswith(".gz") else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise BadInput(
            "trace",
            path,
            f"cannot be read ({getattr(error, 'strerror', None) or error})",
            "Give a CSV or YAML file, plain or .gz",
        ) from error
    return text, hashlib.sha256(raw).hexdigest()


def load_trace(path: str, bad: BadRows) -> LoadedTrace:
    """Read a trace of any format of ``FORMATS``.

    Raises:
        BadInput: an unknown header, a bad row (unless skipped), no rows.
    """
    text, sha256 = open_text(path)
    if path.removesuffix(".gz").endswith((".yaml", ".yml")):
        return _loaded(path, "yaml", sha256, read_own_yaml(io.StringIO(text, newline=""), path, bad))
    header = text.split("\n", 1)[0]
    kind = next((kind for kind, (columns, _) in FORMATS.items() if all(column in header for column in columns)), None)
    if kind is None:
        known = "; ".join(f"{name}: {', '.join(columns)}" for name, (columns, _) in FORMATS.items())
        raise BadInput(path, header[:100], "is the header of no format known here", f"Known columns are {known}")
    return _loaded(path, kind, sha256, FORMATS[kind][1](io.StringIO(text, newline=""), path, bad))


def _loaded(path: str, kind: str, sha256: str, rows: Sequence[TraceJob]) -> LoadedTrace:
    if not rows:
        raise BadInput(path, kind, "has no jobs", "Give a trace with at least one job")
    return LoadedTrace(path, kind, sha256, tuple(_work(row) for row in rows))


def is_serving(path: str) -> bool:
    """Whether the file is a series of serving pods (``timestamp,pod,value``).

    Raises:
        BadInput: it cannot be read.
    """
    return open_text(path)[0].startswith(SERVING_HEADER)


def load_serving(paths: Sequence[str], bad: BadRows) -> tuple[ServingPods, list[LoadedTrace]]:
    """Read two series of the same pods: duty in per cent, and memory in bytes (told apart by their size).

    Raises:
        BadInput: not exactly one of each, or a bad row (unless skipped).
    """
    series: dict[bool, list[tuple[float, str, float]]] = {}
    loaded = []
    for path in paths:
        text, sha256 = open_text(path)
        samples = read_serving(io.StringIO(text, newline=""), path, bad)
        is_memory = max((sample.value for sample in samples), default=0.0) > MOST_DUTY_PERCENT
        series[is_memory] = [(sample.at_s, sample.pod, sample.value) for sample in samples]
        loaded.append(LoadedTrace(path, "serving memory" if is_memory else "serving duty", sha256, ()))
    if len(paths) != 2 or len(series) != 2:
        raise BadInput("traces", ", ".join(paths), "are not one series of duty and one of memory", "Give both files")
    times = sorted({at for at, _, _ in series[False]})
    period_s = min((b - a for a, b in itertools.pairwise(times)), default=1.0)
    return pods_of(series[False], series[True], period_s), loaded


def load_cluster(text: str) -> tuple[Node, ...]:
    """Nodes from ``72x8:H200`` or from a node list of openb's form (a file that exists).

    Raises:
        BadInput: neither of both.
    """
    if not Path(text).is_file():
        return parse_cluster(text)
    body, _ = open_text(text)
    nodes = nodes_of_trace(read_openb_nodes(io.StringIO(body, newline=""), text, BadRows()))
    if not nodes:
        raise BadInput("--cluster", text, "lists no node with cards", "Give a list with a column gpu above 0")
    return nodes


def between(works: Sequence[Work], from_ms: int, to_ms: int) -> list[Work]:
    """Jobs submitted in [from_ms, to_ms)."""
    return [work for work in works if from_ms <= work.submit_ms < to_ms]


def _work(row: TraceJob) -> Work:
    return Work(
        row.name, row.queue, row.user, row.submit_ms, row.duration_ms, row.n_members, row.n_devices, row.compute_milli,
        row.cpu_milli, row.ram_bytes, row.models, row.priority, row.preemptible, row.checkpointable,
        row.min_member, row.role, tuple(map(_work, row.roles)),
    )  # fmt: skip
