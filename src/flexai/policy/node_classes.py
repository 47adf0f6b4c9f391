"""Nodes in like states, so that each state is judged once, however many nodes are in it.

A class is a node's state with its cards in a fixed order: free CPU, and the state of each card (``card_states``). A
large cluster has far fewer classes than nodes, and most of them come again and again. RAM is left out (it would tell
nodes apart that a score cannot); who places checks it on the node.
"""

from __future__ import annotations

import bisect
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster.books import CARD_BITS
from flexai.policy.card_states import CLOSED, CardStates, grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape
    from flexai.model import Node

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    NodeState = tuple[int, int, int, bytes]
    """Free CPU, model of the first card, free compute in all, and the states of the cards in order, 8 bytes each."""

ALL_BITS = (1 << CARD_BITS) - 1
MOST_STATES = 4096
"""So many states of cards, or four times as many as there are cards, are kept; then all is numbered anew."""


@dataclass(frozen=True, slots=True)
class NodeStates:
    """States of nodes as scorers see them: ``cpu_milli`` and ``model`` of the first card (n,); cards (n, cards)."""

    cpu_milli: Ints
    model: Ints
    free_milli: Ints
    free_memory: Ints


def _none(*shape: int) -> Ints:
    return np.zeros(shape, dtype=np.int64)


@dataclass(slots=True)
class _Row:
    """What is known of a node: the kinds and the states of its cards by column, and these states in order."""

    node: Node | None
    kinds: list[int]
    on: list[int]
    order: array[int]
    model: int
    total_milli: int


