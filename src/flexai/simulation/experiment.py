"""One question asked of one policy: the trace played in time, or packed by amount."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flexai.model import Queue
from flexai.scheduling.events import NodePut, QueuePut
from flexai.simulation.arrivals import Packed, pack
from flexai.simulation.deciders import MOVING, PARK, decider
from flexai.simulation.kernel import Outcome, SimulatedJob, Simulation
from flexai.simulation.metrics import Summary, by_group, size_class, summarise
from flexai.simulation.placing import NO_DRAWS
from flexai.simulation.workload import Work, capacity_milli, jobs_in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from flexai.model import Job, Node
    from flexai.scheduling.events import Event

PACKING_POINTS = (0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A trace in virtual time under one policy."""

    policy: str
    nodes: tuple[Node, ...]
    outcome: Outcome
    summary: Summary

    @property
    def n_cards(self) -> int:
        """Cards of the cluster."""
        return sum(len(node.devices) for node in self.nodes)

    @property
    def label(self) -> str:
        """Which run it is, for tables and pictures."""
        return f"{self.policy}, {self.n_cards} cards"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        parks = {"parks": self.outcome.n_parks} if self.policy in PARK else {}
        return {
            "policy": self.policy, "cards": self.n_cards, **asdict(self.summary), "digest": self.outcome.digest,
            "events": self.outcome.n_events, **parks,
            "waits_by_size": {size: asdict(waits) for size, waits in by_group(self.outcome, size_class).items()},
            "waits_by_queue": {
                queue: asdict(waits) for queue, waits in by_group(self.outcome, lambda book: book.job.queue).items()
            },
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class PackedRun:
    """A trace packed by amount under one policy; one ``Packed`` per seed."""

    policy: str
    n_cards: int
    by_seed: dict[int, Packed]

    @property
    def label(self) -> str:
        """Which run it is, for tables and pictures."""
        return f"{self.policy}, {self.n_cards} cards"

    def mean(self, point: float) -> float:
        """Allocation at a point, per cent, over the seeds."""
        return sum(packed.curve[point] for packed in self.by_seed.values()) / len(self.by_seed)

    def mean_fragmentation(self, point: float) -> float:
        """Free compute that a typical job cannot use, per cent of capacity, over the seeds."""
        return sum(packed.fragmentation[point] for packed in self.by_seed.values()) / len(self.by_seed)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        points = next(iter(self.by_seed.values())).curve
        return {
            "policy": self.policy, "cards": self.n_cards,
            "allocation": {str(point): self.mean(point) for point in points},
            "fragmentation": {str(point): self.mean_fragmentation(point) for point in points},
            "by_seed": {str(seed): asdict(packed) for seed, packed in self.by_seed.items()},
        }  # fmt: skip


def setup_events(nodes: Sequence[Node], queues: Iterable[str]) -> list[Event]:
    """The queues that the jobs name (no quota, no limit, equal weight), then the nodes."""
    return [*(QueuePut(0, Queue(name)) for name in sorted(set(queues))), *(NodePut(0, node) for node in nodes)]


def that_parks(node: Node, *, moves: bool) -> Node:
    """The same node, with a driver that can move device memory to the host, and from there to any of its cards."""
    devices = [replace(device, can_park=True, can_move_when_parked=moves) for device in node.devices]
    return replace(node, devices=tuple(devices))


def run_in_time(
    policy: str,
    nodes: Sequence[Node],
    works: Sequence[Work],
    arrival: float = 1.0,
    draws: Iterator[int] = NO_DRAWS,
    watch: Callable[[float], None] = lambda _: None,
) -> TimedRun:
    """Play the works at their own times; ``draws`` are numbers for policies that leave equals to chance."""
    jobs = jobs_in_time(works, arrival)
    simulation = Simulation(decider(policy, jobs, draws), watch=watch)
    if policy in PARK:
        nodes = [that_parks(node, moves=policy == MOVING) for node in nodes]
    outcome = simulation.play(setup_events(nodes, [entry.job.queue for entry in jobs]), jobs)
    capacity = capacity_milli(nodes)
    return TimedRun(policy, tuple(nodes), outcome, summarise(outcome, capacity))


def run_by_amount(
    policy: str,
    nodes: Sequence[Node],
    jobs_by_seed: Mapping[int, Sequence[Job]],
    arrival: float = 1.3,
    draws: Callable[[int], Iterator[int]] = lambda _: NO_DRAWS,
    known: Sequence[Job] | None = None,
    watch: Callable[[float], None] = lambda _: None,
) -> PackedRun:
    """Pack each seed's jobs, up to ``arrival`` times capacity.

    ``draws`` gives numbers for a seed's ties; ``known`` is the list whose mix FGD knows beforehand (else what comes).
    """
    capacity = capacity_milli(nodes)
    points = [point for point in PACKING_POINTS if point < arrival] + [arrival]
    by_seed = {}
    for number, (seed, jobs) in enumerate(jobs_by_seed.items()):
        decides = decider(policy, [SimulatedJob(job, 0) for job in known or jobs], draws(seed))
        setup = setup_events(nodes, [job.queue for job in jobs])
        done = partial(_part_of, watch, number, len(jobs_by_seed))
        by_seed[seed] = pack(decides, setup, jobs, capacity, points, watch=done)
    return PackedRun(policy, capacity // 1000, by_seed)


def _part_of(watch: Callable[[float], None], number: int, n_parts: int, done: float) -> None:
    watch((number + done) / n_parts)
