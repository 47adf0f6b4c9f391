"""Scores: what makes a place good. A scorer gives every candidate a number; higher is better.

A new one is a function of ``Candidates`` and the mix of what is asked for, with a name in ``SCORERS``
(docs/how-to/add-a-score.md). Ties are broken by ``placement``, by packing, never by a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.node_classes import NodeStates

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.cluster import Shape
    from flexai.policy.fragmentation import Mix, Stranding

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Ways to place a member.

    Attributes:
        nodes: classes of the nodes, (n,).
        of: which of them each candidate is about, (k,), ascending.
        card: the cards that candidates take, one candidate after the other: which of its node's cards.
        states: the numbers of these cards' states.
        shape: what the member asks for.
        stranding: what nodes strand as they are.
    """

    nodes: Ints
    of: Ints
    card: Ints
    states: Ints
    shape: Shape
    stranding: Stranding

    @cached_property
    def before(self) -> NodeStates:
        """States of the nodes, (n,)."""
        return self.stranding.classes.states(self.nodes)

    @cached_property
    def taken(self) -> NDArray[np.bool_]:
        """The cards each candidate takes, (k, cards)."""
        taken = np.zeros((len(self.of), self.before.free_milli.shape[1]), dtype=np.bool_)
        taken[np.arange(len(self.of)).repeat(self.shape.n_devices), self.card] = True
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
    of = candidates.nodes[candidates.of]
    before, after = candidates.stranding.compare(candidates.shape, of, candidates.states, mix)
    score: Floats = (before - after).round(3)
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
