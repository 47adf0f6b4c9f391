"""The figures of ``speed`` as rows with their goals."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

from flexai.adapters.traces import shuffled_arrivals
from flexai.apps.bench.frame import Case, Goal, Row, at_least, at_most
from flexai.apps.bench.scheduling import speed
from flexai.apps.bench.scheduling.traces import openb, openb_nodes
from flexai.simulation.workload import capacity_milli

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.scheduling.speed import Measured

LARGE_CARDS = 65_000


NONE: tuple[Goal | None, Goal | None] = (None, None)


def _rows(
    measured: Sequence[Measured], goals: Mapping[str, tuple[Goal, Goal | None]], prefix: str = ""
) -> Iterable[Row]:
    """Rows with (goal, stretch) by name."""
    for one in measured:
        conditions = ", ".join(f"{name} {value:g}" for name, value in one.conditions.items())
        goal, stretch = goals.get(one.name, NONE)
        yield Row(f"{prefix}{one.name}", conditions, goal, one.got, one.unit, stretch=stretch)


def binds(run: Run) -> Iterable[Row]:
    """Openb to saturation over four queues, as it is and replicated to 65,000 cards."""
    nodes = openb_nodes(run)
    jobs = shuffled_arrivals(openb(run, "default").works, capacity_milli(nodes), 1.05, 42)
    yield from _rows(speed.binds_per_second(nodes, jobs), {"binds": (at_least(5000), at_least(20_000))}, "openb ")
    if not run.quick:
        large = speed.replicated(nodes, LARGE_CARDS)
        jobs = shuffled_arrivals(openb(run, "default").works, capacity_milli(large), 1.05, 42)
        yield from _rows(
            speed.binds_per_second(large, jobs), {"binds": (at_least(2000), at_least(10_000))}, "65,000 cards "
        )


def latency(run: Run) -> Iterable[Row]:
    """One event at a time on a full cluster."""
    measured = speed.event_latency(n_events=300 if run.quick else 2000)
    goals = {"event to decision, p50": (at_most(2.0), None), "event to decision, p99": (at_most(20.0), at_most(5.0))}
    yield from _rows(measured, goals)


def reclaim(run: Run) -> Iterable[Row]:
    """A gang of 800 cards within its queue's quota."""
    measured = speed.gang_reclaim(100, 10) if run.quick else speed.gang_reclaim()
    yield from _rows(measured, {} if run.quick else {"gang reclaim: whom to evict": (at_most(0.5), at_most(0.1))})


def verdict(run: Run) -> Iterable[Row]:
    """Why it cannot start."""
    goals = {"cannot fit: step and Reason": (at_most(50.0), at_most(10.0))}
    yield from _rows(speed.verdict(500 if run.quick else 8_125), {} if run.quick else goals)


def memory(run: Run) -> Iterable[Row]:
    """In a process of its own, since memory is not given back."""
    size = "(500, 5000)" if run.quick else "()"
    code = (
        "import json; from flexai.apps.bench.scheduling import speed\n"
        f"print(json.dumps([[m.name, m.got, m.unit, dict(m.conditions)] for m in speed.memory(*{size})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if done.returncode:
        yield Row("memory", "", None, math.nan, "MiB", note=done.stderr[-200:])
        return
    measured = [speed.Measured(*entry) for entry in json.loads(done.stdout)]
    yield from _rows(measured, {} if run.quick else {measured[0].name: (at_most(1024.0), None)})


CASES = (
    Case("binds", "decisions a second", binds, 25),
    Case("latency", "event to decision with 5,000 jobs waiting", latency, 3),
    Case("reclaim", "a gang reclaimed out of a full cluster", reclaim, 2),
    Case("verdict", "cannot fit, with its reason", verdict, 12),
    Case("memory", "resident memory at 65,000 cards and 100,000 jobs", memory, 12),
)
