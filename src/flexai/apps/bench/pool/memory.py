"""The memory cap against four processes that allocate at random, by the driver's own ledger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from flexai_native import library

from flexai.adapters.own_pool import own_pool
from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.pool.cards import CARD, REAL, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run

_CAP_BYTES = 16 << 30
_PACKAGE = "flexai.apps.bench.pool"


def allocations(run: Run) -> Iterator[Row]:
    """Random allocations and frees, then all that one process can get."""
    seconds, n_processes = 2.0 if run.quick else 10.0, 4
    with own_pool(CARD) as stand:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("FLEXAI_")}
        simulated = {
            "FLEXAI_SIMCARD": str(stand.run_dir / "simcard.sock"),
            "LD_LIBRARY_PATH": str(library("simcard/libnvidia-ml.so.1").parent),
        }
        outside = plain if REAL else plain | simulated
        watch = subprocess.Popen(
            [sys.executable, "-m", f"{_PACKAGE}.ledger_watch", "context"], env=outside, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert watch.stdout is not None
        if watch.stdout.readline() != "watching\n":
            raise RuntimeError("the watcher did not start")
        words = [
            sys.executable, "-m", "flexai.apps.cli", "run", "--quiet", "--share", "50%", "--memory", str(_CAP_BYTES),
            "--", sys.executable, "-m", f"{_PACKAGE}.alloc_tenant", str(run.seed), str(seconds), str(n_processes),
            str(_CAP_BYTES),
        ]  # fmt: skip
        said = subprocess.run(words, env=dict(stand.environment), capture_output=True, text=True, check=False)
        seen = json.loads(watch.communicate("\n")[0])
    if said.returncode != 0:
        raise RuntimeError(f"the tenant ended with {said.returncode}: {said.stderr.strip()[-300:]}")
    tenant = json.loads(said.stdout)
    conditions = f"{n_processes} processes, {seconds:g} s, cap 16 GiB, {WORDS}"
    most = seen["most_bytes"]
    note = (
        f"the driver saw at most {most / 2**30:.3f} GiB in {seen['n_looks']} looks; {tenant['failed']} processes failed"
    )
    yield Row("bytes over the cap", conditions, at_most(0.0), float(max(0, most - _CAP_BYTES)), "bytes", note)
    yield Row(
        "cap obtainable",
        "one process afterwards, its context included",
        at_least(99.0),
        100 * (tenant["obtained_bytes"] + _CAP_BYTES - tenant["free_bytes"]) / _CAP_BYTES,
        "%",
    )


CASES = (
    Case(
        "memory", "random alloc and free from 4 processes of a tenant, by the driver's own ledger", allocations, 15, 6
    ),
)
