"""Places for the members of a job: together or not at all, near to each other, within the limits of its queue."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums
from flexai.policy.gang import cheapest_cut, usable
from flexai.policy.roles import each_fits, orders, pack, regions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flexai.cluster import Hold, Plan, Shape
    from flexai.policy.gang import Need
    from flexai.policy.roles import Packing
    from flexai.scheduling.records import JobRecord, Waiting
    from flexai.scheduling.state import State

    Ints = NDArray[np.int64]
    Flags = NDArray[np.bool_]
    Placed = dict[int, Hold]
    """What members are to hold, by number."""
    Piece = tuple[Flags | None, int]
    """Rows (None: anywhere) and how many members go there."""

MOST_NEAR = 4
"""So many groups of a level are tried for all roles together, the tightest first."""


def place_members(state: State, record: JobRecord, plan: Plan) -> Placed | None:
    """Places for all members that wait (at least those needed), taken in ``plan``; None and nothing taken if none."""
    if record.job.n_members == 1:
        shape = state.shape_now(record)
        place = state.placement.best(shape)
        if place is None:
            return None
        hold = state.books.hold_for(shape, *place)
        plan.take(hold)
        return {0: hold}
    if record.job.roles:
        return _place_roles(state, record, plan)
    (alike,) = record.waiting()
    return _place_role(state, record, alike, plan)


def _place_roles(state: State, record: JobRecord, plan: Plan) -> Placed | None:
    """Places for all roles, near to each other if they can be; if the best places of one stand in another's way, any.

    A job that runs grows by whatever of its roles has room.
    """
    waiting, need = [each for each in record.waiting() if each.numbers], record.need
    if need.grows:
        return _grow(state, record, waiting, plan, _joined(state, record), {}) or None
    if not each_fits(state.books, need):
        return None
    needed = [each for each in waiting if each.together.n_members]
    for inside in _near(state, record, need):
        for order in orders(len(needed)):
            mark = plan.mark()
            placed: Placed = {}
            for at in order:
                some = _place_role(state, record, needed[at], plan, inside, placed)
                if some is None:
                    break
                placed |= some
            else:
                return _grow(state, record, waiting, plan, inside, placed)
            plan.undo(mark)
    packing = pack(state.books, need)
    if packing.lacks >= 0 or not _within_limits(state, record, packing):
        return None
    placed = {}
    for each, holds in zip(needed, packing.holds, strict=True):
        for number, hold in zip(each.numbers, holds, strict=False):
            plan.take(hold)
            placed[number] = hold
    return placed


def _grow(
    state: State, record: JobRecord, waiting: list[Waiting], plan: Plan, inside: Flags | None, before: Placed
) -> Placed:
    """Members beyond those needed and placed ``before``, role by role, as many as have a place."""
    placed = dict(before)
    for each in waiting:
        left = tuple(number for number in each.numbers if number not in placed)
        one = replace(each, numbers=left, together=replace(each.together, n_members=max(1, each.role.subgroup_size)))
        while left:
            some = _place_role(state, record, one, plan, inside, placed)
            if some is None:
                break
            placed |= some
            left = tuple(number for number in left if number not in some)
            one = replace(one, numbers=left)
    return placed


def _near(state: State, record: JobRecord, need: Need) -> Iterator[Flags | None]:
    """Where to try to place all roles together: groups of ever wider levels, then anywhere if none is required."""
    job, topology = record.job, state.books.topology
    levels = topology.at_least(job.required_level) if job.required_level else topology.tightest_first()
    if job.preferred_level in levels:
        levels = levels[levels.index(job.preferred_level) :]
    for level in levels:
        able = [inside for spare, _, inside in regions(state.books, need, level) if spare >= 1]
        yield from able[: -MOST_NEAR - 1 : -1]
    if not job.required_level:
        yield None


def _joined(state: State, record: JobRecord) -> Flags | None:
    """Where a job that runs may grow: in the group that all its members must share."""
    level, topology = record.job.required_level, state.books.topology
    at = next((member.hold.row for member in record.members if member.hold is not None), -1)
    if at < 0 or level not in topology:
        return None
    groups = topology.groups(level, len(state.books.names))
    inside: Flags = groups == groups[at]
    return inside


def _within_limits(state: State, record: JobRecord, packing: Packing) -> bool:
    """Whether members may be where they were packed without regard to limits on classes of cards."""
    if not state.queues.limited:
        return True
    by_class = _by_class(state, [hold for holds in packing.holds for hold in holds])
    return not set(by_class) & set(state.queues.full_classes(record.job.queue, 0, by_class))


def _place_role(
    state: State,
    record: JobRecord,
    each: Waiting,
    plan: Plan,
    inside: Flags | None = None,
    before: Placed | None = None,
) -> Placed | None:
    """Places for the members of one role that wait (at least those needed), beside those placed ``before``."""
    taken = list((before or {}).values())
    most = min(len(each.numbers), _most_by_limits(state, record, each, taken))
    for pieces in _ways(state, record, each, most, inside):
        mark = plan.mark()
        holds: list[Hold] = []
        for within, count in pieces:
            began = plan.mark()
            some = _fill(state, record, each, within, min(count, most - len(holds)), [*taken, *holds], plan)
            whole = len(some) // max(1, each.role.subgroup_size) * max(1, each.role.subgroup_size)
            plan.undo(began + whole)
            holds += some[:whole]
        if len(holds) >= each.together.n_members:
            return dict(zip(each.numbers, holds, strict=False))
        plan.undo(mark)
    return None


def _fill(
    state: State,
    record: JobRecord,
    each: Waiting,
    within: Flags | None,
    count: int,
    before: list[Hold],
    plan: Plan,
) -> list[Hold]:
    """Up to so many members inside some rows, each where it scores best."""
    holds: list[Hold] = []
    while len(holds) < count:
        shape = state.shape_now(record, each.shape, 1, _by_class(state, [*before, *holds]))
        place = state.placement.best(shape, within)
        if place is None:
            break
        row, columns = place
        if shape.n_devices > 1:
            columns = state.placement.columns_for_more(shape, row, columns)
        hold = state.books.hold_for(shape, row, columns)
        plan.take(hold)
        holds.append(hold)
    return holds


def _by_class(state: State, holds: list[Hold]) -> dict[str, int]:
    """Compute by class of card, where that may be limited."""
    out: dict[str, int] = {}
    for hold in holds if state.queues.limited else ():
        for name, milli in state.books.by_class(hold).items():
            out[name] = out.get(name, 0) + milli
    return out


def _most_by_limits(state: State, record: JobRecord, each: Waiting, taken: list[Hold]) -> int:
    """How many members of a role the limits of queue and user leave room for."""
    asked = each.shape.asked_milli
    if not asked:
        return 10**9
    held = sum(hold.compute_milli * len(hold.columns) for hold in taken)
    return (state.queues.room_milli(record.job.queue, record.job.user) - held) // asked


def _ways(
    state: State, record: JobRecord, each: Waiting, most: int, anywhere: Flags | None = None
) -> Iterator[list[Piece]]:
    """Ways to spread the members, the nearest to each other first. Only such as could hold enough of them.

    Into one group of the tightest level that takes all (of these the one that is then fullest), unless another level is
    preferred: then that is the tightest tried; else by the cheapest cut. Members of a job that runs join the others.
    """
    role, books, needed = each.role, state.books, each.together.n_members
    shape = state.shape_now(record, each.shape, needed)
    fit = books.n_fit(shape)
    if anywhere is not None:
        fit = np.where(anywhere, fit, 0)
    room = usable(books, fit, each.together)
    total = int(room.sum())
    if min(total, most) < needed:
        return
    topology, n = books.topology, len(fit)
    levels = topology.at_least(role.required_level) if role.required_level else topology.tightest_first()
    if role.preferred_level in levels:
        levels = levels[levels.index(role.preferred_level) :]
    if role.subgroup_size and role.subgroup_level in levels:
        levels = levels[levels.index(role.subgroup_level) :]
    alike = record.members_of(each.index)
    at = next((member.hold.row for member in alike if member.hold is not None), -1)
    if at >= 0:
        for level in levels:
            groups = topology.groups(level, n)
            inside = groups == groups[at] if groups[at] >= 0 else np.zeros(n, dtype=np.bool_)
            if int(room[inside].sum()) >= needed:
                yield _spread(state, each, shape, fit, inside, min(most, int(room[inside].sum())))
        if role.required_level in topology:
            return
    size = max(1, role.subgroup_size)
    for wanted in dict.fromkeys((min(most, total) // size * size, needed)):
        for level in levels:
            groups = topology.groups(level, n)
            sums = group_sums(groups, room)
            able = np.flatnonzero(sums >= wanted)
            if len(able):
                yield _spread(state, each, shape, fit, groups == able[sums[able].argmin()], wanted)
        if not role.required_level:
            yield _spread(state, each, shape, fit, np.ones(n, dtype=np.bool_), wanted)
    if role.required_level and role.required_level in topology:  # more than are needed, if not all that wait
        groups = topology.groups(role.required_level, n)
        sums = group_sums(groups, room)
        if len(sums) and int(sums.max()) >= needed:
            yield _spread(state, each, shape, fit, groups == int(sums.argmax()), int(sums.max()))
    if not role.required_level and not role.subgroup_size:
        yield [(anywhere, most)]


def _spread(state: State, each: Waiting, shape: Shape, fit: Ints, inside: Flags, wanted: int) -> list[Piece]:
    """Members over the nodes of a group: by the cheapest cut, or by score alone below a level that is preferred."""
    role, topology, n = each.role, state.books.topology, len(fit)
    fit = np.where(inside, fit, 0)
    if not role.subgroup_size:
        if role.preferred_level in topology or not shape.n_devices:
            return [(inside, wanted)]
        levels = [topology.groups(level, n) for level in reversed(topology.tightest_first())]
        return [(_only(row, n), count) for row, count in cheapest_cut(levels, fit, wanted)]
    wide, tight = topology.around(role.subgroup_level)
    subgroups = topology.groups(role.subgroup_level, n)
    pieces: list[Piece] = []
    cut = cheapest_cut([topology.groups(level, n) for level in wide], usable(state.books, fit, each.together), wanted)
    for first, count in cut:
        rows = np.where(subgroups == subgroups[first], fit, 0)
        for _ in range(count // role.subgroup_size):
            parts = cheapest_cut([topology.groups(level, n) for level in tight], rows, role.subgroup_size)
            mask = np.zeros(n, dtype=np.bool_)
            for row, part in parts:
                mask[row] = True
                rows[row] -= part
            pieces.append((mask, role.subgroup_size))
    return pieces


def _only(row: int, n: int) -> Flags:
    mask = np.zeros(n, dtype=np.bool_)
    mask[row] = True
    return mask
