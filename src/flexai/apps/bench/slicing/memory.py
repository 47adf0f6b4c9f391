"""The memory cap against four processes that allocate at random, by what the driver says of the whole card."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.slicing.stand import stand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand

CAP_BYTES = 16 << 30
_PACKAGE = "flexai.apps.bench.pool"


class Watch:
    """``ledger_watch`` beside the pool.

    Attributes:
        lines: what it says in the end, once it is over.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.lines: list[str] = []

    def now_bytes(self) -> int:
        """More of the card used than at the start, now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("now\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """Stop watching."""
        self.lines = self._process.communicate("\n")[0].splitlines()


@contextmanager
def watched(on: Stand, *, changes: bool = False) -> Iterator[Watch]:
    """What the driver says of the card's memory meanwhile.

    Raises:
        RuntimeError: it did not start.
    """
    words = [sys.executable, "-m", f"{_PACKAGE}.ledger_watch", *["changes"] * changes]
    with subprocess.Popen(words, env=on.outside(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        if watch.stdout.readline() != "watching\n":
            raise RuntimeError("the watcher of the card's memory did not start")
        told = Watch(watch)
        yield told
        told.end()


def memory(run: Run) -> Iterator[Row]:
    """Random allocations and frees by every kind of call, then all that one process can get."""
    seconds = 3.0 if run.quick else 45.0 if run.minutes is None else 60 * run.minutes
    n_processes = 4
    with stand() as on, watched(on) as watch:
        words = [
            sys.executable, "-m", "flexai.apps.cli", "run", "--quiet", "--share", "50%", "--memory", str(CAP_BYTES),
            "--run-dir", str(on.run_dir), "--", sys.executable, "-m", f"{_PACKAGE}.alloc_tenant", str(run.seed),
            str(seconds), str(n_processes), str(CAP_BYTES), "every-call",
        ]  # fmt: skip
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 120)
    if said.returncode != 0:
        raise RuntimeError(f"the tenant ended with {said.returncode}: {said.stderr.strip()[-300:]}")
    tenant = json.loads(said.stdout)
    words = watch.lines[0].split()
    most, n_looks, longest_ms = int(words[0]), int(words[1]), float(words[2])
    card = "real card" if is_real() else "simulated card"
    conditions = f"{n_processes} processes, {seconds / 60:.3g} minutes, cap 16 GiB, {card}"
    note = (
        f"at most {most / 2**30:.3f} GiB more of the card used than before, contexts included, in {n_looks} looks; "
        f"{tenant['n_calls']} calls, {tenant['n_refused']} refused; {tenant['failed']} processes failed"
    )
    yield Row("memory over the cap", conditions, at_most(0.0), float(max(0, most - CAP_BYTES)), "bytes", note)
    yield Row("memory looked at", "longest time between two looks", at_most(10.0), longest_ms, "ms")
    context = CAP_BYTES - tenant["free_bytes"]
    yield Row(
        "cap obtainable", "one process afterwards, its context included", at_least(99.0),
        100 * (tenant["obtained_bytes"] + context) / CAP_BYTES, "%", f"of it {context / 2**20:.0f} MiB context",
    )  # fmt: skip


CASES = (Case("memory", "random memory calls from 4 processes of a tenant, by the card's own books", memory, 55, 9),)
