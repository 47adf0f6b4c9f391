"""Filters: cards that new members are kept off though they would fit (``policy.filters`` has those with a name)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster.shape import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cards:
    """States of cards, each array (nodes, cards).

    Attributes:
        free_milli: free compute, thousandths of a card; below 0 where closed or not there.
        free_memory: free memory, bytes.
        held: whether a member holds memory on it.
    """

    free_milli: Ints
    free_memory: Ints
    held: Flags


Filter = Callable[[Cards, Shape], "NDArray[np.bool_]"]
"""Which cards may take one card's part of the shape. It looks at each card by itself and is asked before whatever
is placed, of classes of like nodes at once. More free must never make it refuse what it let pass: what waits is tried
again only where something became free."""


def passing(filters: tuple[Filter, ...], cards: Cards, shape: Shape) -> Flags:
    """Which cards all filters let pass."""
    ok: Flags = np.ones(cards.free_milli.shape, dtype=np.bool_)
    for each in filters:
        ok &= each(cards, shape)
    return ok


def n_passing(filters: tuple[Filter, ...], cards: Cards, shape: Shape, slots: Ints) -> Ints:
    """How many parts of ``shape``, at most ``slots``, the filters let onto each card one after the other."""
    count = np.zeros_like(slots)
    while True:
        more = (count < slots) & passing(filters, cards, shape)
        if not more.any():
            return count
        count += more
        slots = np.where(more, slots, count)  # refused once is refused from then on: nothing becomes free here
        held = cards.held | (more & (shape.whole or shape.memory_bytes > 0))
        cards = Cards(
            cards.free_milli - shape.compute_milli * more, cards.free_memory - shape.memory_bytes * more, held
        )
