"""The memory cap against four processes that allocate at random, by what the driver says of the whole card."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import Case, Row, at_least, at_most, note_of, pieces_of, worst_of
from flexai.apps.bench.hardware import is_real
from flexai.apps.bench.pool.alloc_tenant import PATHS
from flexai.apps.bench.pool.ledger_watch import SPAN_NS
from flexai.apps.bench.slicing.stand import stand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand

CAP_BYTES = 16 << 30
_LOOP_S = 25.0
_PACKAGE = "flexai.apps.bench.pool"


class Watch:
    """``ledger_watch`` beside the pool.

    Attributes:
        told: what it says in the end, once it is over.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.told: dict[str, Any] = {}

    def now_bytes(self) -> int:
        """More of the card used than at the start, now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("now\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def end(self) -> None:
        """Stop watching."""
        self.told = json.loads(self._process.communicate("\n")[0])


@contextmanager
def watched(on: Stand, *words: str) -> Iterator[Watch]:
    """What the driver says of the card's memory meanwhile; ``words`` as ``ledger_watch`` takes them.

    Raises:
        RuntimeError: it did not start.
    """
    command = [sys.executable, "-m", f"{_PACKAGE}.ledger_watch", *words]
    with subprocess.Popen(command, env=on.outside(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        if watch.stdout.readline() != "watching\n":
            raise RuntimeError("the watcher of the card's memory did not start")
        told = Watch(watch)
        yield told
        told.end()


def memory(run: Run) -> Iterator[Row]:
    """Random allocations and frees by every kind of call, then all that one process can get."""
    seconds = 3.0 if run.quick else _LOOP_S if run.minutes is None else 60 * run.minutes
    n_processes, began = 4, datetime.now(UTC).isoformat(timespec="seconds")
    with stand() as on:
        tenant, seen = _at_random(on, run.seed, seconds, n_processes, PATHS)
    card = "real card" if is_real() else "simulated card"
    conditions = f"{n_processes} processes, {_minutes([seconds / 60])}, cap 16 GiB, {card}"
    phases, by_page = split(seen["spans"], tenant), split(spans_of_page(seen), tenant)
    by_phase = ", ".join(f"{name} {one.most_bytes / 2**30:.3f}" for name, one in phases.items())
    note = (
        f"more of the card used than before, contexts included, in {seen['n_looks']} looks, at most, GiB: {by_phase}; "
        f"{_page_words(seen)}; "
        f"{tenant['n_calls']} calls, {tenant['n_refused']} refused; {tenant['failed']} processes failed"
    )
    over = over_bytes(seen, CAP_BYTES)
    began_ns = min(tenant["ready_ns"])
    counted = {name: tenant[name] for name in ("n_calls", "n_refused", "failed")}
    piece = {"minutes": seconds / 60, "seed": run.seed, "began": began, "n_looks": seen["n_looks"], **counted}
    data: dict[str, Any] = {
        name.replace("_ns", "_ms"): _ms(tenant[name], began_ns) for name in ("ready_ns", "stopped_ns", "ended_ns")
    }
    data |= piece
    too_much = [(at, most) for at, most, _ in (*seen["spans"], *spans_of_page(seen)) if most > CAP_BYTES]
    data["over_ms"], data["over_bytes"] = _ms([at for at, _ in too_much], began_ns), [most for _, most in too_much]
    yield Row("memory over the cap", conditions, at_most(0.0), over, "bytes", note, data=data)
    for name, one in phases.items():
        # No part of the time is without a look that either of them had a look in.
        longest_ms = min(one.longest_ms, by_page[name].longest_ms) if "page" in seen else one.longest_ms
        what = f"by the page that the driver shares; NVML alone {one.longest_ms:.1f}" if "page" in seen else "by NVML"
        if name != CALLS:
            what += "; contexts are made or ended in it, for which a driver holds its locks and NVML waits"
        yield Row("memory looked at", f"longest time between two looks, {name}", at_most(10.0), longest_ms, "ms", what)
    context = CAP_BYTES - tenant["free_bytes"]
    listed_mib, first_mib = seen["listed_bytes"] / 2**20, seen["first_context_bytes"] / 2**20
    yield Row(
        "cap obtainable", "one process afterwards, its context included", at_least(99.0),
        100 * (tenant["obtained_bytes"] + context) / CAP_BYTES, "%",
        f"of it {context / 2**20:.0f} MiB context; a plain one outside was listed with {listed_mib:.1f} MiB, and the "
        f"card's total grew by {first_mib:.1f} MiB; it stayed, so that this is not in the growth above",
    )  # fmt: skip


def _minutes(pieces: Sequence[float]) -> str:
    """``5 minutes``, ``2 x 5 minutes``, ``5 + 3 minutes``."""
    if len(pieces) > 1 and len(set(pieces)) == 1:
        return f"{len(pieces)} x {pieces[0]:.3g} minutes"
    return f"{' + '.join(f'{minutes:.3g}' for minutes in pieces)} minutes"


def added(pieces: Sequence[Sequence[Row]]) -> list[Row]:
    """Several runs of ``memory`` as one that is as long as all: calls added, of each figure the worst.

    Where they do not have the same rows, as one of them failed, all rows of all.
    """
    if len({tuple((row.name, row.case) for row in piece) for piece in pieces}) > 1:
        return [row for piece in pieces for row in piece]
    told = [one for piece in pieces for one in pieces_of(piece[0])]
    seeds = [one["seed"] for one in told]
    same = " (the same random calls, then, in each)" if len(set(seeds)) < len(seeds) else ""
    windows = ", ".join(f"{one['minutes']:.3g} minutes from {one['began']} with seed {one['seed']}" for one in told)
    sums = {name: sum(one[name] for one in told) for name in ("n_calls", "n_refused", "n_looks", "failed")}
    counted = "{n_calls} calls, {n_refused} refused, {n_looks} looks, {failed} processes failed in all".format(**sums)
    first, *others = (worst_of(column, column[0].conditions) for column in zip(*pieces, strict=True))
    before = _minutes([one["minutes"] for one in pieces_of(pieces[0][0])])
    conditions = first.conditions.replace(before, _minutes([one["minutes"] for one in told]))
    return [replace(first, conditions=conditions, note=note_of(f"{windows}{same}", counted, first.note)), *others]


def by_path(run: Run) -> Iterator[Row]:
    """The same by one kind of call at a time: where the cap is passed, by which."""
    seconds, n_processes = (2.0, 4) if run.quick else (3.0, 4)
    with stand() as on:
        for path in PATHS:
            tenant, seen = _at_random(on, run.seed, seconds, n_processes, (path,))
            phases = split(seen["spans"], tenant)
            n_over = sum(most > CAP_BYTES for _, most, _ in seen["spans"])
            told = ", ".join(f"{name} {(one.most_bytes - CAP_BYTES) / 2**20:.2f}" for name, one in phases.items())
            over = over_bytes(seen, CAP_BYTES)
            note = (
                f"more than the cap by, at most, MiB: {told}; over it in {n_over} of {len(seen['spans'])} spans of "
                f"10 ms; {_page_words(seen)}; {tenant['n_calls']} calls, {tenant['n_refused']} refused; "
                f"{tenant['failed']} processes failed"
            )
            conditions = f"{path} alone, {n_processes} processes, {seconds:g} s, cap 16 GiB"
            yield Row("memory over the cap", conditions, at_most(0.0), over, "bytes", note)


def _at_random(
    on: Stand, seed: int, seconds: float, n_processes: int, paths: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the tenant tells, and what was seen of the card meanwhile."""
    with watched(on, "context") as watch:
        words = [
            sys.executable, "-m", "flexai.apps.cli", "run", "--quiet", "--share", "50%", "--memory", str(CAP_BYTES),
            "--run-dir", str(on.run_dir), "--", sys.executable, "-m", f"{_PACKAGE}.alloc_tenant", str(seed),
            str(seconds), str(n_processes), str(CAP_BYTES), ",".join(paths),
        ]  # fmt: skip
        said = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 120)
    if said.returncode != 0:
        raise RuntimeError(f"the tenant ended with {said.returncode}: {said.stderr.strip()[-300:]}")
    return json.loads(said.stdout), watch.told


