"""Placement baselines as deciders: what the scheduler is compared with wherever the choice of node and card matters.

A node is chosen by one of the scorers of ``packing`` (FGD: Weng et al., USENIX ATC'23; best fit and first fit: as that
paper describes them), among equals the first by name, or by chance (``-random``). Jobs are tried in the order in which
they came and whoever fits starts, as in kube-scheduler; a gang starts whole or not at all. What does not fit is tried
again when something ends. ``whole-card`` is best fit that rounds every share up to whole cards, which is what a cluster
does that cannot cut them. No queues, no preemption, no card memory, no topology.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.model import Grant
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobCancelled, JobSubmitted, MemberFinished, NodePut
from flexai.simulation.packing import (
    BASELINES,
    WHOLE,
    PackingRun,
    Placed,
    Shape,
    Typical,
    by_name,
    model_index,
    nodes_of,
    shape_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flexai.model import Job, Node, Role
    from flexai.scheduling.commands import Command
    from flexai.scheduling.events import Event

NO_DRAWS: Iterator[int] = iter(())
WHOLE_CARD = "whole-card"
PLACEMENTS = (*(name for scorer in BASELINES for name in (scorer, f"{scorer}-random")), WHOLE_CARD)


@dataclass(slots=True)
class PlacementBaseline:
    """Places by ``name``, one of ``PLACEMENTS``.

    ``known`` are the jobs whose mix FGD judges by (it knows them beforehand, as its published simulator does);
    ``draws`` are numbers for the ``-random`` rules. All nodes must come before the first job.
    """

    name: str
    known: Sequence[Job] = ()
    draws: Iterator[int] = NO_DRAWS
    _nodes: list[Node] = field(default_factory=list)
    _index: dict[str, int] = field(default_factory=dict)
    _run: PackingRun | None = None
    _waiting: dict[str, Job] = field(default_factory=dict)
    _held: dict[tuple[str, int], Placed] = field(default_factory=dict)

    def step(self, event: Event) -> list[Command]:
        """Take one event; start who fits."""
        match event:
            case NodePut():
                assert self._run is None, "nodes come before jobs"
                self._nodes.append(event.node)
            case JobSubmitted():
                self._waiting[event.job.id] = event.job
                return self._try(event.job)
            case JobCancelled():
                self._waiting.pop(event.job_id, None)
            case MemberFinished():
                self._ready().remove(self._held.pop((event.job_id, event.member)))
                return self._try_all()
            case _:
                pass
        return []

    def _ready(self) -> PackingRun:
        if self._run is None:
            self._index = model_index(self._nodes)
            typical = Typical.of(self._shape(job) for job in self.known)
            scorer = "best-fit" if self.name == WHOLE_CARD else self.name.removesuffix("-random")
            draws = self.draws if self.name.endswith("-random") else None
            self._run = PackingRun(nodes_of(self._nodes, typical), BASELINES[scorer], by_name(self._nodes), draws)
        return self._run

    def _shape(self, job: Job | Role) -> Shape:
        shape = shape_of(job, self._index)
        return replace(shape, compute_milli=WHOLE) if self.name == WHOLE_CARD and shape.n_devices else shape

    def _try_all(self) -> list[Command]:
        commands: list[Command] = []
        refused: set[tuple[tuple[Shape, int], ...]] = set()
        for job in list(self._waiting.values()):
            kind = tuple((self._shape(role), role.n_members) for role in job.parts)
            if kind not in refused:
                started = self._try(job)
                commands += started
                if not started:
                    refused.add(kind)
        return commands

    def _try(self, job: Job) -> list[Command]:
        run = self._ready()
        placed: list[Placed] = []
        for shape in (shape for role in job.parts for shape in [self._shape(role)] * role.n_members):
            one = run.place(shape)
            if one is None:
                for other in placed:
                    run.remove(other)
                return []
            placed.append(one)
        del self._waiting[job.id]
        commands: list[Command] = []
        for member, one in enumerate(placed):
            self._held[job.id, member] = one
            commands.append(Start(job.id, member, self._grants(job, member, one), self.name))
        return commands

    def _grants(self, job: Job, member: int, placed: Placed) -> tuple[Grant, ...]:
        node, request, milli = self._nodes[placed.row], job.request_of(member), placed.shape.compute_milli
        return tuple(
            Grant(
                job.id, member, node.name, node.devices[card].uuid, milli, max(milli, request.limit_milli),
                request.memory_bytes, request.tenant_class,
            )
            for card in placed.cards
        )  # fmt: skip
