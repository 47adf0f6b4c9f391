"""Policies by name: the production scheduler (``hi``) and the baselines it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.scheduling import Scheduler
from flexai.simulation.queueing import QUEUE_ORDERS, PoolBaseline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.simulation.kernel import Decider, SimulatedJob

POLICIES = ("hi", *QUEUE_ORDERS)


def decider(name: str, jobs: Sequence[SimulatedJob]) -> Decider:
    """A fresh decider by one of ``POLICIES``; true durations go only to ``shortest``, the oracle."""
    assert name in POLICIES, name
    if name == "hi":
        return Scheduler()
    durations = {entry.job.id: entry.duration_ms for entry in jobs} if name == "shortest" else {}
    return PoolBaseline(name, durations)
