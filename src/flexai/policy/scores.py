"""Scores: what makes a place good. A scorer gives every candidate a number; higher is better.

A new one is a function of ``Candidates`` and the mix of what is asked for, with a name in ``SCORERS``
(docs/how-to/add-a-score.md). Ties are broken by ``placement``, by packing, never by a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.fragmentation import Mix, Stranding, stranded_by_sums, sums_of_cards
from flexai.policy.node_classes import NodeStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.cluster import Shape

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Ways to place a member.

    Attributes:
        before: states of the nodes, (n,).
        of: which of them each candidate is about, (k,), ascending.
        at, card: the cards that candidates take, one by one: which candidate, which of its node's cards.
        shape: what the member asks for.
        stranding: what the nodes strand as they are.
    """

    before: NodeStates
    of: Ints
    at: Ints
    card: Ints
    shape: Shape
    stranding: Stranding

    @cached_property
    def taken(self) -> NDArray[np.bool_]:
        """The cards each candidate takes, (k, cards)."""
        taken = np.zeros((len(self.of), self.before.free_milli.shape[1]), dtype=np.bool_)
        taken[self.at, self.card] = True
        return taken

    @cached_property
    def after(self) -> NodeStates:
        """The state of each candidate's node with the member on it, (k,)."""
        before, of, shape = self.before, self.of, self.shape
        memory = before.free_memory[of]
        return NodeStates(
            before.cpu_milli[of] - shape.cpu_milli, before.model[of],
            before.free_milli[of] - shape.compute_milli * self.taken,
            np.where(self.taken, 0, memory) if shape.whole else memory - shape.memory_bytes * self.taken,
        )  # fmt: skip


def fragmentation(candidates: Candidates, mix: Mix) -> Floats:
    """Least compute stranded by the placement (``policy.fragmentation``)."""
    before, of, shape, stranding = candidates.before, candidates.of, candidates.shape, candidates.stranding
    stranding.follow(mix)
    states = stranding.classes.table[of]
    sums = stranding.sums[of]
    if shape.n_devices:  # only the cards taken change: their part of the sums is replaced, the rest stays
        rows = of if shape.n_devices == 1 else of[candidates.at]
        free = before.free_milli[rows, candidates.card]
        both = both_memory = np.concatenate([free - shape.compute_milli, free])
        if mix.has_memory:
            memory = before.free_memory[rows, candidates.card]
            both_memory = np.concatenate([0 * memory if shape.whole else memory - shape.memory_bytes, memory])
        cards = sums_of_cards(both, both_memory, mix)
        change = cards[: len(rows)] - cards[len(rows) :]
        if shape.n_devices == 1:
            sums += change
        else:
            np.add.at(sums, candidates.at, change)
    cpu_milli, total = states[:, 0] - shape.cpu_milli, states[:, 2] - shape.asked_milli
    score: Floats = (stranding.lost[of] - stranded_by_sums(cpu_milli, total, states[:, 1], sums, mix)).round(3)
    return score


def binpack(candidates: Candidates, _mix: Mix) -> Floats:
    """Fullest node first, then fullest card."""
    free = np.maximum(candidates.after.free_milli, 0)
    score: Floats = -free.sum(axis=1) - (free * candidates.taken).sum(axis=1) / 1000
    return score


def spread(candidates: Candidates, _mix: Mix) -> Floats:
    """Emptiest card first, then emptiest node."""
    free = np.maximum(candidates.after.free_milli, 0)
    score: Floats = (free * candidates.taken).sum(axis=1) + free.sum(axis=1) / 1_000_000
    return score


SCORERS: dict[str, Callable[[Candidates, Mix], Floats]] = {
    "fragmentation": fragmentation,
    "binpack": binpack,
    "spread": spread,
}
