"""The packing experiment of FGD (Weng et al., USENIX ATC'23) and its baselines, on a cluster of mixed nodes.

Pods come one by one, none leaves, one that fits nowhere is dropped; what is measured is *allocation*: the part of all
card compute that was granted when the asked-for compute reaches a multiple of capacity. Baselines here: first fit, best
fit and FGD itself, each with two rules for equal scores, since FGD's published figure rests on whole-number scores and
on taking the first node by name among equals, where names are drawn anew for each run.

Units: compute in thousandths of a card, CPU in thousandths of a core, memory in MiB (RAM is a filter only).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from flexai.model import Job, Node, Role

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Scorer = Callable[["PackingNodes", "Shape", Ints], tuple[Floats, Ints]]

WHOLE = 1000
INFEASIBLE = -np.inf


@dataclass(frozen=True, slots=True)
class Shape:
    """What pods of one kind ask: the class that scores are cached for. ``models`` is a bit mask, -1 for any."""

    cpu_milli: int
    ram_mib: int
    n_devices: int
    compute_milli: int
    models: int = -1


@dataclass(slots=True)
class PackingNodes:
    """The nodes' free resources as arrays; row = node, column = card (absent cards are -1)."""

    cpu_milli: Ints
    ram_mib: Ints
    free_milli: Ints
    model: Ints
    typical: Typical
    most_cpu_milli: int = 0
    most_compute_milli: int = 0

    def fits(self, shape: Shape, rows: Ints) -> NDArray[np.bool_]:
        """Which of ``rows`` can take one pod of ``shape`` now."""
        ok = (self.cpu_milli[rows] >= shape.cpu_milli) & (self.ram_mib[rows] >= shape.ram_mib)
        ok &= (shape.models >> self.model[rows]) & 1 == 1
        if shape.n_devices:
            ok &= (self.free_milli[rows] >= shape.compute_milli).sum(axis=1) >= shape.n_devices
        return ok

    def take(self, shape: Shape, row: int, device: int) -> tuple[int, ...]:
        """Grant the pod: on ``device`` if it asks for one card, else on the first cards with room; those cards."""
        cards: tuple[int, ...] = ()
        if shape.n_devices == 1:
            cards = (device,)
        elif shape.n_devices:
            room = np.flatnonzero(self.free_milli[row] >= shape.compute_milli)
            cards = tuple(room[: shape.n_devices].tolist())
        self._book(shape, row, cards, -1)
        return cards

    def give(self, shape: Shape, row: int, cards: tuple[int, ...]) -> None:
        """Take back what was granted."""
        self._book(shape, row, cards, 1)

    def _book(self, shape: Shape, row: int, cards: tuple[int, ...], sign: int) -> None:
        self.cpu_milli[row] += sign * shape.cpu_milli
        self.ram_mib[row] += sign * shape.ram_mib
        self.free_milli[row, list(cards)] += sign * shape.compute_milli


@dataclass(frozen=True, slots=True)
class Typical:
    """The mix of pods that fragmentation is judged by: one row per shape, with how often it comes (sum 1)."""

    cpu_milli: Ints
    n_devices: Ints
    compute_milli: Ints
    models: Ints
    frequency: Floats

    @staticmethod
    def of(pods: Iterable[Shape], cover: float = 0.95) -> Typical:
        """Take the commonest shapes, of equally common ones the larger, until ``cover`` of all pods is met.

        So the paper's simulator does (``GetTypicalPods``).
        """
        counts = Counter((p.cpu_milli, p.compute_milli, p.n_devices, p.models) for p in pods)
        total, seen, kept = sum(counts.values()), 0, []
        for (cpu_milli, milli, n_devices, models), n in sorted(
            counts.items(), key=lambda item: (item[1], item[0]), reverse=True
        ):
            if seen >= cover * total:
                break
            kept.append((cpu_milli, n_devices, milli, models, n))
            seen += n
        table = np.array(kept, dtype=np.int64).reshape(-1, 5)
        return Typical(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4] / max(seen, 1))


def model_index(nodes: Sequence[Node]) -> dict[str, int]:
    """A number for every model among the nodes."""
    return {model: at for at, model in enumerate(sorted({d.model for node in nodes for d in node.devices}))}


