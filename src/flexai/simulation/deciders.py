"""Policies by name: the production scheduler (``hi``) and the baselines it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.simulation.queueing import QUEUE_ORDERS, PoolBaseline
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.simulation.kernel import Decider, SimulatedJob

POLICIES = ("hi", *QUEUE_ORDERS)


def decider(name: str, jobs: Sequence[SimulatedJob]) -> Decider:
    """A fresh decider; true durations go only to ``shortest``, the oracle.

    Raises:
        BadInput: an unknown name.
    """
    if name in QUEUE_ORDERS:
        durations = {entry.job.id: entry.duration_ms for entry in jobs} if name == "shortest" else {}
        return PoolBaseline(name, durations)
    raise BadInput("--policy", name, "is unknown", f"Choose one of {', '.join(POLICIES)}")
