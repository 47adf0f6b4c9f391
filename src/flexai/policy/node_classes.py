"""Nodes in like states, so that each state is judged once, however many nodes are in it.

A class is a node's state with its cards in a fixed order: free CPU, and of each card what is free, what sort of card it
is and whether anybody holds memory on it. A large cluster has far fewer classes than nodes, and most of them come again
and again. RAM is left out (it would tell nodes apart that a score cannot); who places checks it on the node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

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


FEW_CARDS = 32
"""Up to so many cards plain Python orders them faster than arrays do."""


def _none(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)


@dataclass(slots=True)
class NodeClasses:
    """Classes by number; a number is used again when its class has no node any more.

    Attributes:
        class_of: class of each row, (rows,).
        cpu_milli, model: (classes,); free_milli, free_memory, sort: (classes, cards), cards in order of all three.
            ``sort`` is twice the number of a kind of card, plus 1 if somebody holds memory on it.
        rows: nodes of each class, in the order in which they came to it.
        log: classes that came or went, in order; readers remember how far they have read.
        generation: changes when everything is numbered anew.
    """

    books: Books
    class_of: Ints = field(default_factory=lambda: _none(0))
    cpu_milli: Ints = field(default_factory=lambda: _none(0))
    model: Ints = field(default_factory=lambda: _none(0))
    free_milli: Ints = field(default_factory=lambda: _none(0, 0))
    free_memory: Ints = field(default_factory=lambda: _none(0, 0))
    sort: Ints = field(default_factory=lambda: _none(0, 0))
    rows: list[dict[int, None]] = field(default_factory=list)
    log: list[int] = field(default_factory=list)
    generation: int = 0
    _ids: dict[bytes, int] = field(default_factory=dict)
    _keys: list[bytes] = field(default_factory=list)
    _unused: list[int] = field(default_factory=list)
    _seen: int = 0
    _kinds: dict[tuple[int, tuple[str, ...], int], int] = field(default_factory=dict)
    _kind: Ints = field(default_factory=lambda: _none(0, 0))
    _nodes: dict[int, Node | None] = field(default_factory=dict)

    def sync(self) -> None:
        """Follow the books."""
        books = self.books
        if books.free_milli.shape != self._kind.shape:
            self._restart()
            rows = np.arange(len(books.names))
        else:
            changed = books.changed[self._seen :]
            rows = np.array(changed if len(changed) == 1 else sorted(set(changed)), dtype=np.int64)
        self._seen = len(books.changed)
        if not len(rows):
            return
        for row in rows.tolist():
            node = books.nodes.get(books.names[row])
            if self._nodes.get(row) is not node or books.partitions:
                self._nodes[row] = node
                self._learn_kinds(row)
        for row, state in zip(rows.tolist(), self._one(rows) if len(rows) == 1 else self._many(rows), strict=True):
            self._move(row, state)

    def _one(self, rows: Ints) -> list[Ints]:
        """A node's state in a row: CPU, model, then free compute, free memory and sort of its cards in order."""
        books, row = self.books, int(rows[0])
        if not 0 < books.free_milli.shape[1] <= FEW_CARDS:
            return list(self._many(rows))
        cards = sorted(
            (free, memory, 2 * kind + (held > 0)) if free >= 0 else CLOSED_CARD
            for free, memory, kind, held in zip(
                books.free_milli[row].tolist(), books.free_memory[row].tolist(), self._kind[row].tolist(),
                books.granted_memory[row].tolist(), strict=True,
            )
        )  # fmt: skip
        free, memory, sort = zip(*cards, strict=True)
        return [np.array([books.cpu_milli[row], books.model[row, 0], *free, *memory, *sort], dtype=np.int64)]

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
        return np.concatenate(
            [
                books.cpu_milli[rows][:, None], model, np.take_along_axis(free, order, axis=1),
                np.take_along_axis(memory, order, axis=1), np.take_along_axis(sort, order, axis=1),
            ],
            axis=1,
        )  # fmt: skip

    def forget(self) -> None:
        """Number everything anew at the next ``sync``: the books' log of changes was cut."""
        self._kind = _none(0, 0)

    def cards_for(self, shape: Shape, ids: Ints) -> Flags:
        """Which cards of these classes could take one card's part of ``shape``: (n, cards)."""
        ok: Flags = self.free_milli[ids] >= shape.compute_milli
        sort = self.sort[ids]
        if shape.whole:
            ok &= (sort & 1) == 0
        else:
            ok &= self.free_memory[ids] >= shape.memory_bytes
        if shape.models != -1 or shape.profile is not None or self.books.partitions:
            able = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
            profile = shape.profile
            for (model, partitions, cut), kind in self._kinds.items():
                way = cut == 0 if profile is None else profile.name in partitions and bool(profile.free_starts(cut))
                able[kind] = bool((shape.models >> model) & 1) and way
            if profile is not None:  # what is shared is not cut
                ok &= self._is_cut(sort) | ((sort & 1) == 0)
            ok &= able[sort >> 1]  # a closed card's kind is -1: the last, which is not able
        else:
            ok &= sort >= 0
        return ok

    def _is_cut(self, sort: Ints) -> Flags:
        cut = np.zeros(len(self._kinds) + 1, dtype=np.bool_)
        for (_, _, places), kind in self._kinds.items():
            cut[kind] = places != 0
        out: Flags = cut[sort >> 1]
        return out

    def sorts_of(self, row: int) -> Ints:
        """``sort`` of a node's cards, in their own order."""
        sort: Ints = 2 * self._kind[row] + (self.books.granted_memory[row] > 0)
        return sort

    def states(self, ids: Ints) -> NodeStates:
        """The states of these classes."""
        return NodeStates(self.cpu_milli[ids], self.model[ids], self.free_milli[ids], self.free_memory[ids])

    def _move(self, row: int, state: Ints) -> None:
        key = state.tobytes()
        number = self._ids.get(key)
        if number is None:
            number = self._new(key, state)
        old = int(self.class_of[row])
        if old == number:
            return
        if old >= 0:
            del self.rows[old][row]
            if not self.rows[old]:
                del self._ids[self._keys[old]]
                self._unused.append(old)
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
            if number >= len(self.cpu_milli):
                self._grow(max(64, 2 * number))
        self._ids[key] = number
        n = self.free_milli.shape[1]
        self.cpu_milli[number], self.model[number] = state[0], state[1]
        self.free_milli[number], self.free_memory[number] = state[2 : 2 + n], state[2 + n : 2 + 2 * n]
        self.sort[number] = state[2 + 2 * n :]
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
        n_cards = self._kind.shape[1]
        for name in ("cpu_milli", "model", "free_milli", "free_memory", "sort"):
            old = getattr(self, name)
            new = _none(n) if old.ndim == 1 else _none(n, n_cards)
            new[: len(old)] = old
            setattr(self, name, new)

    def _restart(self) -> None:
        """The books have another shape: number everything anew."""
        n_rows, n_cards = self.books.free_milli.shape
        self.generation += 1
        self.class_of = np.full(n_rows, -1, dtype=np.int64)
        self._kind = _none(n_rows, n_cards)
        self.cpu_milli, self.model = _none(0), _none(0)
        self.free_milli, self.free_memory, self.sort = _none(0, n_cards), _none(0, n_cards), _none(0, n_cards)
        self.rows, self.log, self._ids, self._keys, self._unused = [], [], {}, [], []
        self._nodes = {}
