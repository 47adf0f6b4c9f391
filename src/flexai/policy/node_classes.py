"""Nodes in like states, so that each state is judged once, however many nodes are in it.

A class is a node's state with its cards in a fixed order: free CPU, and of each card what is free, what sort of card it
is and whether anybody holds memory on it. A large cluster has far fewer classes than nodes, and most of them come again
and again. RAM is left out (it would tell nodes apart that a score cannot); who places checks it on the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import ne
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster.card_filter import Cards, passing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape
    from flexai.model import Node

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

CLOSED_CARD = (-1, 0, -1)
"""Free compute, free memory and sort of a card that takes nothing."""


@dataclass(frozen=True, slots=True)
class NodeStates:
    """States of nodes as scorers see them: ``cpu_milli`` and ``model`` of the first card (n,); cards (n, cards)."""

    cpu_milli: Ints
    model: Ints
    free_milli: Ints
    free_memory: Ints


HEAD = 3
"""Columns of a class before those of its cards: CPU, model, and free compute in all."""
FEW_CARDS = 32
"""Up to so many cards plain Python orders them faster than arrays do."""


def _none(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)


@dataclass(slots=True)
class NodeClasses:
    """Classes by number; a number is used again when its class has no node any more.

    Attributes:
        class_of: class of each row, (rows,).
        table: a class in a row, as the views below lay it out; whoever looks at a few classes gathers their rows once.
        cpu_milli, model, total_milli: (classes,); the last is the free compute of all cards.
        free_milli, free_memory, sort, is_first: (classes, cards), cards in order of the first three.
            ``sort`` is twice the number of a kind of card, plus 1 if somebody holds memory on it. ``is_first`` is 1 for
            a card that is not like its left neighbour: of cards alike, one is candidate enough.
        rows: nodes of each class, in the order in which they came to it.
        log: classes that came or went, in order; readers remember how far they have read.
        generation: changes when everything is numbered anew.
    """

    books: Books
    class_of: Ints = field(default_factory=lambda: _none(0))
    table: Ints = field(default_factory=lambda: _none(0, HEAD))
    rows: list[dict[int, None]] = field(default_factory=list)
    log: list[int] = field(default_factory=list)
    generation: int = 0
    _ids: dict[bytes, int] = field(default_factory=dict)
    _keys: list[bytes] = field(default_factory=list)
    _unused: list[int] = field(default_factory=list)
    _is_used: Flags = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    _seen: int = 0
    _kinds: dict[tuple[int, tuple[str, ...], int], int] = field(default_factory=dict)
    _kind: Ints = field(default_factory=lambda: _none(0, 0))
    _nodes: dict[int, Node | None] = field(default_factory=dict)

    @property
    def cpu_milli(self) -> Ints:
        """Free CPU: (classes,)."""
        return self.table[:, 0]

    @property
    def model(self) -> Ints:
        """Model of the first card: (classes,)."""
        return self.table[:, 1]

    @property
    def total_milli(self) -> Ints:
        """Free compute of all cards: (classes,)."""
        return self.table[:, 2]

    @property
    def free_milli(self) -> Ints:
        """Free compute: (classes, cards)."""
        return self.part(self.table, 0)

    @property
    def free_memory(self) -> Ints:
        """Free memory: (classes, cards)."""
        return self.part(self.table, 1)

    @property
    def sort(self) -> Ints:
        """Sorts of the cards: (classes, cards)."""
        return self.part(self.table, 2)

    def part(self, states: Ints, at: int) -> Ints:
        """Of rows of the table, what they say of cards: 0 free compute, 1 free memory, 2 sort, 3 is first."""
        n = self._kind.shape[1]
        return states[:, HEAD + at * n : HEAD + (at + 1) * n]

    def sync(self) -> None:
        """Follow the books."""
        books = self.books
        if books.free_milli.shape != self._kind.shape:
            self._restart()
            rows = list(range(len(books.names)))
        else:
            if self._seen == len(books.changed):
                return
            rows = sorted(set(books.changed[self._seen :]))
        self._seen = len(books.changed)
        for row in rows:
            node = books.nodes.get(books.names[row])
            if self._nodes.get(row) is not node or books.partitions:
                self._nodes[row] = node
                self._learn_kinds(row)
        if len(rows) == 1 and 0 < books.free_milli.shape[1] <= FEW_CARDS:
            self._move(rows[0], self._one(rows[0]))
        elif rows:
            for row, state in zip(rows, self._many(np.array(rows, dtype=np.int64)), strict=True):
                self._move(row, state)

    def _one(self, row: int) -> Ints:
        """A node's state as a row of the table."""
        books = self.books
        cards = sorted(
            (free, memory, 2 * kind + (held > 0)) if free >= 0 else CLOSED_CARD
            for free, memory, kind, held in zip(
                books.free_milli[row].tolist(), books.free_memory[row].tolist(), self._kind[row].tolist(),
                books.granted_memory[row].tolist(), strict=True,
            )
        )  # fmt: skip
        free, memory, sort = zip(*cards, strict=True)
        total = sum(milli for milli in free if milli > 0)
        first = map(ne, cards, [(), *cards])
        head = books.cpu_milli.item(row), books.model.item(row, 0), total
        return np.array([*head, *free, *memory, *sort, *first], dtype=np.int64)

    def _many(self, rows: Ints) -> Ints:
        """Say the same of many nodes at once."""
        books = self.books
        free, memory = books.free_milli[rows], books.free_memory[rows]
        sort = 2 * self._kind[rows] + (books.granted_memory[rows] > 0)
        closed = free < 0
        if closed.any():
            for array, value in zip((free, memory, sort), CLOSED_CARD, strict=True):
                array[closed] = value
        order = np.lexsort((sort, memory, free))
        model = books.model[rows, :1] if books.model.shape[1] else _none(len(rows), 1)
        total = np.maximum(free, 0).sum(axis=1)
        cards = [np.take_along_axis(each, order, axis=1) for each in (free, memory, sort)]
        first = np.ones_like(free)
        first[:, 1:] = np.logical_or.reduce([each[:, 1:] != each[:, :-1] for each in cards])
        return np.concatenate([books.cpu_milli[rows][:, None], model, total[:, None], *cards, first], axis=1)

    def in_use(self, since: int = 0) -> Ints:
        """Classes that have nodes, of those that came since the log was so long (0: all), in order of number."""
        if not since:
            return np.flatnonzero(self._is_used)
        return np.array([number for number in sorted(set(self.log[since:])) if self.rows[number]], dtype=np.int64)

    def forget(self) -> None:
        """Number everything anew at the next ``sync``: the books' log of changes was cut."""
        self._kind = _none(0, 0)

    def cards_for(self, shape: Shape, ids: Ints) -> Flags:
        """Which cards of these classes could take one card's part of ``shape``: (n, cards)."""
        return self.cards_of(shape, self.table[ids])

    def cards_of(self, shape: Shape, states: Ints) -> Flags:
        """Say the same of rows of the table."""
        ok: Flags = self.part(states, 0) >= shape.compute_milli  # a closed card has less than nothing
        if shape.whole:
            ok &= (self.part(states, 2) & 1) == 0
        else:
            ok &= self.part(states, 1) >= shape.memory_bytes
        if shape.models != -1 or shape.profile is not None or self.books.partitions:
            sort = self.part(states, 2)
            able = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
            profile = shape.profile
            for (model, partitions, cut), kind in self._kinds.items():
                way = cut == 0 if profile is None else profile.name in partitions and bool(profile.free_starts(cut))
                able[kind] = bool((shape.models >> model) & 1) and way
            if profile is not None:  # what is shared is not cut
                ok &= self._is_cut(sort) | ((sort & 1) == 0)
            ok &= able[sort >> 1]  # a closed card's kind is -1: the last, which is not able
        if self.books.filters:
            cards = Cards(self.part(states, 0), self.part(states, 1), (self.part(states, 2) & 1) == 1)
            ok &= passing(self.books.filters, cards, shape)
        return ok

    def _is_cut(self, sort: Ints) -> Flags:
        cut = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
        for (_, _, places), kind in self._kinds.items():
            cut[kind] = places != 0
        out: Flags = cut[sort >> 1]
        return out

    def column(self, row: int, card: int) -> int:
        """The first card of a node that is like a card of its class."""
        books, n = self.books, self._kind.shape[1]
        free, memory, sort = self.table[self.class_of.item(row), HEAD + card : HEAD + 3 * n : n].tolist()
        return next(
            column
            for column, (milli, left, kind, held) in enumerate(
                zip(
                    books.free_milli[row].tolist(), books.free_memory[row].tolist(), self._kind[row].tolist(),
                    books.granted_memory[row].tolist(), strict=True,
                )
            )
            if milli == free and left == memory and 2 * kind + (held > 0) == sort
        )  # fmt: skip

    def states(self) -> NodeStates:
        """The states of all classes; numbers that are not used now say what they last said."""
        return NodeStates(self.cpu_milli, self.model, self.free_milli, self.free_memory)

    def _move(self, row: int, state: Ints) -> None:
        key = state.tobytes()
        number = self._ids.get(key)
        if number is None:
            number = self._new(key, state)
        old = self.class_of.item(row)
        if old == number:
            return
        if old >= 0:
            del self.rows[old][row]
            if not self.rows[old]:
                del self._ids[self._keys[old]]
                self._unused.append(old)
                self._is_used[old] = False
                self.log.append(old)
        self.class_of[row] = number
        self.rows[number][row] = None

    def _new(self, key: bytes, state: Ints) -> int:
        if self._unused:
            number = self._unused.pop()
            self._keys[number] = key
        else:
            number = len(self._keys)
            self._keys.append(key)
            self.rows.append({})
            if number >= len(self.table):
                self._grow(max(64, 2 * number))
        self._ids[key] = number
        self.table[number] = state
        self._is_used[number] = True
        self.log.append(number)
        return number

    def _learn_kinds(self, row: int) -> None:
        books = self.books
        profiles = sorted(books.partitions)
        for column in range(int(books.n_columns[row])):
            partitions = tuple(name for name in profiles if (row, column) in books.partitions[name])
            kind = (int(books.model[row, column]), partitions, int(books.cut[row, column]))
            self._kind[row, column] = self._kinds.setdefault(kind, len(self._kinds))

    def _grow(self, n: int) -> None:
        table = _none(n, self.table.shape[1])
        table[: len(self.table)] = self.table
        self.table = table
        self._is_used = np.concatenate([self._is_used, np.zeros(n - len(self._is_used), dtype=np.bool_)])

    def _restart(self) -> None:
        """The books have another shape: number everything anew."""
        n_rows, n_cards = self.books.free_milli.shape
        self.generation += 1
        self.class_of = np.full(n_rows, -1, dtype=np.int64)
        self._kind = _none(n_rows, n_cards)
        self.table = _none(0, HEAD + 4 * n_cards)
        self._is_used = np.zeros(0, dtype=np.bool_)
        self.rows, self.log, self._ids, self._keys, self._unused = [], [], {}, [], []
        self._nodes = {}