def _ms(at_ns: Sequence[int], from_ns: int) -> list[float]:
    return [round((at - from_ns) / 1e6, 1) for at in at_ns]


@dataclass(frozen=True, slots=True)
class Phase:
    """The most memory seen in a part of the time, and the longest time without a look."""

    most_bytes: int
    longest_ms: float


def spans_of_page(seen: Mapping[str, Any]) -> list[list[int]]:
    """What was seen on the page that the driver shares, as of NVML; nothing where there is none."""
    spans: list[list[int]] = seen["page"]["spans"] if "page" in seen else []
    return spans


def over_bytes(seen: Mapping[str, Any], cap_bytes: int) -> float:
    """More than the cap by the one of the two that saw more."""
    most = max(int(seen["most_bytes"]), int(seen["page"]["most_bytes"]) if "page" in seen else 0)
    return float(max(0, most - cap_bytes))


def _page_words(seen: Mapping[str, Any]) -> str:
    if "page" not in seen:
        return f"by NVML alone ({seen['no_page']})"
    page = seen["page"]
    return (
        f"by the page that the driver shares {page['most_bytes'] / 2**30:.3f} at most in {page['n_looks']} looks, in "
        f"the end {(page['last_bytes'] - seen['last_bytes']) / 2**20:.2f} MiB more than by NVML"
    )


START, CALLS, END = "while processes start", "while all call", "from the first process's end"


def split(spans: Sequence[Sequence[int]], tenant: Mapping[str, Any]) -> dict[str, Phase]:
    """The watch by phases of the tenant; a span at an edge belongs to both."""
    ready_ns, stopped_ns = max(tenant["ready_ns"]), min(tenant["stopped_ns"])
    edges = {START: (0, ready_ns), CALLS: (ready_ns, stopped_ns), END: (stopped_ns, sys.maxsize)}
    found = {}
    for name, (from_ns, to_ns) in edges.items():
        # A gap is told where it ends, so its span may begin after the phase has.
        inside = [span for span in spans if from_ns - SPAN_NS < span[0] < to_ns]
        most = max((most for _, most, _ in inside), default=0)
        found[name] = Phase(most, max((gap for _, _, gap in inside), default=0) / 1e6)
    return found


CASES = (
    Case(
        "memory",
        "random memory calls from 4 processes of a tenant, by the card's own books",
        memory,
        31,
        9,
        loop_s=_LOOP_S,
        add=added,
    ),
    Case("memory-paths", "the same by one kind of call at a time", by_path, 22, 18),
)
