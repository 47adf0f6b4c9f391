"""States of cards by number, so that each state is judged once, however many cards are in it.

A state is what is free of a card, what kind of card it is, and whether anybody holds memory on it. Cards come and go
between some hundred states even where there are tens of thousands of cards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from flexai.cluster.card_filter import Cards, passing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    CardState = tuple[int, int, int]
    """Free compute, free memory, and sort: twice the number of a kind of card, plus 1 if somebody holds memory on it.
    So ordered, the fullest card comes first."""

Kind = TypeVar("Kind", np.int64, np.float64, np.bool_)

CLOSED = 0
"""Number of the state of a card that takes nothing."""
CLOSED_CARD = (-1, 0, -1)


def grown(array: NDArray[Kind], n: int) -> NDArray[Kind]:
    """The array with room for ``n`` rows and as many again; itself if it has room."""
    if n <= len(array):
        return array
    out = np.zeros((max(64, 2 * n), *array.shape[1:]), dtype=array.dtype)
    out[: len(array)] = array
    return out


@dataclass(slots=True)
class CardStates:
    """All states that cards were in since ``forget``.

    Attributes:
        states: by number; ``CLOSED`` is the first.
        free_milli, free_memory, sort: the same as arrays, with room for more.
    """

    books: Books
    states: list[CardState] = field(default_factory=lambda: [CLOSED_CARD])
    _table: Ints = field(default_factory=lambda: np.array([CLOSED_CARD], dtype=np.int64))
    _number_of: dict[CardState, int] = field(default_factory=lambda: {CLOSED_CARD: CLOSED})
    _kinds: dict[tuple[int, tuple[str, ...], int], int] = field(default_factory=dict)
    _takes: dict[object, Flags] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def free_milli(self) -> Ints:
        """Free compute, by number; negative: closed."""
        return self._table[:, 0]

    @property
    def free_memory(self) -> Ints:
        """Free memory, by number."""
        return self._table[:, 1]

    def number(self, state: CardState) -> int:
        """The number of a state, a new one if need be."""
        number = self._number_of.get(state)
        if number is None:
            number = self._number_of[state] = len(self.states)
            self.states.append(state)
            self._table = grown(self._table, number + 1)
            self._table[number] = state
        return number

    def kind(self, model: int, partitions: tuple[str, ...], cut: int) -> int:
        """The number of a kind of card: its model, the partitions it can be cut into, and where it is cut."""
        return self._kinds.setdefault((model, partitions, cut), len(self._kinds))

    def forget(self) -> None:
        """Number states anew. Kinds stay: there are few, and cards are put in order by them."""
        self.states, self._number_of, self._takes = [CLOSED_CARD], {CLOSED_CARD: CLOSED}, {}

    def takes(self, shape: Shape) -> Flags:
        """In which states a card could take one card's part of ``shape``, by number."""
        # Shapes that ask the same of a card, and differ in their CPUs or RAM, are judged once; filters may look at all.
        part: object = shape
        if not self.books.filters:
            part = shape.compute_milli, shape.memory_bytes, shape.whole, shape.models, shape.profile
        known = self._takes.get(part)
        if known is None:
            known = self._takes[part] = self._judge(shape, self._table[: len(self)])
        elif len(known) < len(self):
            new = self._judge(shape, self._table[len(known) : len(self)])
            known = self._takes[part] = np.concatenate([known, new])
        return known

    def _judge(self, shape: Shape, states: Ints) -> Flags:
        free_milli, free_memory, sort = states.T
        held = (sort & 1) == 1
        ok: Flags = free_milli >= shape.compute_milli  # a closed card has less than nothing
        ok &= ~held if shape.whole else free_memory >= shape.memory_bytes
        if shape.models != -1 or shape.profile is not None or self.books.partitions:
            profile = shape.profile
            able = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
            is_cut = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
            for (model, partitions, cut), kind in self._kinds.items():
                way = cut == 0 if profile is None else profile.name in partitions and bool(profile.free_starts(cut))
                able[kind] = bool((shape.models >> model) & 1) and way
                is_cut[kind] = cut != 0
            kinds = sort >> 1  # a closed card's is -1: the last, which is not able
            ok &= able[kinds]
            if profile is not None:  # what is shared is not cut
                ok &= is_cut[kinds] | ~held
        if self.books.filters:
            ok &= passing(self.books.filters, Cards(free_milli[None], free_memory[None], held[None]), shape)[0]
        return ok
