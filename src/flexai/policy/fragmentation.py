"""How much free compute is of no use to the work that comes? And what CPUs will the free cards need?

Fragmentation of a node: the free compute that a pod of the mix, drawn at random, cannot use there (Weng et al., FGD,
USENIX ATC'23, section 4), here as a real number over all shapes of the mix and with memory as a second dimension. To it
comes a price of CPU (docs/adr/0004): CPUs that the node's free compute will need at the mix's mean, less those it has
left, counted in compute that they strand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.card_states import grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Shape
    from flexai.policy.node_classes import NodeClasses

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

CPU_RESERVE = 1.2
"""A node should keep this many times the mix's mean CPUs for its free compute."""
FIRST_REFRESH = 32
GROWTH = 1.25
COUNT_BITS = 40
COUNT = 1 << COUNT_BITS
MAX_COUNT = 200_000
AT_ONCE = 4096
"""Classes of nodes judged in one go, so that the arrays in between stay small."""
FEW_NEW = 64
"""Up to so many new classes of nodes are judged in one go with candidates."""
NONE_NEW: Ints = np.zeros(0, dtype=np.int64)


@dataclass(slots=True)
class Mix:
    """What is asked for: shapes with counts, and tables made of them, refreshed as arrivals grow by a quarter.

    ``epoch`` changes with the tables; scores of another epoch are stale. Old arrivals fade: beyond ``MAX_COUNT`` all
    counts are halved.
    """

    epoch: int = 0
    cpu_milli: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_devices: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    models: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    frequency: Floats = field(default_factory=lambda: np.zeros(0))
    pair: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pair_milli: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pair_memory: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    cpu_per_card: float = 0.0
    has_memory: bool = False
    n_models: int = 0
    n_steps: int = 1
    most_devices: int = 0
    cpu_steps: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    least_milli: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pair_offset: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    hosted: Floats = field(default_factory=lambda: np.zeros(0))
    _counts: dict[Shape, int] = field(default_factory=dict)
    _n: int = 0
    _refresh_at: float = FIRST_REFRESH

    def add(self, shape: Shape, n: int = 1) -> None:
        """A job with ``n`` members of this shape arrived."""
        self._counts[shape] = self._counts.get(shape, 0) + n
        self._n += n
        if self.epoch == 0 or self._n >= self._refresh_at:
            self._refresh()

    def _refresh(self) -> None:
        if self._n > MAX_COUNT:
            self._counts = {shape: count // 2 for shape, count in self._counts.items() if count > 1}
            self._n = sum(self._counts.values())
        self._refresh_at = max(FIRST_REFRESH, self._n * GROWTH)
        self.epoch += 1
        shapes = list(self._counts)
        counts = np.array([self._counts[shape] for shape in shapes], dtype=np.float64)
        self.cpu_milli = np.array([shape.cpu_milli for shape in shapes], dtype=np.int64)
        self.n_devices = np.array([shape.n_devices for shape in shapes], dtype=np.int64)
        self.models = np.array([shape.models for shape in shapes], dtype=np.int64)
        self.frequency = counts / counts.sum()
        pairs: dict[tuple[int, int], int] = {}
        self.pair = np.array(
            [pairs.setdefault((shape.compute_milli, shape.memory_bytes), len(pairs)) for shape in shapes],
            dtype=np.int64,
        )
        self.pair_milli = np.array([milli for milli, _ in pairs], dtype=np.int64)
        self.pair_memory = np.array([memory for _, memory in pairs], dtype=np.int64)
        asked = np.array([shape.asked_milli for shape in shapes], dtype=np.float64) @ counts
        cpu = self.cpu_milli[self.n_devices > 0].astype(np.float64) @ counts[self.n_devices > 0]
        self.cpu_per_card = float(cpu / asked * 1000) if asked else 0.0
        self.has_memory = bool(self.pair_memory.any())
        self._tabulate()

    def _tabulate(self) -> None:
        """``hosted[model, CPU step, pair, cards]``: how much of the mix, of a (compute, memory) pair, a node can host.

        It has a first card of the model (the last entry: a model that no shape names), CPU at least of the step, and so
        many cards that are enough for the pair. Flat; ``cpu_steps`` are the amounts of CPU that shapes ask for.
        """
        named = [mask for mask in self.models.tolist() if mask != -1]
        self.n_models = max((mask.bit_length() for mask in named), default=0)
        self.cpu_steps = np.array(sorted(set(self.cpu_milli.tolist())), dtype=np.int64)
        self.n_steps = len(self.cpu_steps) + 1
        self.most_devices = int(self.n_devices.max(initial=0))
        table = np.zeros((self.n_models + 1, self.n_steps, len(self.pair_milli), self.most_devices + 1))
        steps = np.searchsorted(self.cpu_steps, self.cpu_milli) + 1
        models = np.arange(self.n_models + 1)
        for index, often in enumerate(self.frequency.tolist()):
            if self.n_devices[index] > 0:
                may = (int(self.models[index]) >> models) & 1 == 1
                table[may, steps[index], self.pair[index], self.n_devices[index]] += often
        self.hosted = table.cumsum(axis=1).cumsum(axis=3).ravel()
        self.least_milli = np.maximum(self.pair_milli, 0)
        self.pair_offset = np.arange(len(self.pair_milli)) * (self.most_devices + 1)


def stranded(cpu_milli: Ints, free_milli: Ints, free_memory: Ints, model: Ints, mix: Mix) -> Floats:
    """Fragmentation and price of CPU of nodes in these states, in thousandths of a card.

    Shapes: ``cpu_milli`` and ``model`` (n,), ``free_milli`` (negative: closed, absent) and ``free_memory`` (n, cards).
    """
    sums = sums_of_cards(free_milli, free_memory, mix).sum(axis=1)
    return stranded_by_sums(cpu_milli, np.maximum(free_milli, 0).sum(axis=1), model, sums, mix)


def sums_of_cards(free_milli: Ints, free_memory: Ints, mix: Mix) -> Ints:
    """What cards in these states add to their node's sums, per pair of the mix: shape of the cards x (pairs,).

    A card that has enough for the pair counts once, above bit 40, and below with what it has free; others are 0. So one
    addition keeps both how many cards are enough and how much they have.
    """
    enough = free_milli[..., None] >= mix.least_milli
    if mix.has_memory or (free_memory < 0).any():  # less than none: programs outside the pool came to a full card
        enough &= free_memory[..., None] >= mix.pair_memory
    return enough * (free_milli + COUNT)[..., None]


def stranded_by_sums(cpu_milli: Ints, total: Ints, model: Ints, sums: Ints, mix: Mix) -> Floats:
    """``stranded`` from all free compute (n,) and the sums over the cards (n, pairs)."""
    at = mix.cpu_steps.searchsorted(cpu_milli, side="right")
    if mix.n_models:
        at += np.minimum(model, mix.n_models) * mix.n_steps
    at *= len(mix.pair_milli) * (mix.most_devices + 1)
    n_cards = np.minimum(sums >> COUNT_BITS, mix.most_devices)
    n_cards += at[:, None]
    n_cards += mix.pair_offset
    useful = mix.hosted.take(n_cards)
    useful *= sums & (COUNT - 1)
    lost: Floats = total - np.add.reduce(useful, axis=1)
    if mix.cpu_per_card:
        need = CPU_RESERVE * mix.cpu_per_card
        lacks = total * (need / 1000)
        lacks -= cpu_milli
        lost += np.maximum(lacks, 0.0, out=lacks) * (1000 / need)
    return lost


@dataclass(slots=True)
class Stranding:
    """What classes of nodes strand as they are, whoever asks: kept until the class or the mix changes.

    Attributes:
        sums: ``sums_of_cards`` over each class's cards, (classes, pairs).
        lost: ``stranded``, (classes,).
    """

    classes: NodeClasses
    sums: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    lost: Floats = field(default_factory=lambda: np.zeros(0))
    _of_cards: Ints = field(default_factory=lambda: np.zeros((0, 0), dtype=np.int64))
    _n_cards: int = 0
    _epoch: int = -1
    _generation: int = -1
    _seen: int = 0

    def compare(self, shape: Shape, of: Ints, cards: Ints, mix: Mix) -> tuple[Floats, Floats]:
        """What nodes of classes ``of`` (n,) strand, and what they would with a member of ``shape`` on each.

        ``cards`` are the states of the cards that the members take, one after the other.
        """
        new = self._follow(mix)
        if len(new) > FEW_NEW:
            for first in range(0, len(new), AT_ONCE):
                some = new[first : first + AT_ONCE]
                self.lost[some] = self._lost(self.classes.hosts.take(some, axis=0), self.sums.take(some, axis=0), mix)
            new = NONE_NEW
        # The few classes that came since the last call are judged with the candidates: one call costs less than two.
        n, which = len(new), np.concatenate([new, of])
        hosts, sums = self.classes.hosts.take(which, axis=0), self.sums.take(which, axis=0)
        hosts[n:] -= (shape.cpu_milli, 0, shape.asked_milli)
        if shape.n_devices:  # only the cards taken change: their part of the sums is replaced, the rest stays
            change = self._change(shape, cards, mix)
            sums[n:] += change if shape.n_devices == 1 else change.reshape(len(of), shape.n_devices, -1).sum(axis=1)
        lost = self._lost(hosts, sums, mix)
        self.lost[new] = lost[:n]
        return self.lost[of], lost[n:]

    def _lost(self, hosts: Ints, sums: Ints, mix: Mix) -> Floats:
        return stranded_by_sums(hosts[:, 0], hosts[:, 2], hosts[:, 1], sums, mix)

    def _change(self, shape: Shape, cards: Ints, mix: Mix) -> Ints:
        """What the sums change by when cards in these states take their part of the shape: (n, pairs)."""
        states = self.classes.card_states
        milli, memory = states.free_milli[cards] - shape.compute_milli, states.free_memory[cards]
        memory = np.zeros_like(memory) if shape.whole else memory - shape.memory_bytes
        return sums_of_cards(milli, memory, mix) - self._of_cards.take(cards, axis=0)

    def _follow(self, mix: Mix) -> Ints:
        """Sum over the cards of the classes that are new, and answer which these are."""
        classes, n = self.classes, len(self.classes.hosts)
        if self._epoch != mix.epoch or self._generation != classes.generation:
            self._epoch, self._generation, self._n_cards = mix.epoch, classes.generation, 0
            self.sums, self.lost = np.zeros((n, len(mix.pair_milli)), dtype=np.int64), np.zeros(n)
            self._of_cards = self.sums[:0]
            new = classes.in_use()
        elif self._seen == len(classes.log):
            return NONE_NEW
        else:
            self.sums, self.lost = grown(self.sums, n), grown(self.lost, n)
            _, new = classes.since(self._seen)
        self._seen = len(classes.log)
        self._learn_cards(mix)
        for first in range(0, len(new), AT_ONCE):
            some = new[first : first + AT_ONCE]
            self.sums[some] = np.add.reduce(self._of_cards.take(classes.cards.take(some, axis=0), axis=0), axis=1)
        return new

    def _learn_cards(self, mix: Mix) -> None:
        """Judge the states of cards that are new."""
        states, known = self.classes.card_states, self._n_cards
        if known < len(states):
            self._n_cards = len(states)
            self._of_cards = grown(self._of_cards, len(states))
            new = slice(known, len(states))
            self._of_cards[new] = sums_of_cards(states.free_milli[new], states.free_memory[new], mix)


def stranded_reference(cpu_milli: Ints, free_milli: Ints, free_memory: Ints, model: Ints, mix: Mix) -> Floats:
    """Say the same as ``stranded``, one node, shape and card at a time."""
    out = np.zeros(len(cpu_milli))
    for n in range(len(cpu_milli)):
        cards = [(int(milli), int(memory)) for milli, memory in zip(free_milli[n], free_memory[n], strict=True)]
        total = sum(max(milli, 0) for milli, _ in cards)
        for t, often in enumerate(mix.frequency):
            milli, memory = int(mix.pair_milli[mix.pair[t]]), int(mix.pair_memory[mix.pair[t]])
            fitting = [card for card in cards if card[0] >= milli and card[1] >= memory]
            hosts = (
                mix.n_devices[t] > 0
                and cpu_milli[n] >= mix.cpu_milli[t]
                and (int(mix.models[t]) >> int(model[n])) & 1 == 1
                and len(fitting) >= mix.n_devices[t]
            )
            out[n] += often * (total - (sum(max(card[0], 0) for card in fitting) if hosts else 0))
        if mix.cpu_per_card:
            need = CPU_RESERVE * mix.cpu_per_card
            out[n] += max(0.0, total / 1000 * need - int(cpu_milli[n])) / need * 1000
    return out
