"""Where does a member go? To the node and cards with the best score; equals to the node with the least free compute.

Scores are cached per shape and class of nodes in like states (``node_classes``): an event makes one or two new classes,
and a shape scores those it has not seen when it is next asked for. Which of the nodes of the best class, is the one
that came to it first: never a matter of names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.node_classes import NodeClasses, NodeStates
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
AT_ONCE = 4096
"""Classes scored in one go, so that the arrays in between stay small."""
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
    _caches: dict[Shape, _Cache] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.classes = NodeClasses(self.books)

    def best(self, shape: Shape, within: Flags | None = None) -> tuple[int, tuple[int, ...]] | None:
        """The best node and cards for one member, or None if it fits nowhere (or nowhere ``within`` these rows)."""
        cache = self._fresh(shape)
        row = self._best_anywhere(shape, cache) if within is None else self._best_within(shape, cache, within)
        if row < 0:
            return None
        if shape.n_devices == 0:
            return row, ()
        if shape.n_devices == 1:
            return row, (self._column(row, int(cache.card[self.classes.class_of[row]])),)
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

    def _column(self, row: int, card: int) -> int:
        """The first card of the node that is like a card of its class."""
        books, classes = self.books, self.classes
        number = classes.class_of[row]
        like = (books.free_milli[row] == classes.free_milli[number, card]) & (
            books.free_memory[row] == classes.free_memory[number, card]
        )
        like &= classes.sorts_of(row) == classes.sort[number, card]
        return int(like.argmax())

    def _fresh(self, shape: Shape) -> _Cache:
        classes = self.classes
        classes.sync()
        cache = self._caches.get(shape)
        if cache is None or cache.epoch != self.mix.epoch or cache.generation != classes.generation:
            n = len(classes.cpu_milli)
            cache = self._caches[shape] = _Cache(
                np.full(n, NEVER), np.full(n, -1, dtype=np.int64), self.mix.epoch, classes.generation, len(classes.log)
            )
            ids = [number for number, rows in enumerate(classes.rows) if rows]
        elif cache.seen == len(classes.log):
            return cache
        else:
            if len(cache.score) < len(classes.cpu_milli):
                more = len(classes.cpu_milli) - len(cache.score)
                cache.score = np.concatenate([cache.score, np.full(more, NEVER)])
                cache.card = np.concatenate([cache.card, np.full(more, -1, dtype=np.int64)])
            news = sorted(set(classes.log[cache.seen :]))
            cache.seen = len(classes.log)
            cache.score[news] = NEVER
            ids = [number for number in news if classes.rows[number]]
        for first in range(0, len(ids), AT_ONCE):
            self._score(shape, np.array(ids[first : first + AT_ONCE], dtype=np.int64), cache)
        return cache

    def _score(self, shape: Shape, ids: Ints, cache: _Cache) -> None:
        """Score classes: each card in turn for a member of one, the fullest that fit for a member of several."""
        before = self.classes.states(ids)
        hosts = before.cpu_milli >= shape.cpu_milli
        n_cards = before.free_milli.shape[1]
        if shape.n_devices == 0:
            of = np.flatnonzero(hosts)
            taken = np.zeros((len(of), n_cards), dtype=np.bool_)
        else:
            ok = self.classes.cards_for(shape, ids)
            ok &= hosts[:, None]
            if shape.n_devices == 1:
                ok[:, 1:] &= ~(ok[:, :-1] & self._like_the_one_before(before, ids))
                of, card = np.nonzero(ok)
                taken = np.zeros((len(of), n_cards), dtype=np.bool_)
                taken[np.arange(len(of)), card] = True
            else:
                order = ok.cumsum(axis=1)
                of = np.flatnonzero(order[:, -1] >= shape.n_devices)
                taken = (ok & (order <= shape.n_devices))[of]
        if not len(of):
            return
        free, memory = before.free_milli[of], before.free_memory[of]
        after = NodeStates(
            before.cpu_milli[of] - shape.cpu_milli, before.model[of], free - shape.compute_milli * taken,
            np.where(taken, 0, memory) if shape.whole else memory - shape.memory_bytes * taken,
        )  # fmt: skip
        score = self.scorer(Candidates(before, of, after, taken), self.mix)
        score = score - _TIE * np.maximum(free, 0).sum(axis=1)
        if shape.n_devices == 1:
            by_card = np.full((len(ids), n_cards), NEVER)
            by_card[of, card] = score
            best = by_card.argmax(axis=1)
            cache.card[ids] = best
            cache.score[ids] = by_card[np.arange(len(ids)), best]
        else:
            cache.score[ids[of]] = score

    def _like_the_one_before(self, states: NodeStates, ids: Ints) -> Flags:
        """Which cards (from the second on) are like their left neighbour: one of them is candidate enough."""
        same: Flags = states.free_milli[:, 1:] == states.free_milli[:, :-1]
        same &= states.free_memory[:, 1:] == states.free_memory[:, :-1]
        sort = self.classes.sort[ids]
        same &= sort[:, 1:] == sort[:, :-1]
        return same
