"""Scores: what makes a place good. A scorer gives every candidate a number; higher is better.

A new one is a function of ``Candidates`` and the mix of what is asked for, with a name in ``SCORERS``
(docs/how-to/add-a-score.md). Ties are broken by ``placement``, by packing, never by a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.fragmentation import Mix, stranded_by_sums, sums_of_cards

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.policy.node_classes import NodeStates

    Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ways to place a member.

    Attributes:
        before: states of the nodes, (n,).
        of: which of them each candidate is about, (k,), ascending.
        after: the state of each candidate's node with the member on it, (k,).
        taken: the cards it takes, (k, cards).
    """

    before: NodeStates
    of: NDArray[np.int64]
    after: NodeStates
    taken: NDArray[np.bool_]


def fragmentation(candidates: Candidates, mix: Mix) -> Floats:
    """Least compute stranded by the placement (``policy.fragmentation``)."""
    before, after, of = candidates.before, candidates.after, candidates.of
    cards = sums_of_cards(before.free_milli, before.free_memory, mix)
    total = np.maximum(before.free_milli, 0).sum(axis=1)
    sums = cards.sum(axis=1)
    lost = stranded_by_sums(before.cpu_milli, total, before.model, sums, mix)
    # Only the cards taken change: their part of the sums is replaced, the rest stays.
    at, card = np.nonzero(candidates.taken)
    free_after = after.free_milli[at, card]
    change = sums_of_cards(free_after, after.free_memory[at, card], mix) - cards[of[at], card]
    if len(at) == len(of):
        sums_after, total_after = sums[of] + change, total[of] - before.free_milli[of[at], card] + free_after
    else:
        sums_after, total_after = sums[of], np.maximum(after.free_milli, 0).sum(axis=1)
        np.add.at(sums_after, at, change)
    score: Floats = np.round(lost[of] - stranded_by_sums(after.cpu_milli, total_after, after.model, sums_after, mix), 3)
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