@dataclass(slots=True)
class NodeClasses:
    """Classes by number; a number is used again when its class has no node any more.

    Attributes:
        class_of: class of each row, (rows,).
        hosts: free CPU, model of the first card, and free compute in all: (classes, 3).
        cards: states of the cards, by number and in their order: (classes, cards).
        distinct: the same, but ``CLOSED`` for a card like its left neighbour: of those, one is candidate enough.
        rows: nodes of each class, in the order in which they came to it.
        log: classes that came or went, in order; readers remember how far they have read.
        generation: changes when everything is numbered anew.
    """

    books: Books
    class_of: Ints = field(default_factory=lambda: _none(0))
    hosts: Ints = field(default_factory=lambda: _none(0, 3))
    cards: Ints = field(default_factory=lambda: _none(0, 0))
    distinct: Ints = field(default_factory=lambda: _none(0, 0))
    card_states: CardStates = field(init=False)
    rows: list[dict[int, None]] = field(default_factory=list)
    log: array[int] = field(default_factory=lambda: array("q"))
    generation: int = 0
    _ids: dict[NodeState, int] = field(default_factory=dict)
    _keys: list[NodeState] = field(default_factory=list)
    _unused: list[int] = field(default_factory=list)
    _is_used: Flags = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    _seen: int = 0
    _shape: tuple[int, ...] = (0, 0)
    _known: dict[int, _Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.card_states = CardStates(self.books)

    def sync(self) -> None:
        """Follow the books."""
        books = self.books
        if books.free_milli.shape != self._shape or len(self.card_states) > max(MOST_STATES, 4 * books.free_milli.size):
            self._restart()
            changed = [row << CARD_BITS for row in range(len(books.names))]
        elif self._seen == len(books.changed):
            return
        else:
            changed = sorted(set(books.changed[self._seen :]))
        self._seen = len(books.changed)
        columns: list[int] = []  # of one row at a time; a whole row's entry comes before those of its cards
        for at, entry in enumerate(changed):
            row = entry >> CARD_BITS
            columns.append((entry & ALL_BITS) - 1)
            if at + 1 == len(changed) or changed[at + 1] >> CARD_BITS != row:
                self._move(row, self._state_of(row, columns))
                columns.clear()

    def in_use(self) -> Ints:
        """Classes that have nodes, in order of number."""
        return np.flatnonzero(self._is_used)

    def since(self, seen: int) -> tuple[Ints, Ints]:
        """Classes that came or went since the log was so long, and of them those that have nodes, in order."""
        changed = np.frombuffer(self.log[seen:], dtype=np.int64)
        came = np.zeros(len(self._is_used), dtype=np.bool_)
        came[changed] = True
        came &= self._is_used
        return changed, came.nonzero()[0]

    def forget(self) -> None:
        """Number everything anew at the next ``sync``: the books' log of changes was cut."""
        self._shape = (0, 0)

    def takes(self, shape: Shape, cards: Ints) -> Flags:
        """Which of cards in these states could take one card's part of ``shape``."""
        return self.card_states.takes(shape)[cards]

    def column(self, row: int, card: int) -> int:
        """The first card of a node that is like a card of its class."""
        return self._known[row].on.index(self.cards.item(self.class_of.item(row), card))

    def states(self, ids: Ints) -> NodeStates:
        """The states of these classes."""
        hosts, cards = self.hosts.take(ids, axis=0), self.cards.take(ids, axis=0)
        free_milli, free_memory = self.card_states.free_milli, self.card_states.free_memory
        return NodeStates(hosts[:, 0], hosts[:, 1], free_milli[cards], free_memory[cards])

    def _state_of(self, row: int, columns: list[int]) -> NodeState:
        """A node's state: free CPU, model, free compute in all, and the states of its cards in order.

        ``columns`` are its cards that changed, in order; the first is -1 if more than they may have.
        """
        books, known = self.books, self._known.get(row)
        node = books.nodes.get(books.names[row])
        if known is None or columns[0] < 0 or known.node is not node or books.partitions:
            known = self._known[row] = self._learn(row, node)
        else:
            self._follow(row, known, columns)
        return books.cpu_milli.item(row), known.model, known.total_milli, known.order.tobytes()

    def _follow(self, row: int, known: _Row, columns: list[int]) -> None:
        """Number the states of cards that changed."""
        books, states, on, order = self.books, self.card_states, known.on, known.order
        for column in columns:
            free_milli = books.free_milli.item(row, column)
            old, new = on[column], CLOSED
            if free_milli >= 0:
                held = books.granted_memory.item(row, column) > 0
                new = states.number((free_milli, books.free_memory.item(row, column), 2 * known.kinds[column] + held))
            if new == old:
                continue
            on[column] = new
            by_state = states.states.__getitem__
            del order[bisect.bisect_left(order, by_state(old), key=by_state)]
            bisect.insort(order, new, key=by_state)
            known.total_milli += max(by_state(new)[0], 0) - max(by_state(old)[0], 0)

    def _learn(self, row: int, node: Node | None) -> _Row:
        """Look at the whole of a node."""
        books, states, kinds = self.books, self.card_states, self._kinds_of(row)
        free_milli = books.free_milli[row].tolist()
        on = [
            states.number((free, memory, 2 * kind + (held > 0))) if free >= 0 else CLOSED
            for free, memory, kind, held in zip(
                free_milli, books.free_memory[row].tolist(), kinds, books.granted_memory[row].tolist(), strict=True,
            )
        ]  # fmt: skip
        total_milli = sum([free for free in free_milli if free > 0])
        model = books.model.item(row, 0) if on else 0
        order = array("q", sorted(on, key=states.states.__getitem__))
        return _Row(node, kinds, on, order, model, total_milli)

    def _move(self, row: int, state: NodeState) -> None:
        number = self._ids.get(state)
        if number is None:
            number = self._new(state)
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

    def _new(self, state: NodeState) -> int:
        if self._unused:
            number = self._unused.pop()
            self._keys[number] = state
        else:
            number = len(self._keys)
            self._keys.append(state)
            self.rows.append({})
            self._grow(number + 1)
        self._ids[state] = number
        own, distinct = np.frombuffer(state[3], dtype=np.int64), self.distinct[number]
        self.hosts[number] = state[:3]
        self.cards[number] = distinct[:] = own
        distinct[1:][own[1:] == own[:-1]] = CLOSED
        self._is_used[number] = True
        self.log.append(number)
        return number

    def _kinds_of(self, row: int) -> list[int]:
        books = self.books
        profiles = sorted(books.partitions)
        kinds = [0] * books.free_milli.shape[1]
        for column in range(int(books.n_columns[row])):
            partitions = tuple(name for name in profiles if (row, column) in books.partitions[name])
            model, cut = books.model.item(row, column), books.cut.item(row, column)
            kinds[column] = self.card_states.kind(model, partitions, cut)
        return kinds

    def _grow(self, n: int) -> None:
        for name in ("hosts", "cards", "distinct", "_is_used"):
            setattr(self, name, grown(getattr(self, name), n))

    def _restart(self) -> None:
        """The books have another shape: number everything anew."""
        self._shape = n_rows, n_cards = self.books.free_milli.shape
        self.generation += 1
        self.card_states.forget()
        self.class_of = np.full(n_rows, -1, dtype=np.int64)
        self.hosts, self.cards, self.distinct = _none(0, 3), _none(0, n_cards), _none(0, n_cards)
        self._is_used = np.zeros(0, dtype=np.bool_)
        self.rows, self.log, self._ids, self._keys, self._unused = [], array("q"), {}, [], []
        self._known = {}