def nodes_of(nodes: Sequence[Node], typical: Typical) -> PackingNodes:
    """The nodes, empty, as arrays; a node's cards are of one model."""
    index = model_index(nodes)
    free = np.full((len(nodes), max(len(node.devices) for node in nodes)), -1, dtype=np.int64)
    for row, node in enumerate(nodes):
        free[row, : len(node.devices)] = WHOLE
    return PackingNodes(
        np.array([node.cpu_milli for node in nodes]), np.array([node.ram_bytes >> 20 for node in nodes]), free,
        np.array([index[node.devices[0].model] if node.devices else -1 for node in nodes]), typical,
        max(node.cpu_milli for node in nodes), free.shape[1] * WHOLE,
    )  # fmt: skip


def shape_of(job: Job | Role, index: Mapping[str, int]) -> Shape:
    """What one member of a job, or of a role, asks for; ``index`` is that of ``model_index``."""
    request = job.request
    mask = sum(1 << index[model] for model in request.models if model in index) if request.models else -1
    milli = request.compute_milli if request.n_devices else 0
    return Shape(job.cpu_milli, job.ram_bytes >> 20, request.n_devices, milli, mask)


def by_name(nodes: Sequence[Node]) -> Ints:
    """Each node's place among the names."""
    order: Ints = np.argsort(np.argsort(np.array([node.name for node in nodes])))
    return order


def fragmentation(cpu_milli: Ints, free_milli: Ints, model: Ints, typical: Typical) -> Floats:
    """Expected free compute that a typical pod cannot use, per node (FGD, section 4).

    Shapes: ``cpu_milli`` (n,), ``free_milli`` (n, cards) with -1 for absent cards, ``model`` (n,); result (n,).
    A pod that the node cannot host finds all of its free compute useless; one that it can host finds useless the cards
    with less free than it asks per card; a pod without cards finds all of it useless.
    """
    free = np.maximum(free_milli, 0)
    total = free.sum(axis=1)
    asked = typical.compute_milli[None, None, :]
    enough = free_milli[:, :, None] >= asked
    hosts = enough.sum(axis=1) >= typical.n_devices[None, :]
    hosts &= cpu_milli[:, None] >= typical.cpu_milli[None, :]
    hosts &= (typical.models[None, :] >> model[:, None]) & 1 == 1
    hosts &= typical.n_devices[None, :] > 0
    too_small = (free[:, :, None] * ~enough).sum(axis=1)
    useless: Floats = np.where(hosts, too_small, total[:, None]) @ typical.frequency
    return useless


def fragmentation_reference(cpu_milli: Ints, free_milli: Ints, model: Ints, typical: Typical) -> Floats:
    """Say the same as ``fragmentation``, one node, pod and card at a time."""
    out = np.zeros(len(cpu_milli))
    for n in range(len(cpu_milli)):
        cards = [int(milli) for milli in free_milli[n] if milli >= 0]
        for t, often in enumerate(typical.frequency):
            asked, count = int(typical.compute_milli[t]), int(typical.n_devices[t])
            hosts = (
                count > 0
                and cpu_milli[n] >= typical.cpu_milli[t]
                and (int(typical.models[t]) >> int(model[n])) & 1 == 1
                and sum(milli >= asked for milli in cards) >= count
            )
            out[n] += often * sum(milli for milli in cards if not hosts or milli < asked)
    return out


