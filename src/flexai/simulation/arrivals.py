"""Packing by amount: jobs come one by one, none leaves, one not started at once is cancelled (FGD's experiment).

Any decider can be put through it; what it grants is booked here a second time, card by card, so that a decider that
grants more than a card has is found out. What is measured is allocation, compute granted over capacity, and
fragmentation, free compute that a typical pod cannot use (as FGD defines it), over capacity too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobCancelled, JobSubmitted, NodePut
from flexai.simulation.kernel import WATCH_EVERY
from flexai.simulation.packing import Typical, fragmentation, model_index, nodes_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flexai.model import Job, Node
    from flexai.scheduling.events import Event
    from flexai.simulation.kernel import Decider


@dataclass(slots=True)
class Packed:
    """Allocation and fragmentation (per cent) at each asked-for arrival point, jobs placed and dropped."""

    curve: dict[float, float] = field(default_factory=dict)
    fragmentation: dict[float, float] = field(default_factory=dict)
    n_placed: int = 0
    n_dropped: int = 0
    granted_milli: int = 0
    useful_milli: int = 0


class _Books:
    """What was granted, booked apart from the decider."""

    def __init__(self, nodes: Sequence[Node], jobs: Sequence[Job]) -> None:
        index = model_index(nodes)
        self._nodes = nodes_of(nodes, Typical.of(shape_of(job, index) for job in jobs))
        self._places = {
            device.uuid: (row, column) for row, node in enumerate(nodes) for column, device in enumerate(node.devices)
        }
        self._rows = {node.name: row for row, node in enumerate(nodes)}

    def take(self, job: Job, starts: Iterable[Start]) -> int:
        """Book the grants; their compute in all."""
        granted_milli = 0
        for start in starts:
            for grant in start.grants:
                row, column = self._places[grant.device]
                self._nodes.free_milli[row, column] -= grant.compute_milli
                granted_milli += grant.compute_milli
                assert self._nodes.free_milli[row, column] >= 0, f"{grant.device} is granted beyond a whole card"
            if start.grants:
                self._nodes.cpu_milli[self._rows[start.grants[0].node]] -= job.cpu_milli
        return granted_milli

    def fragmented_milli(self) -> float:
        """Free compute that a typical job cannot use."""
        at = self._nodes
        return float(fragmentation(at.cpu_milli, at.free_milli, at.model, at.typical).sum())


def pack(
    decider: Decider,
    setup: Sequence[Event],
    jobs: Sequence[Job],
    capacity_milli: int,
    points: Sequence[float],
    useful_milli: Mapping[str, int] | None = None,
    watch: Callable[[float], None] = lambda _: None,
) -> Packed:
    """Submit ``jobs`` in order; the curve counts what each asked for, or ``useful_milli`` by job id where given.

    A job that holds a whole card and asked for 30 % of it counts 30 %, whoever rounded it up. ``watch`` is told now and
    then which part of the jobs has come.
    """
    for event in setup:
        decider.step(event)
    books = _Books([event.node for event in setup if isinstance(event, NodePut)], jobs)
    out = Packed()
    left = sorted(points)
    arrived_milli = 0

    def note(point: float) -> None:
        out.curve[point] = 100.0 * out.useful_milli / capacity_milli
        out.fragmentation[point] = 100.0 * books.fragmented_milli() / capacity_milli

    for number, job in enumerate(jobs):
        if number % WATCH_EVERY == 0:
            watch(number / len(jobs))
        asked = job.asked_milli
        useful = useful_milli[job.id] if useful_milli else asked
        arrived_milli += useful
        starts = [
            command
            for command in decider.step(JobSubmitted(job.submitted_at_ms, job))
            if isinstance(command, Start) and command.job_id == job.id
        ]
        if starts:
            out.n_placed += 1
            out.granted_milli += books.take(job, starts)
            out.useful_milli += useful
        else:
            out.n_dropped += 1
            decider.step(JobCancelled(job.submitted_at_ms, job.id))
        while left and arrived_milli >= left[0] * capacity_milli:
            note(left.pop(0))
    for point in left:
        note(point)
    return out
