"""The public traces, where the caller has them."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.adapters.traces import LoadedTrace, load_cluster, load_trace
from flexai.wire.errors import BadInput
from flexai.wire.trace import BadRows

if TYPE_CHECKING:
    from flexai.model import Node

OPENB_LISTS = ("default", "cpu100", "gpushare60", "gpuspec20", "multigpu20")


def folder() -> Path:
    """The folder with the traces.

    Raises:
        BadInput: ``FLEXAI_TRACES`` names none.
    """
    named = os.environ.get("FLEXAI_TRACES", "")
    if not named or not Path(named).is_dir():
        raise BadInput("FLEXAI_TRACES", named, "is no folder with traces", "Set it to one with openb/ and philly/")
    return Path(named)


@cache
def openb_nodes() -> tuple[Node, ...]:
    """Openb's 1,213 nodes with cards."""
    return load_cluster(str(folder() / "openb" / "nodes.csv"))


@cache
def openb(name: str) -> LoadedTrace:
    """One of openb's pod lists."""
    return load_trace(str(folder() / "openb" / f"pods_{name}.csv.gz"), BadRows())


@cache
def philly() -> LoadedTrace:
    """The Philly trace."""
    return load_trace(str(folder() / "philly" / "jobs_to_2017-11-14.csv.gz"), BadRows())
