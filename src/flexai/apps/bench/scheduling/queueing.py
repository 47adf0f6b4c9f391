"""Waits on Philly: one pool of like cards, no oracle, no preemption, no topology."""

from __future__ import annotations

import time
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from flexai.adapters.traces import between
from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.scheduling.traces import philly
from flexai.simulation.experiment import run_in_time
from flexai.simulation.metrics import bootstrap_weeks
from flexai.simulation.workload import one_queue
from flexai.wire.cluster_spec import parse_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flexai.apps.bench.frame import Run
    from flexai.simulation.workload import Work

FROM_MS, TO_MS = 1_506_902_400_000, 1_510_617_600_000
"""Submissions from 2017-10-02 up to, not including, 2017-11-14: 57,983 jobs."""
QUICK_JOBS = 6_000
GOALS = {576: (1.9, 1.5, 25.0), 640: (0.70, 0.6, 10.0)}
N_RESAMPLES = 200


def _works(run: Run) -> list[Work]:
    works = one_queue(sorted(between(philly(run).works, FROM_MS, TO_MS), key=lambda work: work.submit_ms))
    return works[:QUICK_JOBS] if run.quick else works


def waits(run: Run) -> Iterable[Row]:
    """Mean wait of all, of gangs, and the 0.99 quantile, at two sizes of pool; with the simulator's own speed."""
    works = _works(run)
    trace = f"Philly, sha256 {philly(run).sha256[:8]}, {len(works)} jobs"
    for cards, (mean, big, p99) in GOALS.items():
        began = time.perf_counter()
        got = run_in_time("hi", parse_cluster(str(cards)), works)
        took = time.perf_counter() - began
        summary = got.summary
        conditions = f"{trace}, {cards} cards, no preemption, wait = all time not running"
        picks = np.random.default_rng(run.seed).integers(0, 2**31, (N_RESAMPLES, 12)).tolist()
        low, high = bootstrap_weeks(got.outcome.jobs, fmean, picks)
        note = f"bootstrap over weeks, 5..95 %: {low:.2f}..{high:.2f}"
        judged = not run.quick
        yield Row(
            f"mean wait {cards}", conditions, at_most(mean) if judged else None, summary.waits.mean_h, "h", note=note
        )
        yield Row(f"mean wait >=16 {cards}", conditions, at_most(big) if judged else None, summary.big.mean_h, "h")
        yield Row(f"p99 wait {cards}", conditions, at_most(p99) if judged else None, summary.waits.p99_h, "h")
        yield Row(
            f"simulator {cards}", f"{trace}, with metrics", at_least(3000), got.outcome.n_events / took, "events/s"
        )  # fmt: skip


CASES = (Case("waits", "waits on the Philly trace", waits),)