def score_fgd(nodes: PackingNodes, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """Score by how little fragmentation the pod adds: whole numbers 0..100 of a sigmoid, as published."""
    cpu, free, model = nodes.cpu_milli[rows], nodes.free_milli[rows], nodes.model[rows]
    before = fragmentation(cpu, free, model, nodes.typical)
    cpu_after = cpu - shape.cpu_milli

    def score(after: Floats) -> Floats:
        return np.floor(100.0 / (1.0 + np.exp(-(before - after) / WHOLE)))

    if shape.n_devices != 1:
        taken = free.copy()
        if shape.n_devices:
            room = free >= shape.compute_milli
            taken -= shape.compute_milli * (room & (np.cumsum(room, axis=1) <= shape.n_devices))
        return score(fragmentation(cpu_after, taken, model, nodes.typical)), np.zeros(len(rows), dtype=np.int64)
    fits = free >= shape.compute_milli
    for card in range(1, free.shape[1]):  # of cards with as much free the first stands for all
        fits[:, card] &= (free[:, :card] != free[:, card : card + 1]).all(axis=1)
    row, card_of = np.nonzero(fits)
    taken = free[row]
    taken[np.arange(len(row)), card_of] -= shape.compute_milli
    before = before[row]
    table = np.full(free.shape, INFEASIBLE)
    table[row, card_of] = score(fragmentation(cpu_after[row], taken, model[row], nodes.typical))
    return table.max(axis=1), table.argmax(axis=1)


def score_best_fit(nodes: PackingNodes, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """Score by how little is left over, CPU and compute weighing alike against the largest node; card: least room."""
    free = np.maximum(nodes.free_milli[rows], 0)
    left_cpu = (nodes.cpu_milli[rows] - shape.cpu_milli) / nodes.most_cpu_milli
    left_compute = (free.sum(axis=1) - shape.n_devices * shape.compute_milli) / nodes.most_compute_milli
    return np.floor(100.0 * (1.0 - (left_cpu + left_compute) / 2)), _tightest(nodes, shape, rows)


def score_first_fit(nodes: PackingNodes, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
    """Score every node alike, so that the rule for equals decides."""
    return np.zeros(len(rows)), _tightest(nodes, shape, rows)


def _tightest(nodes: PackingNodes, shape: Shape, rows: Ints) -> Ints:
    free = nodes.free_milli[rows]
    card: Ints = np.argmin(np.where(free >= shape.compute_milli, free, 2 * WHOLE), axis=1).astype(np.int64)
    return card


BASELINES: dict[str, Scorer] = {"fgd": score_fgd, "best-fit": score_best_fit, "first-fit": score_first_fit}


@dataclass(slots=True)
class _Cache:
    """Scores of one shape; nodes that changed since are scored again on the next use."""

    score: Floats
    device: Ints
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a pod went: row of the node, columns of its cards."""

    shape: Shape
    row: int
    cards: tuple[int, ...]


@dataclass(slots=True)
class PackingRun:
    """One run of the experiment under one scorer.

    ``tie`` orders equal nodes: the lowest wins, as the first by name. With ``draws`` (numbers drawn by the caller, one
    is used per placement) chance picks among equals instead.
    """

    nodes: PackingNodes
    scorer: Scorer
    tie: Ints
    draws: Iterator[int] | None = None
    granted_milli: int = 0
    arrived_milli: int = 0
    n_placed: int = 0
    n_failed: int = 0
    _changed: list[int] = field(default_factory=list)
    _cache: dict[Shape, _Cache] = field(default_factory=dict)

    def place(self, shape: Shape) -> Placed | None:
        """Place one pod; None if it fits nowhere and was dropped."""
        self.arrived_milli += shape.n_devices * shape.compute_milli
        cache = self._scores(shape)
        best = cache.score.max(initial=INFEASIBLE)
        if best == INFEASIBLE:
            self.n_failed += 1
            return None
        equals = np.flatnonzero(cache.score == best)
        picked = np.argmin(self.tie[equals]) if self.draws is None else next(self.draws) % len(equals)
        row = int(equals[picked])
        cards = self.nodes.take(shape, row, int(cache.device[row]))
        self._changed.append(row)
        self.granted_milli += shape.n_devices * shape.compute_milli
        self.n_placed += 1
        return Placed(shape, row, cards)

    def remove(self, placed: Placed) -> None:
        """Take a pod away again."""
        self.nodes.give(placed.shape, placed.row, placed.cards)
        self._changed.append(placed.row)
        self.granted_milli -= placed.shape.n_devices * placed.shape.compute_milli

    def _scores(self, shape: Shape) -> _Cache:
        cache = self._cache.get(shape)
        if cache is None:
            n = len(self.nodes.cpu_milli)
            cache = self._cache[shape] = _Cache(np.full(n, INFEASIBLE), np.zeros(n, dtype=np.int64))
            stale = np.arange(n)
        else:
            stale = np.unique(np.array(self._changed[cache.seen :], dtype=np.int64))
        cache.seen = len(self._changed)
        if len(stale):
            ok = self.nodes.fits(shape, stale)
            cache.score[stale[~ok]] = INFEASIBLE
            rows = stale[ok]
            for chunk in np.array_split(rows, max(1, len(rows) // 256)):
                if len(chunk):
                    cache.score[chunk], cache.device[chunk] = self.scorer(self.nodes, shape, chunk)
        return cache
