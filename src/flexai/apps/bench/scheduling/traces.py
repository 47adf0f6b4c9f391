"""The public traces, where the caller has them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from flexai.adapters.traces import LoadedTrace, load_cluster, load_serving, load_trace, open_text
from flexai.wire.errors import BadInput
from flexai.wire.trace import BadRows

if TYPE_CHECKING:
    from pathlib import Path

    from flexai.apps.bench.frame import Run
    from flexai.model import Node
    from flexai.simulation.serving import ServingPods

NODES = "openb/nodes.csv"
PHILLY = "philly/jobs_to_2017-11-14.csv.gz"
SERVING = ("genai2026/gpu_duty_cycle.csv.gz", "genai2026/gpu_memory_used_bytes.csv.gz")
FIRST_LIST = "default"


def openb_lists(run: Run) -> list[str]:
    """The names of all pod lists in the folder, ``default`` first: any ``pods_NAME.csv`` or ``.csv.gz``.

    Raises:
        BadInput: there is none.
    """
    names = sorted({path.name.removeprefix("pods_").partition(".csv")[0] for path in _folder(run).glob("openb/pods_*")})
    if not names:
        raise BadInput("--traces", str(run.traces), "holds no openb/pods_NAME.csv.gz", "Name a folder that does")
    return sorted(names, key=lambda name: (name != FIRST_LIST, name))


def openb_nodes(run: Run) -> tuple[Node, ...]:
    """The nodes with cards of openb (1,213 in the public one)."""
    return _nodes(_noted(run, NODES))


def openb(run: Run, name: str) -> LoadedTrace:
    """One of openb's pod lists."""
    files = [f"openb/pods_{name}.csv.gz", f"openb/pods_{name}.csv"]
    return _trace(_noted(run, next((file for file in files if (_folder(run) / file).is_file()), files[0])))


def philly(run: Run) -> LoadedTrace:
    """The Philly trace."""
    return _trace(_noted(run, PHILLY))


def serving(run: Run) -> ServingPods:
    """The serving pods of GenAI 2026, with their duty and memory."""
    return _serving(tuple(_noted(run, file) for file in SERVING))


def _folder(run: Run) -> Path:
    if run.traces is None or not run.traces.is_dir():
        raise BadInput("--traces", str(run.traces or ""), "is no folder", "Name one with openb/ and philly/ in it")
    return run.traces


def _noted(run: Run, file: str) -> str:
    """The file's path; that it was read, and its SHA-256, goes into the run's document."""
    path = str(_folder(run) / file)
    run.inputs[file] = _sha256(path)
    return path


@cache
def _sha256(path: str) -> str:
    return open_text(path)[1]


@cache
def _nodes(path: str) -> tuple[Node, ...]:
    return load_cluster(path)


@cache
def _serving(paths: tuple[str, ...]) -> ServingPods:
    return load_serving(paths, BadRows())[0]


@cache
def _trace(path: str) -> LoadedTrace:
    return load_trace(path, BadRows())
