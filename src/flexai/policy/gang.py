"""Members that start together: whether and where they fit, in nested groups of the machine room.

One algorithm for every vendor's links: a level is a name with a bandwidth rank, a group a set of nodes. Members go into
one group of the tightest level that takes them all; where none does, over as few groups of the widest level as can be,
in these over as few of the next, and so on down to nodes: the cheapest cut, level by level. Taking the roomiest groups
first needs the fewest; the last part goes where it leaves least room (the idea of Kueue's topology-aware scheduling).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape

    Ints = NDArray[np.int64]

MOST_NEEDS = 4096
"""So many needs of one part are kept."""


@dataclass(frozen=True, slots=True)
class Together:
    """How many members must fit at once, and where.

    Attributes:
        n_members: so many, at least.
        level: all of them inside one group of this level; empty for anywhere.
        subgroup_size: they come in subgroups of so many; 0 for none.
        subgroup_level: each subgroup inside one group of this level.
    """

    n_members: int
    level: str = ""
    subgroup_size: int = 0
    subgroup_level: str = ""


@dataclass(frozen=True, slots=True)
class Need:
    """What must fit at the same time for a job to start: members of each of its roles.

    Attributes:
        parts: a role's shape, and how many of its members, where.
        level: all of them inside one group of this level; empty for anywhere. Of one part, its own level says it.
        grows: one of the parts suffices: the job runs, or could do without any of them.
    """

    parts: tuple[tuple[Shape, Together], ...]
    level: str = ""
    grows: bool = False
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Needs are keys of every round: hash once."""
        object.__setattr__(self, "_hash", hash((self.parts, self.level, self.grows)))

    def __hash__(self) -> int:
        return self._hash

    @staticmethod
    @lru_cache(maxsize=MOST_NEEDS)
    def of(shape: Shape, together: Together) -> Need:
        """Members that are alike; the same one each time, since equal keys that are the same are found faster."""
        return Need(((shape, together),))

    @property
    def shapes(self) -> list[Shape]:
        """What members of each part ask for."""
        return [shape for shape, _ in self.parts]

    def least(self, cost: Callable[[Shape], int]) -> int:
        """The sum of what its members cost; of a job that grows, what the cheapest of its parts costs."""
        costs = [together.n_members * cost(shape) for shape, together in self.parts]
        return min(costs, default=0) if self.grows else sum(costs)


def usable(books: Books, fit: Ints, together: Together) -> Ints:
    """Of the members that fit on each node, those that make up whole subgroups, booked on the first node of a group."""
    size, level = together.subgroup_size, together.subgroup_level
    if not size:
        return fit
    out = np.zeros_like(fit)
    if level in books.topology:
        groups = books.topology.groups(level, len(fit))
        there, first = np.unique(groups, return_index=True)
        sums = group_sums(groups, fit) // size * size
        inside = there >= 0
        out[first[inside]] = sums[there[inside]]
    return out


def fits_together(books: Books, shape: Shape, together: Together) -> bool:
    """Whether all of them would fit at the same time."""
    if together.level and together.level not in books.topology:
        return False
    if together.n_members == 1 and not together.level and not together.subgroup_size:
        return bool(books.fits(shape).any())
    return most_together(books, books.n_fit(shape), together) >= together.n_members


def most_together(books: Books, fit: Ints, together: Together) -> int:
    """How many members fit in the roomiest place that may take them, given how many fit on each node."""
    room = usable(books, fit, together)
    if not together.level:
        return int(room.sum())
    if together.level not in books.topology:
        return 0
    return int(group_sums(books.topology.groups(together.level, len(fit)), room).max(initial=0))


def cheapest_cut(levels: Sequence[Ints], room: Ints, n: int) -> list[tuple[int, int]]:
    """Spread ``n`` members over rows with this ``room``: (row, members), at least ``n`` in all.

    ``levels`` are the groups of every row, widest level first; a row that is in no group of a level is one by itself.
    """
    return list(_cut(levels, room, np.flatnonzero(room > 0), n))


def _cut(levels: Sequence[Ints], room: Ints, rows: Ints, n: int) -> Iterator[tuple[int, int]]:
    if not levels:
        for piece, count in _fewest(room[rows], n):
            yield int(rows[piece]), count
        return
    groups = np.where(levels[0][rows] < 0, -2 - rows, levels[0][rows])
    _, piece_of = np.unique(groups, return_inverse=True)
    for piece, count in _fewest(np.bincount(piece_of, weights=room[rows]).astype(np.int64), n):
        yield from _cut(levels[1:], room, rows[piece_of == piece], count)


def _fewest(rooms: Ints, n: int) -> Iterator[tuple[int, int]]:
    """As few pieces as hold ``n`` together: the roomiest first, and for what is left the tightest that takes it."""
    left = rooms.copy()
    while n > 0 and left.any():
        able = np.flatnonzero(left >= n)
        piece = int(able[left[able].argmin()]) if len(able) else int(left.argmax())
        count = min(n, int(left[piece]))
        yield piece, count
        left[piece] = 0
        n -= count
