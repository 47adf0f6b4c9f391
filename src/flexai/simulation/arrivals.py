"""Packing by amount: jobs come one by one, none leaves, one not started at once is cancelled (FGD's experiment).

Any decider can be put through it; what it grants is booked here a second time, card by card, so that a decider that
grants more than a card has is found out. What is measured is allocation: granted compute over capacity.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobCancelled, JobSubmitted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.model import Job
    from flexai.scheduling.events import Event
    from flexai.simulation.kernel import Decider


@dataclass(slots=True)
class Packed:
    """Allocation (per cent) at each asked-for arrival point, jobs placed and dropped."""

    curve: dict[float, float] = field(default_factory=dict)
    n_placed: int = 0
    n_dropped: int = 0
    granted_milli: int = 0
    useful_milli: int = 0


def pack(
    decider: Decider,
    setup: Iterable[Event],
    jobs: Sequence[Job],
    capacity_milli: int,
    points: Sequence[float],
    useful_milli: Mapping[str, int] | None = None,
) -> Packed:
    """Submit ``jobs`` in order; the curve is in granted compute, or in ``useful_milli`` by job id where given.

    ``useful_milli`` is for whole cards against slices: a job that used 30 % of the card it holds counts 30 %.
    """
    for event in setup:
        decider.step(event)
    out = Packed()
    on_card: dict[str, int] = {}
    left = sorted(points)
    arrived_milli = 0
    for job in jobs:
        asked = job.n_members * job.request.n_devices * job.request.compute_milli
        useful = useful_milli[job.id] if useful_milli else asked
        arrived_milli += useful
        starts = [
            command
            for command in decider.step(JobSubmitted(job.submitted_at_ms, job))
            if isinstance(command, Start) and command.job_id == job.id
        ]
        if starts:
            out.n_placed += 1
            out.granted_milli += asked
            out.useful_milli += useful
            for grant in (grant for start in starts for grant in start.grants):
                on_card[grant.device] = on_card.get(grant.device, 0) + grant.compute_milli
                assert on_card[grant.device] <= 1000, f"{grant.device} is granted beyond a whole card"
        else:
            out.n_dropped += 1
            decider.step(JobCancelled(job.submitted_at_ms, job.id))
        while left and arrived_milli >= left[0] * capacity_milli:
            out.curve[left.pop(0)] = 100.0 * out.useful_milli / capacity_milli
    for point in left:
        out.curve[point] = 100.0 * out.useful_milli / capacity_milli
    return out
