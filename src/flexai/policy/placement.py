"""Where does a member go? To the node and cards with the best score; equals to the node with the least free compute.

Scores are cached per shape and class of nodes in like states (``node_classes``): an event makes one or two new classes,
and a shape scores those it has not seen when it is next asked for. Which of the nodes of the best class, is the one
that came to it first: never a matter of names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.fragmentation import AT_ONCE, Stranding
from flexai.policy.node_classes import NodeClasses
from flexai.policy.scores import Candidates, fragmentation

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape
    from flexai.policy.fragmentation import Mix

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

NEVER = -np.inf
NO_CARDS: Ints = np.zeros(0, dtype=np.int64)
_TIE = 1e-9
"""Weight of a node's free compute: decides between equals, nothing else."""


@dataclass(slots=True)
class _Cache:
    """Scores of one shape per class, and the best card there (by its place in the class; -1: several, or none)."""

    score: Floats
    card: Ints
    epoch: int
    generation: int
    seen: int


@dataclass(slots=True)
class Placement:
    """Best place for a shape now."""

    books: Books
    mix: Mix
    scorer: Callable[[Candidates, Mix], Floats] = fragmentation
    classes: NodeClasses = field(init=False)
    stranding: Stranding = field(init=False)
    _caches: dict[Shape, _Cache] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.classes = NodeClasses(self.books)
        self.stranding = Stranding(self.classes)

    def best(self, shape: Shape, within: Flags | None = None) -> tuple[int, tuple[int, ...]] | None:
        """The best node and cards for one member, or None if it fits nowhere (or nowhere ``within`` these rows)."""
        cache = self._fresh(shape)
        row = self._best_anywhere(shape, cache) if within is None else self._best_within(shape, cache, within)
        if row < 0:
            return None
        if shape.n_devices == 0:
            return row, ()
        if shape.n_devices == 1:
            return row, (self.classes.column(row, cache.card.item(self.classes.class_of.item(row))),)
        return row, self.columns(shape, row)

    def has_place(self, shape: Shape) -> bool:
        """Whether one member fits anywhere."""
        return self._best_anywhere(shape, self._fresh(shape)) >= 0

    def forget(self) -> None:
        """Score everything afresh."""
        self._caches.clear()
        self.classes.forget()

    def columns(self, shape: Shape, row: int) -> tuple[int, ...]:
        """Cards of one node for a member of several: linked to each other if they can be, else the fullest that fit."""
        fits = np.flatnonzero(self.books.cards_that_fit(shape, np.array([row]))[0])
        groups = self.books.link_group[row, fits]
        best: tuple[tuple[int, int], Ints] | None = None
        for group in sorted(set(groups.tolist()) - {-1}):
            inside = fits[groups == group]
            if len(inside) >= shape.n_devices:
                rank = (len(inside) - shape.n_devices, group)
                if best is None or rank < best[0]:
                    best = (rank, inside)
        if best is not None:
            fits = best[1]
        order = np.lexsort((fits, self.books.free_memory[row, fits], self.books.free_milli[row, fits]))
        return tuple(sorted(int(column) for column in fits[order[: shape.n_devices]]))

    def columns_for_more(self, shape: Shape, row: int, columns: tuple[int, ...]) -> tuple[int, ...]:
        """Cards for one of several members: those with most room, if the chosen ones cost a later member its place.

        With room for (1, 1, 2, 2) members of two cards, taking the first two leaves one pair; taking the last two, two.
        """
        books, at = self.books, np.array([row], dtype=np.int64)
        before = int(books.n_fit(shape, at)[0])
        trial = books.hold_for(shape, row, columns)
        books.take(trial)
        after = int(books.n_fit(shape, at)[0])
        books.give(trial)
        if after >= before - 1:
            return columns
        fits = np.flatnonzero(books.cards_that_fit(shape, at)[0])
        slots = books.free_milli[row, fits] // max(shape.compute_milli, 1)
        if shape.memory_bytes and not shape.whole:
            slots = np.minimum(slots, books.free_memory[row, fits] // shape.memory_bytes)
        order = np.lexsort((fits, -slots))
        return tuple(sorted(int(column) for column in fits[order[: shape.n_devices]]))

    def _best_anywhere(self, shape: Shape, cache: _Cache) -> int:
        """The row, or -1. RAM is no part of a class: a class none of whose nodes has enough is passed over."""
        score = cache.score
        while len(score):
            best = int(score.argmax())
            if score[best] == NEVER:
                return -1
            for row in self.classes.rows[best]:
                if not shape.ram_bytes or self.books.ram_bytes[row] >= shape.ram_bytes:
                    return row
            if score is cache.score:
                score = score.copy()
            score[best] = NEVER
        return -1

    def _best_within(self, shape: Shape, cache: _Cache, within: Flags) -> int:
        rows = np.flatnonzero(within)
        rows = rows[self.books.ram_bytes[rows] >= shape.ram_bytes]
        if not len(rows):
            return -1
        score = cache.score[self.classes.class_of[rows]]
        best = int(score.argmax())
        return -1 if score[best] == NEVER else int(rows[best])

    def _fresh(self, shape: Shape) -> _Cache:
        classes = self.classes
        classes.sync()
        cache = self._caches.get(shape)
        if cache is None or cache.epoch != self.mix.epoch or cache.generation != classes.generation:
            n = len(classes.hosts)
            cache = self._caches[shape] = _Cache(
                np.full(n, NEVER), np.full(n, -1, dtype=np.int64), self.mix.epoch, classes.generation, len(classes.log)
            )
            ids = classes.in_use()
        elif cache.seen == len(classes.log):
            return cache
        else:
            if len(cache.score) < len(classes.hosts):
                more = len(classes.hosts) - len(cache.score)
                cache.score = np.concatenate([cache.score, np.full(more, NEVER)])
                cache.card = np.concatenate([cache.card, np.full(more, -1, dtype=np.int64)])
            changed, ids = classes.since(cache.seen)
            cache.score[changed] = NEVER
            cache.seen = len(classes.log)
        for first in range(0, len(ids), AT_ONCE):
            self._score(shape, ids[first : first + AT_ONCE], cache)
        return cache

    def _score(self, shape: Shape, ids: Ints, cache: _Cache) -> None:
        """Score classes: each card in turn for a member of one, the fullest that fit for a member of several."""
        classes = self.classes
        hosts = classes.hosts.take(ids, axis=0)
        able = hosts[:, 0] >= shape.cpu_milli
        able &= hosts[:, 2] >= shape.asked_milli
        ids, free = ids[able], hosts[:, 2][able] * _TIE
        if not len(ids):
            return
        card = states = NO_CARDS
        if shape.n_devices == 0:
            of = np.arange(len(ids))
        elif shape.n_devices == 1:
            cards = classes.distinct.take(ids, axis=0)
            ok = classes.takes(shape, cards)
            of, card = ok.nonzero()
            states = cards[of, card]
        else:
            cards = classes.cards.take(ids, axis=0)
            ok = classes.takes(shape, cards)
            order = ok.cumsum(axis=1)
            ok &= (order <= shape.n_devices) & (order[:, -1:] >= shape.n_devices)
            at, card = ok.nonzero()
            of, states = at[:: shape.n_devices], cards[at, card]
        if not len(of):
            return
        score = self.scorer(Candidates(ids, of, card, states, shape, self.stranding), self.mix)
        if shape.n_devices == 1:
            by_card = np.empty(ok.shape)
            by_card.fill(NEVER)
            by_card[of, card] = score
            cache.card[ids] = by_card.argmax(axis=1)
            cache.score[ids] = np.maximum.reduce(by_card, axis=1) - free
        else:
            cache.score[ids[of]] = score - free[of]
