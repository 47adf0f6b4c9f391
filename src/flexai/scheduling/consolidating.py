"""Consolidation: moving restartable jobs together, so that the free cards of several nodes become room for one job.

Compute is there, only scattered. A move is an eviction whose victim has another place to go to, at once: it is tried on
the books first (the waiting job and every victim must have their place) and undone. Only jobs that keep their work
(``checkpointable``) are moved, each at most once in ``MOVED_FOR_MS``, and only when the waiting job has waited for as
much card time as the moves cost: so that, as with hiring and buying, the worst case is twice the best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import Plan
from flexai.model import JobState
from flexai.policy.gang import Need
from flexai.policy.roles import fits, orders, pack
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling.entitlement import is_claiming
from flexai.scheduling.evicting import evict_for
from flexai.scheduling.gangs import place_members
from flexai.scheduling.records import cost_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.cluster import Books, Shape
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

MOVED_FOR_MS = 1_800_000
MOST_LINES = 8
"""So many waiting lines are looked at in a tick, the first that came first."""


def run(state: State, steps: int) -> None:
    """Move what helps the jobs that have waited longest, within the moves allowed in one tick.

    ``steps`` are nodes that may be looked at, what evictions left of the tick's budget.
    """
    moves = state.settings.consolidate_moves
    if not moves or steps <= 0 or not state.running:
        return
    scattered = [
        line.head
        for line in state.lines.values()
        if line.key.need in state.blocked and line.key.shape.n_devices and not line.head.is_placed
    ]
    for record in sorted(scattered, key=lambda each: each.job.seq)[:MOST_LINES]:
        if is_claiming(state, record):
            continue
        if record.job.queue not in state.queues or state.queues.over_limit(record.job.queue, record.needed_milli):
            continue
        chosen, looked_at = _moves_for(state, record, moves, steps)
        steps -= looked_at
        for victim in chosen:
            state.jobs[victim.job_id].moved_at_ms = state.now_ms
        if chosen:
            evict_for(state, record, chosen, "moved together with others, to make room")
            moves -= len(chosen)
        if moves <= 0 or steps <= 0:
            return


def _moves_for(state: State, record: JobRecord, moves: int, steps: int) -> tuple[list[Victim], int]:
    """Jobs to move so that ``record`` fits, and how many nodes were looked at.

    Cheapest first; none if it is not worth it or they had nowhere to go.
    """
    if int(np.maximum(state.books.free_milli[: len(state.books.names)], 0).sum()) < record.needed_milli:
        return [], 1
    roles, looked_at = record.alone() if record.job.roles else [record], 1
    if record.job.roles and fits(state.books, record.need):  # it waits for its turn, not for room
        return [], looked_at
    for order in orders(len(roles)):
        chosen, n_nodes = _in_order(state, record, [roles[at] for at in order], moves, max(1, steps - looked_at))
        looked_at += n_nodes
        if chosen and _all_have_a_place(state, record, chosen):
            return chosen, looked_at
        if looked_at >= steps:
            break
    return [], looked_at


def _in_order(
    state: State, record: JobRecord, roles: list[JobRecord], moves: int, steps: int
) -> tuple[list[Victim], int]:  # fmt: skip
    """Jobs to move for one role after the other, each beside those before it: (none if a role has no place, nodes)."""
    books = state.books.copy() if len(roles) > 1 else state.books
    chosen: list[Victim] = []
    looked_at = 0

    def allowed(some: Iterable[Victim]) -> bool:
        together = [*chosen, *some]
        waited_ms = state.now_ms - record.job.submitted_at_ms
        return len(together) <= moves and sum(each.lost for each in together) <= record.needed_milli * waited_ms

    for role in roles:
        part, some = Need.of(role.shape, role.together), []
        if len(roles) == 1 or not fits(books, part):
            on, n_rows = _victims_by_row(state, books, role.shape, chosen, max(1, steps - looked_at))
            looked_at += n_rows
            found = cheapest_set(books, role.shape, role.n_needed - int(books.n_fit(role.shape).sum()), on, allowed)
            if found is None:
                return [], looked_at
            some = found
        chosen += some
        if len(roles) == 1:
            break
        for hold in (hold for victim in some for hold in victim.holds):
            books.give(hold)
        packing = pack(books, part)
        if packing.lacks >= 0:
            return [], looked_at
        for hold in packing.holds[0]:
            books.take(hold)
    return chosen, looked_at


def _victims_by_row(
    state: State, books: Books, shape: Shape, gone: Sequence[Victim], steps: int
) -> tuple[dict[int, list[Victim]], int]:  # fmt: skip
    """Jobs that may be moved, on each node where that would make room; and how many nodes were looked at."""
    without = state.evictable_holds.if_all_left(books)
    for hold in (hold for victim in gone for hold in victim.holds):  # they are gone from these books already
        without.take(hold)
    rows = np.flatnonzero(without.n_fit(shape) > books.n_fit(shape))[:steps].tolist()
    moved = {victim.job_id for victim in gone}
    out: dict[int, list[Victim]] = {}
    for row in rows:
        victims = [
            Victim(job_id, holds, cost)
            for job_id in state.evictable_holds.holders.get(row, ())
            if job_id not in moved and (cost := _cost(state, state.jobs[job_id])) >= 0
            for holds in [tuple(member.hold for member in state.jobs[job_id].members if member.hold is not None)]
        ]
        if victims:
            out[row] = victims
    return out, len(rows)


def _cost(state: State, record: JobRecord) -> int:
    """Card time (ms x thousandths) that moving a job costs; -1 if it must stay."""
    job = record.job
    ran_ms = state.now_ms - record.started_at_ms
    if not (job.preemptible and job.checkpointable) or record.state is not JobState.RUNNING:
        return -1
    if ran_ms < job.min_runtime_ms or state.now_ms - record.moved_at_ms < MOVED_FOR_MS:
        return -1
    seen_ms = state.move_costs.move_ms(*cost_class(record), state.grace_ms(job))
    return (state.settings.move_cost_ms + seen_ms) * record.held_milli


def _all_have_a_place(state: State, record: JobRecord, chosen: list[Victim]) -> bool:
    """Try it: the victims gone, the waiting job placed, then every victim again."""
    plan = Plan(state.books)
    for victim in chosen:
        for hold in victim.holds:
            plan.give(hold)
    able = place_members(state, record, plan) is not None
    for victim in chosen:
        other = state.jobs[victim.job_id]
        for number in [number for number, member in enumerate(other.members) if member.hold] if able else ():
            shape = other.shape_of(number)
            place = state.placement.best(shape)
            if place is None:
                able = False
                break
            plan.take(state.books.hold_for(shape, *place))
    plan.undo()
    return able
