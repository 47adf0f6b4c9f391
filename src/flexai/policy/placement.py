"""Where does a member go? Scores cached per shape; only nodes that changed since are scored again.

A *scorer* gives each candidate (node, card) a number, higher is better; the best wins, equals go to the node with the
least free compute, and among those to the one that joined first: never to a name. Three scorers: ``fragmentation``
(default), ``binpack`` and ``spread``. A new one is one function in ``SCORERS`` (docs/how-to/add-a-score.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.policy.fragmentation import Mix, stranded

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

NEVER = -np.inf
MANY = 48
"""So many rows at once, and those in the same state are scored once."""
_TIE = 1e-9
_MIX = np.array([0x1E3779B97F4A7C15, 0x2545F4914F6CDD1D, 0x5851F42D4C957F2D, 0x369DEA0F31A53F85], dtype=np.int64)
"""Odd constants (golden ratio, and from L'Ecuyer's tables of multipliers); products wrap around."""
WIDE = 32


@dataclass(frozen=True, slots=True)
class Candidates:
    """Nodes before and after a member is placed: what a scorer looks at.

    ``row`` (k,) names the node of each candidate; the others are its state before and after: CPU and first card's model
    (k,), free compute and memory (k, cards).
    """

    row: Ints
    model: Ints
    cpu_before: Ints
    cpu_after: Ints
    free_before: Ints
    free_after: Ints
    memory_before: Ints
    memory_after: Ints


def fragmentation(candidates: Candidates, mix: Mix) -> Floats:
    """Least compute stranded by the placement (``policy.fragmentation``)."""
    both = stranded(
        np.concatenate([candidates.cpu_before, candidates.cpu_after]),
        np.concatenate([candidates.free_before, candidates.free_after]),
        np.concatenate([candidates.memory_before, candidates.memory_after]),
        np.concatenate([candidates.model, candidates.model]),
        mix,
    )
    n = len(candidates.row)
    score: Floats = np.round(both[:n] - both[n:], 3)
    return score


def binpack(candidates: Candidates, _mix: Mix) -> Floats:
    """Fullest node first, then fullest card."""
    node = -np.maximum(candidates.free_after, 0).sum(axis=1).astype(np.float64)
    taken = candidates.free_before != candidates.free_after
    card = -(np.maximum(candidates.free_after, 0) * taken).sum(axis=1)
    score: Floats = node + card / 1000
    return score


def spread(candidates: Candidates, _mix: Mix) -> Floats:
    """Emptiest card first, then emptiest node."""
    taken = candidates.free_before != candidates.free_after
    card = (np.maximum(candidates.free_after, 0) * taken).sum(axis=1)
    node = np.maximum(candidates.free_after, 0).sum(axis=1) / 1_000_000
    score: Floats = card + node
    return score


SCORERS: dict[str, Callable[[Candidates, Mix], Floats]] = {
    "fragmentation": fragmentation,
    "binpack": binpack,
    "spread": spread,
}


@dataclass(slots=True)
class _Cache:
    """Scores of one shape per row, and the card of the best (-1: several cards, chosen when taken)."""

    score: Floats
    column: Ints
    epoch: int
    seen: int


@dataclass(slots=True)
class Placement:
    """Best place for a shape now."""

    books: Books
    mix: Mix
    scorer: Callable[[Candidates, Mix], Floats] = fragmentation
    _caches: dict[Shape, _Cache] = field(default_factory=dict)

    def best(self, shape: Shape, within: Flags | None = None) -> tuple[int, tuple[int, ...]] | None:
        """The best node and cards for one member, or None if it fits nowhere (or nowhere ``within`` these rows)."""
        cache = self._fresh(shape)
        score = cache.score if within is None else np.where(within, cache.score, NEVER)
        if not len(score):
            return None
        row = int(score.argmax())
        if score[row] == NEVER:
            return None
        if shape.n_devices == 0:
            return row, ()
        if shape.n_devices == 1:
            return row, (int(cache.column[row]),)
        return row, self.columns(shape, row)

    def forget(self) -> None:
        """Score everything afresh."""
        self._caches.clear()

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

    def _fresh(self, shape: Shape) -> _Cache:
        books = self.books
        n = len(books.names)
        cache = self._caches.get(shape)
        if cache is None or cache.epoch != self.mix.epoch or len(cache.score) != n:
            cache = self._caches[shape] = _Cache(
                np.full(n, NEVER), np.full(n, -1, dtype=np.int64), self.mix.epoch, len(books.changed)
            )
            stale = np.arange(n)
        else:
            stale = np.array(sorted(set(books.changed[cache.seen :])), dtype=np.int64)
            cache.seen = len(books.changed)
        if len(stale):
            fits = books.fits(shape, stale)
            cache.score[stale[~fits]] = NEVER
            rows = stale[fits]
            for chunk in np.array_split(rows, max(1, len(rows) // 4096)):
                if len(chunk):
                    self._score(shape, chunk, cache)
        return cache

    def _score(self, shape: Shape, rows: Ints, cache: _Cache) -> None:
        states, inverse = self._states(rows) if len(rows) > MANY else (rows, None)
        index, columns, after = self._after(shape, states)
        books = self.books
        at = states[index]
        memory_before = books.free_memory[at]
        candidates = Candidates(
            row=index, model=books.model[at, 0], cpu_before=books.cpu_milli[at],
            cpu_after=books.cpu_milli[at] - shape.cpu_milli, free_before=books.free_milli[at],
            free_after=np.where(after, books.free_milli[at] - shape.compute_milli, books.free_milli[at]),
            memory_before=memory_before,
            memory_after=np.where(after, 0 if shape.whole else memory_before - shape.memory_bytes, memory_before),
        )  # fmt: skip
        score = self.scorer(candidates, self.mix)
        score = score - _TIE * np.maximum(candidates.free_before, 0).sum(axis=1)
        best = np.full(len(states), NEVER)
        np.maximum.at(best, index, score)
        winners = np.flatnonzero(score == best[index])[::-1]
        column = np.full(len(states), -1, dtype=np.int64)
        column[index[winners]] = columns[winners]
        cache.score[rows] = best if inverse is None else best[inverse]
        if inverse is None:
            cache.column[rows] = column
        else:
            cache.column[rows] = column[inverse]

    def _states(self, rows: Ints) -> tuple[Ints, Ints]:
        """One row for each distinct state among ``rows``, and which of them each row is like.

        States are told apart by a 64-bit sum of products; two that collide get each other's *score*, never a grant that
        does not fit, since fitting is decided by the books.
        """
        books = self.books
        odd = 2 * np.arange(books.free_milli.shape[1], dtype=np.int64) + 1
        key = books.cpu_milli[rows] * _MIX[0]
        key += (books.free_milli[rows] * (odd * _MIX[1])).sum(axis=1)
        key += (books.free_memory[rows] * (odd * _MIX[2])).sum(axis=1)
        key += (books.model[rows] * (odd * _MIX[3])).sum(axis=1)
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        return rows[first], inverse.astype(np.int64)

    def _after(self, shape: Shape, states: Ints) -> tuple[Ints, Ints, Flags]:
        """Candidates of each state: its index, the card (-1 for several), and which cards change (k, cards)."""
        books = self.books
        n_columns = books.free_milli.shape[1]
        if shape.n_devices == 0:
            return np.arange(len(states)), np.full(len(states), -1), np.zeros((len(states), n_columns), dtype=np.bool_)
        ok = books.cards_that_fit(shape, states)
        if shape.n_devices > 1:
            free = np.where(ok, books.free_milli[states], np.iinfo(np.int64).max)
            order = np.argsort(free, axis=1, kind="stable")[:, : shape.n_devices]
            taken = np.zeros_like(ok)
            np.put_along_axis(taken, order, values=True, axis=1)
            return np.arange(len(states)), np.full(len(states), -1), taken
        # Cards of one node in the same state are one candidate: of each such group the first.
        free, memory, model = books.free_milli[states], books.free_memory[states], books.model[states]
        if n_columns > WIDE:
            for state in range(len(states)):
                rows = np.stack([free[state], memory[state], model[state], ok[state]])
                first = np.unique(rows, axis=1, return_index=True)[1]
                only = np.zeros(n_columns, dtype=np.bool_)
                only[first] = True
                ok[state] &= only
            n_narrow = 0
        else:
            n_narrow = n_columns
        for column in range(1, n_narrow):
            same = (free[:, :column] == free[:, column : column + 1]) & ok[:, :column]
            same &= memory[:, :column] == memory[:, column : column + 1]
            same &= model[:, :column] == model[:, column : column + 1]
            ok[:, column] &= ~same.any(axis=1)
        index, columns = np.nonzero(ok)
        taken = np.zeros((len(index), n_columns), dtype=np.bool_)
        taken[np.arange(len(index)), columns] = True
        return index, columns, taken
