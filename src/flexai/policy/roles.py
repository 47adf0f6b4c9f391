"""Members that are unlike: whether all roles of a gang fit beside each other, and which one does not.

Counts per node answer this for members of one shape; several shapes take from the same cards, CPUs and memory, so the
roles are packed on a copy of the books, one after the other, first fit: into the first group that has room for all of a
role, node by node. Every order of a few roles is tried, since a leader that wants CPUs only may stand in the workers'
way. Nodes are taken in the order in which they came: room added later never changes where those before it went, so a
role that lacked so many members fits once there is room for so many more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import Plan, group_sums
from flexai.policy.gang import fits_together, usable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from flexai.cluster import Books, Hold, Shape
    from flexai.policy.gang import Need, Together

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]

EVERY_ORDER_UP_TO = 3
"""So many roles, and they are packed in every order; of more, in the order given and its reverse."""
MOST_GROUPS = 64
"""So many groups of a level that all roles must share are tried, the roomiest first."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How far the roles of a need got.

    Attributes:
        holds: what members hold, part by part; of the one that lacks some, those that fit.
        lacks: the part of which too few fit beside those before it; -1 if all do.
        group: of the level that all share, where this is; -1 for anywhere.
    """

    holds: tuple[tuple[Hold, ...], ...]
    lacks: int = -1
    group: int = -1

    def n_missing(self, need: Need) -> tuple[int, int]:
        """Parts that have no place, and members that the one named lacks."""
        if self.lacks < 0:
            return 0, 0
        short = [at for at, (_, where) in enumerate(need.parts) if len(self.holds[at]) < where.n_members]
        return len(short), need.parts[self.lacks][1].n_members - len(self.holds[self.lacks])


def fits(books: Books, need: Need) -> bool:
    """Whether what is needed would fit at the same time."""
    if len(need.parts) == 1 and not need.level:
        return fits_together(books, *need.parts[0])
    if need.grows:
        return any(_alone(books, need))
    return each_fits(books, need) and pack(books, need).lacks < 0


def each_fits(books: Books, need: Need) -> bool:
    """Whether every part would fit if there were no others: counted, so much cheaper than to see whether all do."""
    return all(_alone(books, need))


def _alone(books: Books, need: Need) -> Iterator[bool]:
    return (fits_together(books, shape, alone_at(need, together)) for shape, together in need.parts)


def alone_at(need: Need, together: Together) -> Together:
    """Where the members of one part would have to go if there were no others."""
    return together if together.level else replace(together, level=need.level)


def regions(books: Books, need: Need, level: str) -> list[tuple[float, int, Flags]]:
    """Groups of a level, the roomiest first: how often the part that has least room would fit there, which, its rows.

    All rows together for no level.
    """
    n = len(books.names)
    if not level:
        return [(1.0, -1, np.ones(n, dtype=np.bool_))]
    if level not in books.topology:
        return []
    groups = books.topology.groups(level, n)
    room = [group_sums(groups, books.n_fit(shape)[:n]) for shape in need.shapes]
    if not room or not len(room[0]):
        return []
    wanted = [max(1, together.n_members) for _, together in need.parts]
    spare = np.min([each / n_wanted for each, n_wanted in zip(room, wanted, strict=True)], axis=0)
    order = np.lexsort((np.arange(len(spare)), -spare))
    return [(float(spare[group]), int(group), groups == group) for group in order]


def pack(books: Books, need: Need) -> Packing:
    """Places for all parts; where there are none, the attempt that came nearest."""
    twin = books.copy()
    best = Packing(tuple(() for _ in need.parts), lacks=0)
    for _, group, inside in regions(books, need, need.level)[:MOST_GROUPS]:
        for order in orders(len(need.parts)):
            got = _packed(twin, need, order, inside, group)
            if got.lacks < 0:
                return got
            if got.n_missing(need) < best.n_missing(need):
                best = got
    return best


def orders(n: int) -> Iterable[Sequence[int]]:
    """Orders in which so many roles are placed."""
    if n <= EVERY_ORDER_UP_TO:
        return permutations(range(n))
    return range(n), range(n)[::-1]


def _packed(books: Books, need: Need, order: Sequence[int], inside: Flags, group: int) -> Packing:
    plan = Plan(books)
    holds: list[tuple[Hold, ...]] = [() for _ in need.parts]
    lacks = -1
    for at in order:
        shape, together = need.parts[at]
        holds[at] = tuple(_fill(plan, shape, together, inside))
        if len(holds[at]) < together.n_members:
            lacks = at
            break
    plan.undo()
    return Packing(tuple(holds), lacks, group)


def _fill(plan: Plan, shape: Shape, together: Together, inside: Flags) -> list[Hold]:
    """Members of one part, first fit; as many as there is room for if not all."""
    books, n, wanted = plan.books, len(inside), together.n_members
    fit = np.where(inside, books.n_fit(shape)[:n], 0)
    if together.level:
        if together.level not in books.topology:
            return []
        groups = books.topology.groups(together.level, n)
        sums = group_sums(groups, usable(books, fit, together))
        if not len(sums):
            return []
        able = np.flatnonzero(sums >= wanted)
        fit = np.where(groups == int(able[0] if len(able) else sums.argmax()), fit, 0)
    if not together.subgroup_size:
        return _fill_rows(plan, shape, fit, wanted)
    out: list[Hold] = []
    if together.subgroup_level in books.topology:
        groups = books.topology.groups(together.subgroup_level, n)
        for group, room in enumerate(group_sums(groups, fit).tolist()):
            whole = min(room, wanted - len(out)) // together.subgroup_size * together.subgroup_size
            out += _fill_rows(plan, shape, np.where(groups == group, fit, 0), whole)
    return out


def _fill_rows(plan: Plan, shape: Shape, fit: Ints, wanted: int) -> list[Hold]:
    out: list[Hold] = []
    for row in np.flatnonzero(fit).tolist():
        for _ in range(min(int(fit[row]), wanted - len(out))):
            columns = _columns(plan.books, shape, row)
            if columns is None:
                break
            hold = plan.books.hold_for(shape, row, columns)
            plan.take(hold)
            out.append(hold)
        if len(out) >= wanted:
            break
    return out


def _columns(books: Books, shape: Shape, row: int) -> tuple[int, ...] | None:
    """Cards of a node: for a member of one the fullest that takes it, for one of several those with most room.

    The first leaves the largest card for the others; the second most pairs (see ``Placement.columns_for_more``).
    """
    if not shape.n_devices:
        return ()
    able = np.flatnonzero(books.cards_that_fit(shape, np.array([row]))[0])
    if len(able) < shape.n_devices:
        return None
    free = books.free_milli[row, able]
    order = np.lexsort((able, books.free_memory[row, able], free if shape.n_devices == 1 else -free))
    return tuple(sorted(able[order[: shape.n_devices]].tolist()))
