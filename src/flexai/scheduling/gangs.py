"""Places for the members of a job: together or not at all, near to each other, within the limits of its queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums
from flexai.policy.gang import cheapest_cut, usable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flexai.cluster import Hold, Plan, Shape
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

    Ints = NDArray[np.int64]
    Piece = tuple[NDArray[np.bool_] | None, int]
    """Rows (None: anywhere) and how many members go there."""


def place_members(state: State, record: JobRecord, plan: Plan) -> list[Hold] | None:
    """Places for all members that wait (at least those needed), taken in ``plan``; None and nothing taken if none."""
    if record.job.n_members == 1:
        shape = state.shape_now(record)
        place = state.placement.best(shape)
        if place is None:
            return None
        hold = state.books.hold_for(shape, *place)
        plan.take(hold)
        return [hold]
    most = min(record.n_to_start, _most_by_limits(state, record))
    for pieces in _ways(state, record, most):
        mark = plan.mark()
        holds: list[Hold] = []
        for within, count in pieces:
            began = plan.mark()
            some = _fill(state, record, within, min(count, most - len(holds)), holds, plan)
            whole = len(some) // max(1, record.together.subgroup_size) * max(1, record.together.subgroup_size)
            plan.undo(began + whole)
            holds += some[:whole]
        if len(holds) >= record.n_needed:
            return holds
        plan.undo(mark)
    return None


def _fill(
    state: State, record: JobRecord, within: NDArray[np.bool_] | None, count: int, before: list[Hold], plan: Plan
) -> list[Hold]:
    """Up to so many members inside some rows, each where it scores best."""
    holds: list[Hold] = []
    while len(holds) < count:
        shape = state.shape_now(record, _by_class(state, [*before, *holds]), 1)
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


def _most_by_limits(state: State, record: JobRecord) -> int:
    """How many members the limits of queue and user leave room for."""
    each = record.shape.asked_milli
    return state.queues.room_milli(record.job.queue, record.job.user) // each if each else 10**9


def _ways(state: State, record: JobRecord, most: int) -> Iterator[list[Piece]]:
    """Ways to spread the members, the nearest to each other first. Only such as could hold enough of them.

    Into one group of the tightest level that takes all (of these the one that is then fullest), unless another level is
    preferred: then that is the tightest tried; else by the cheapest cut. Members of a job that runs join the others.
    """
    job, books, needed = record.job, state.books, record.n_needed
    shape = state.shape_now(record)
    fit = books.n_fit(shape)
    room = usable(books, fit, record.together)
    total = int(room.sum())
    if min(total, most) < needed:
        return
    topology, n = books.topology, len(fit)
    levels = topology.at_least(job.required_level) if job.required_level else topology.tightest_first()
    if job.preferred_level in levels:
        levels = levels[levels.index(job.preferred_level) :]
    if job.subgroup_size and job.subgroup_level in levels:
        levels = levels[levels.index(job.subgroup_level) :]
    at = next((member.hold.row for member in record.members if member.hold is not None), -1)
    if at >= 0:
        for level in levels:
            groups = topology.groups(level, n)
            inside = groups == groups[at] if groups[at] >= 0 else np.zeros(n, dtype=np.bool_)
            if int(room[inside].sum()) >= needed:
                yield _spread(state, record, shape, fit, inside, min(most, int(room[inside].sum())))
        if job.required_level in topology:
            return
    size = max(1, job.subgroup_size)
    for wanted in dict.fromkeys((min(most, total) // size * size, needed)):
        for level in levels:
            groups = topology.groups(level, n)
            sums = group_sums(groups, room)
            able = np.flatnonzero(sums >= wanted)
            if len(able):
                yield _spread(state, record, shape, fit, groups == able[sums[able].argmin()], wanted)
        if not job.required_level:
            yield _spread(state, record, shape, fit, np.ones(n, dtype=np.bool_), wanted)
    if job.required_level and job.required_level in topology:  # more than are needed, if not all that wait
        groups = topology.groups(job.required_level, n)
        sums = group_sums(groups, room)
        if len(sums) and int(sums.max()) >= needed:
            yield _spread(state, record, shape, fit, groups == int(sums.argmax()), int(sums.max()))
    if not job.required_level and not job.subgroup_size:
        yield [(None, most)]


def _spread(
    state: State, record: JobRecord, shape: Shape, fit: Ints, inside: NDArray[np.bool_], wanted: int
) -> list[Piece]:
    """Members over the nodes of a group: by the cheapest cut, or by score alone below a level that is preferred."""
    job, topology, n = record.job, state.books.topology, len(fit)
    fit = np.where(inside, fit, 0)
    if not job.subgroup_size:
        if job.preferred_level in topology or not shape.n_devices:
            return [(inside, wanted)]
        levels = [topology.groups(level, n) for level in reversed(topology.tightest_first())]
        return [(_only(row, n), count) for row, count in cheapest_cut(levels, fit, wanted)]
    wide, tight = topology.around(job.subgroup_level)
    subgroups = topology.groups(job.subgroup_level, n)
    pieces: list[Piece] = []
    cut = cheapest_cut([topology.groups(level, n) for level in wide], usable(state.books, fit, record.together), wanted)
    for first, count in cut:
        rows = np.where(subgroups == subgroups[first], fit, 0)
        for _ in range(count // job.subgroup_size):
            parts = cheapest_cut([topology.groups(level, n) for level in tight], rows, job.subgroup_size)
            mask = np.zeros(n, dtype=np.bool_)
            for row, part in parts:
                mask[row] = True
                rows[row] -= part
            pieces.append((mask, job.subgroup_size))
    return pieces


def _only(row: int, n: int) -> NDArray[np.bool_]:
    mask = np.zeros(n, dtype=np.bool_)
    mask[row] = True
    return mask
