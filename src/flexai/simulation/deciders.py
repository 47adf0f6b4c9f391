"""Policies by name: the production scheduler (``hi``) and what it is compared with.

``hi+park``: victims are parked; ``hi+move``: they may come back to another card, as if drivers could do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.simulation.kernel import Costs
from flexai.simulation.placing import NO_DRAWS, PLACEMENTS, PlacementBaseline
from flexai.simulation.queueing import QUEUE_ORDERS, PoolBaseline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.simulation.kernel import Decider, SimulatedJob

PRODUCT = "hi"
PARKING = "hi+park"
MOVING = "hi+move"
PARK = (PARKING, MOVING)
POLICIES = (PRODUCT, *PARK, *QUEUE_ORDERS, *PLACEMENTS)
NEED_TIMES = QUEUE_ORDERS
"""Policies that only order a queue: they say nothing where nothing ends."""
ROUND_UP = QUEUE_ORDERS
"""Policies that know whole cards only and grant one for every share."""


def decider(name: str, jobs: Sequence[SimulatedJob], draws: Iterator[int] = NO_DRAWS) -> Decider:
    """A fresh decider by one of ``POLICIES``.

    True durations go only to ``shortest``, the oracle, and the mix of all jobs only to FGD; ``draws`` are numbers for
    the rules that leave equals to chance.
    """
    assert name in POLICIES, name
    if name == PRODUCT:
        return Scheduler()
    if name in PARK:
        return Scheduler(SchedulerSettings(park="if_cheaper", checkpoint_every_ms=Costs().checkpoint_every_ms))
    if name in PLACEMENTS:
        return PlacementBaseline(name, [entry.job for entry in jobs], draws)
    durations = {entry.job.id: entry.duration_ms for entry in jobs} if name == "shortest" else {}
    return PoolBaseline(name, durations)
