"""What would have to end for a waiting job to start, and why the scheduler does not make it end.

A question about the books as they are, asked by a person: nothing is decided. Of all that runs the jobs are sought that
are over soonest and whose end would make room; each comes with the rule that protects it from being evicted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums
from flexai.model import JobState
from flexai.policy.gang import fits_together
from flexai.policy.roles import pack
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling import booking, entitlement
from flexai.scheduling.predicting import ends_at
from flexai.scheduling.wording import n_cards

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.cluster import Books, Shape
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

MOST_NODES = 64
"""So many nodes are looked at, those first where most would have room."""
ENDING = "it is ending already"


@dataclass(frozen=True, slots=True)
class Blocker:
    """A job whose end, with that of the others named, would let the waiting one start.

    Attributes:
        job_id: the job.
        queue: its queue.
        held_milli: compute that it holds, thousandths of a card.
        left_ms: how long it will likely go on (the median of what ran as long in its class); an estimate.
        kept_because: the rule by which it is not evicted.
    """

    job_id: str
    queue: str
    held_milli: int
    left_ms: int
    kept_because: str


def what_must_end(state: State, job_id: str) -> tuple[Blocker, ...]:
    """Jobs whose end would let this one start; none if it runs, waits for something else, or can never start."""
    record = state.jobs.get(job_id)
    if record is None or record.state is not JobState.QUEUED or record.is_placed or record.waits_on:
        return ()
    if record.job.queue not in state.queues:
        return ()
    state = booking.unbooked(state)
    books, one = _lacking(state, record)
    shape = state.shape_now(one)
    rows, missing = _region(books, one, shape)
    if missing <= 0:
        return ()
    on: dict[int, list[Victim]] = {}
    for row in rows.tolist():
        on[row] = [
            Victim(
                name, tuple(m.hold for m in state.jobs[name].members if m.hold is not None), _left_ms(state, name) + 1
            )
            for name in state.evictable_holds.holders.get(row, ())
        ]
    chosen = cheapest_set(books, shape, missing, {row: some for row, some in on.items() if some}, lambda _: True)
    return tuple(
        Blocker(
            victim.job_id, state.jobs[victim.job_id].job.queue, state.jobs[victim.job_id].held_milli,
            victim.lost - 1, _kept_because(state, record, state.jobs[victim.job_id]),
        )
        for victim in sorted(chosen or (), key=lambda each: (each.lost, each.job_id))
    )  # fmt: skip


def _lacking(state: State, record: JobRecord) -> tuple[Books, JobRecord]:
    """The books as they are and the job; of several roles the one that lacks room, beside those that have it."""
    if not record.job.roles:
        return state.books, record
    alone, need = record.alone(), record.need
    for one in alone:
        if not fits_together(state.books, one.shape, one.together):
            return state.books, one
    packing, books = pack(state.books, need), state.books.copy()
    for at, holds in enumerate(packing.holds):
        for hold in holds if at != packing.lacks else ():
            books.take(hold)
    return books, alone[max(packing.lacks, 0)]


def _region(books: Books, record: JobRecord, shape: Shape) -> tuple[NDArray[np.int64], int]:
    """Nodes to look at, and how many members have no place on them now."""
    level = record.job.required_level
    n = len(books.names)
    now, most = books.n_fit(shape)[:n], books.n_fit_emptied(shape)[:n]
    here = np.ones(n, dtype=bool)
    if level:
        if level not in books.topology:
            return np.zeros(0, dtype=np.int64), 0
        groups = books.topology.groups(level, n)
        could, can = group_sums(groups, most), group_sums(groups, now)
        able = np.flatnonzero(could >= record.n_needed)
        if not len(able):
            return np.zeros(0, dtype=np.int64), 0
        here = groups == able[can[able].argmax()]
    rows = np.flatnonzero(here & (most > now))
    order = np.argsort(now[rows] - most[rows], kind="stable")
    return rows[order[:MOST_NODES]], record.n_needed - int(now[here].sum())


def _left_ms(state: State, job_id: str) -> int:
    return max(0, ends_at(state, state.jobs[job_id]) - state.now_ms)


def _kept_because(state: State, record: JobRecord, other: JobRecord) -> str:
    job, queue = other.job, record.job.queue
    if other.state is JobState.STOPPING:
        return ENDING
    if not state.settings.preempt:
        return "this pool evicts nothing"
    if not job.preemptible:
        return "it may not be evicted (--no-preempt)"
    ran_ms = other.ran_ms(state.now_ms)
    if ran_ms < job.min_runtime_ms:
        return f"it has run {ran_ms / 1000:.0f} s of its minimum of {job.min_runtime_ms / 1000:g} s"
    if job.queue == queue:
        if job.priority >= record.job.priority:
            return f"same queue, and its priority {job.priority} is not below {record.job.priority}"
        return "nothing: it is evicted at the next look, unless others are evicted instead"
    standing = entitlement.standing_of(state)
    resource = entitlement.resource_of(state, state.class_of(record.shapes))
    mine = entitlement.entitled_milli(state, queue, resource, standing)
    if not entitlement.may_take_from(state, record, entitlement.entitled_up_to(state, record, standing), job.queue):
        used = state.queues[queue].used_of(resource)
        return (
            f"queue {queue} holds {n_cards(used)} and is entitled to {n_cards(mine)}; with this job it would hold "
            f"{n_cards(used + record.needed_milli)}"
        )
    if job.queue not in state.queues:
        return "nothing: it is evicted at the next look, unless others are evicted instead"
    theirs = entitlement.entitled_milli(state, job.queue, resource, standing)
    left = state.queues[job.queue].used_of(resource) - other.held_milli
    if left < theirs:
        return f"queue {job.queue} would be left {n_cards(left)}, and is entitled to {n_cards(theirs)}"
    return "nothing: it is evicted at the next look, unless others are evicted instead"
