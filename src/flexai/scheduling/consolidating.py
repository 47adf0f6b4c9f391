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
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling.entitlement import is_claiming
from flexai.scheduling.evicting import evict_for
from flexai.scheduling.gangs import place_members
from flexai.scheduling.records import cost_class

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    books, shape = state.books, record.shape
    n = len(books.names)
    if int(np.maximum(books.free_milli[:n], 0).sum()) < record.needed_milli:
        return [], 1
    most = state.evictable_holds.if_all_left(books).n_fit(shape)
    now = books.n_fit(shape)
    on: dict[int, list[Victim]] = {}
    rows = np.flatnonzero(most > now)[:steps].tolist()
    for row in rows:
        victims = [
            Victim(job_id, holds, cost)
            for job_id in state.evictable_holds.holders.get(row, ())
            if (cost := _cost(state, state.jobs[job_id])) >= 0
            for holds in [tuple(member.hold for member in state.jobs[job_id].members if member.hold is not None)]
        ]
        if victims:
            on[row] = victims

    def allowed(some: Iterable[Victim]) -> bool:
        together = list(some)
        waited_ms = state.now_ms - record.job.submitted_at_ms
        return len(together) <= moves and sum(each.lost for each in together) <= record.needed_milli * waited_ms

    chosen = cheapest_set(books, shape, record.n_needed - int(now.sum()), on, allowed)
    worth = chosen is not None and _all_have_a_place(state, record, chosen)
    return (chosen if chosen is not None and worth else []), 1 + len(rows)


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
    fits = place_members(state, record, plan) is not None
    for victim in chosen:
        for _ in victim.holds if fits else ():
            shape = state.jobs[victim.job_id].shape
            place = state.placement.best(shape)
            if place is None:
                fits = False
                break
            plan.take(state.books.hold_for(shape, *place))
    plan.undo()
    return fits
