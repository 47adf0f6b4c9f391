"""Waits on Philly: one pool of like cards, no oracle, no preemption, no topology."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from flexai.adapters.traces import between
from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.scheduling.traces import philly
from flexai.simulation.experiment import run_in_time
from flexai.simulation.metrics import BIG_CARDS, HOUR_MS, bootstrap_weeks
from flexai.simulation.workload import one_queue
from flexai.wire.cluster_spec import parse_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.simulation.experiment import TimedRun
    from flexai.simulation.workload import Work

FROM_MS, TO_MS = 1_506_902_400_000, 1_510_617_600_000
"""Submissions from 2017-10-02 up to, not including, 2017-11-14: 57,983 jobs."""
QUICK_JOBS = 3_000
GOALS = {576: (1.9, 1.5, 25.0), 640: (0.70, 0.6, 10.0)}
STRETCH = {576: (1.4, 0.8, 18.0), 640: (0.55, 0.4, 8.0)}
N_RESAMPLES = 200


def _works(run: Run) -> list[Work]:
    works = one_queue(sorted(between(philly(run).works, FROM_MS, TO_MS), key=lambda work: work.submit_ms))
    return works[:QUICK_JOBS] if run.quick else works


def waits(run: Run) -> Iterable[Row]:
    """Mean wait of all, of gangs, and the 0.99 quantile, at two sizes of pool; with the simulator's own speed."""
    works = _works(run)
    played = []
    for cards in GOALS:
        began = time.perf_counter()
        got = run_in_time("hi", parse_cluster(str(cards)), works)
        took = time.perf_counter() - began
        played.append(got)
        conditions = f"{_trace(run, works)}, {cards} cards, no preemption"
        yield from _waits(run, got, conditions, judged=not run.quick)
        yield Row(
            f"simulator {cards}", f"{_trace(run, works)}, with metrics", at_least(3000), got.outcome.n_events / took,
            "events/s", stretch=at_least(10_000),
        )  # fmt: skip
    if run.pictures is not None:
        from flexai.adapters.pictures import plot_timed  # noqa: PLC0415  matplotlib only when asked for

        for path in plot_timed(played, run.pictures, "scheduling-philly-"):
            run.captions[path.name] = f"Philly in one pool of {' and '.join(str(cards) for cards in GOALS)} cards"


def preemption(run: Run) -> Iterable[Row]:
    """The same pool, in which gangs may evict: reported beside, since evictions cost work."""
    works = [
        replace(work, priority=int(work.n_members * work.n_devices >= BIG_CARDS), checkpointable=True)
        for work in _works(run)
    ]
    for cards in list(GOALS)[: 1 if run.quick else None]:
        got = run_in_time("hi", parse_cluster(str(cards)), works)
        conditions = f"{_trace(run, works)}, {cards} cards, jobs of >= 16 cards may evict smaller ones"
        yield from _waits(run, got, conditions, judged=False)
        lost = [(book.finished_ms - book.submitted_ms - book.duration_ms) / HOUR_MS for book in got.outcome.jobs]
        note = (
            f"{got.summary.n_evictions} evictions, each 60 s and the work since the last checkpoint (every 30 min): "
            f"{got.summary.lost_card_hours:.0f} card-hours repeated"
        )
        yield Row(
            f"mean delay {cards}", f"{conditions}; repeated work counted as waiting", None, fmean(lost), "h", note
        )


def _waits(run: Run, got: TimedRun, conditions: str, *, judged: bool) -> Iterable[Row]:
    cards, summary = got.n_cards, got.summary
    picks = np.random.default_rng(run.seed).integers(0, 2**31, (N_RESAMPLES, 12)).tolist()
    low, high = bootstrap_weeks(got.outcome.jobs, fmean, picks)
    notes = (f"bootstrap over weeks, 5..95 %: {low:.2f}..{high:.2f}", f"{summary.big.n_jobs} jobs", "")
    figures = (summary.waits.mean_h, summary.big.mean_h, summary.waits.p99_h)
    names = ("mean wait", "mean wait of jobs of >= 16 cards", "0.99 quantile of the wait")
    for name, figure, note, goal, stretch in zip(names, figures, notes, GOALS[cards], STRETCH[cards], strict=True):
        yield Row(
            f"{name}, {cards}", f"{conditions}, wait = all time not running", at_most(goal) if judged else None,
            figure, "h", note, stretch=at_most(stretch) if judged else None,
        )  # fmt: skip


def _trace(run: Run, works: Sequence[Work]) -> str:
    return f"Philly, sha256 {philly(run).sha256[:8]}, {len(works)} jobs"


CASES = (
    Case("waits", "waits on the Philly trace", waits, 65),
    Case("preemption", "the same when large jobs may evict small ones", preemption, 55),
)
