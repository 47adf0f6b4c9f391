"""Evictions: for a queue's entitlement across queues (reclaim), for priority inside a queue (preempt), on command.

A queue that holds less than it is entitled to (its quota; its fair share with ``reclaim="fair_share"``) may take back
from queues that hold more than theirs, never leaving a victim's queue below its own: the claimant is then at most at
its entitlement and the victim at least at its, so the two can never take turns. Inside a queue a job may evict jobs of
lower priority. Only preemptible jobs that have run their minimum run time are victims; they end gracefully and keep
their place. What is freed is reserved for the claimant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import group_sums
from flexai.model import JobState, TenantClass
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling.commands import Evict
from flexai.scheduling.placing import need_rank, shares_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from flexai.scheduling.records import JobRecord, Line
    from flexai.scheduling.state import State

STEPS = 20_000
"""Search budget of a step that brings none: nodes looked at for victims."""
MAX_GROUPS = 4
"""So many groups of a required level are searched for victims, those that lack least first."""


def run(state: State, lines: list[Line], steps: int) -> None:
    """Evict for whoever of these is owed most, one claimant at a time, within the budget of nodes looked at."""
    if not state.settings.preempt or not lines or not state.running:
        return
    lines = [line for line in lines if line.key.shape.n_devices and not line.head.is_placed]
    shares = shares_of(state) if state.settings.reclaim == "fair_share" and lines else {}
    lines = [line for line in lines if _may_claim(state, line, shares)]
    lines.sort(key=lambda line: (need_rank(state, {}, line.key.queue)[0], -line.key.priority, line.head.job.seq))
    for line in lines:
        record = line.head
        if any(name in state.running for name in state.claims.get(record.job.id, ())):
            continue
        chosen, looked_at = choose(state, record, shares, steps)
        steps -= looked_at
        if chosen:
            verb = "reclaimed" if is_entitled(state, record, shares) else "preempted"
            if all(is_lent(state.jobs[victim.job_id]) for victim in chosen):
                verb = "taken back"
            state.claims[record.job.id] = tuple(victim.job_id for victim in chosen)
            for victim in chosen:
                cause = f"{verb} for job {record.job.id} of queue {record.job.queue}"
                evict_job(state, state.jobs[victim.job_id], cause)
            state.big = {record.job.id: None, **state.big}
            state.reservation = None
        if steps <= 0:
            return


def evict_job(state: State, record: JobRecord, cause: str) -> None:
    """Stop all members; the job keeps its place in the queue."""
    _stop(state, record, cause, requeue=True)


def stop_rest(state: State, record: JobRecord, cause: str) -> None:
    """Stop the members that still run, for good."""
    _stop(state, record, cause, requeue=False)


def _stop(state: State, record: JobRecord, cause: str, *, requeue: bool) -> None:
    state.leave(record)
    for index, member in enumerate(record.members):
        if member.hold is not None and not member.evicting:
            member.evicting, member.requeue = True, requeue
            state.out.append(Evict(record.job.id, index, state.settings.grace_ms, requeue=requeue, cause=cause))
    record.stops_at_ms = state.now_ms + state.settings.grace_ms
    state.set_state(record, JobState.STOPPING, cause)


def _may_claim(state: State, line: Line, shares: dict[str, int]) -> bool:
    record = line.head
    if state.now_ms - record.job.submitted_at_ms < state.settings.preempt_delay_ms:
        return False
    if state.queues.over_limit(record.job.queue, record.needed_milli):
        return False
    least = min(state.evictable.get(line.key.queue, ()), default=2**31)
    may_take_back = bool(state.lent) and record.job.request.tenant_class is not TenantClass.BEST_EFFORT
    return may_take_back or is_entitled(state, record, shares) or line.key.priority > least


def is_lent(record: JobRecord) -> bool:
    """Whether a job runs on lent compute only."""
    return all(member.lent for member in record.members if member.hold is not None)


def entitled_milli(state: State, queue: str, shares: dict[str, int]) -> int:
    """What a queue may hold without giving it back: its quota, or its fair share where that is larger."""
    return max(state.queues[queue].queue.quota_milli, shares.get(queue, 0))


def is_entitled(state: State, record: JobRecord, shares: dict[str, int]) -> bool:
    """Whether its queue, with the job, would still be within what it is entitled to."""
    name = record.job.queue
    if name not in state.queues:
        return False
    return state.queues[name].used_milli + record.needed_milli <= entitled_milli(state, name, shares)


def choose(
    state: State, record: JobRecord, shares: dict[str, int], steps: int
) -> tuple[list[Victim] | None, int]:  # fmt: skip
    """The victims for a job, and how many nodes were looked at. First the bound: would it fit with everybody gone?"""
    books, shape, needed = state.books, record.shape, record.n_needed
    n = len(books.names)
    most = state.evictable_holds.if_all_left(books).n_fit(shape)[:n]
    if int(most.sum()) < needed:
        return None, 1
    now = books.n_fit(shape)[:n]
    looked_at = 1
    for rows, missing in _regions(state, record, most, now):
        on: dict[int, list[Victim]] = {}
        for row in rows[most[rows] > now[rows]].tolist():
            victims = _victims_on(state, record, row, shares)
            looked_at += 1
            if victims:
                on[row] = victims
            if looked_at >= steps:
                break
        chosen = cheapest_set(
            books, shape, missing, on, lambda some: _leaves_enough(state, record, some, shares)
        )  # fmt: skip
        if chosen is not None or looked_at >= steps:
            return chosen, looked_at
    return None, looked_at


def _regions(
    state: State, record: JobRecord, most: NDArray[np.int64], now: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], int]]:
    """Rows to look for victims in, and how many members are missing there: groups of a required level, or everywhere.

    A region that lacks nothing waits for its turn, not for victims.
    """
    needed, level = record.n_needed, record.job.required_level
    if not level:
        missing = needed - int(now.sum())
        return [(np.flatnonzero(most > 0), missing)] if missing > 0 else []
    if level not in state.books.topology:
        return []
    groups = state.books.topology.groups(level, len(most))
    could, can = group_sums(groups, most), group_sums(groups, now)
    if (can >= needed).any():
        return []
    able = np.flatnonzero(could >= needed)
    best = sorted((needed - int(can[group]), group) for group in able.tolist())[:MAX_GROUPS]
    return [(np.flatnonzero((groups == group) & (most > 0)), missing) for missing, group in best]


def _victims_on(state: State, record: JobRecord, row: int, shares: dict[str, int]) -> list[Victim]:
    """Who may be evicted for the job on one node."""
    out = []
    reclaim = is_entitled(state, record, shares)
    for job_id in state.evictable_holds.holders.get(row, ()):
        other = state.jobs[job_id]
        job = other.job
        if other.state is JobState.STOPPING:
            continue
        if is_lent(other):  # it was told so: what it uses belongs to whoever is granted it
            if record.job.request.tenant_class is not TenantClass.BEST_EFFORT:
                out.append(Victim(job_id, tuple(member.hold for member in other.members if member.hold), 1))
            continue
        if not job.preemptible:
            continue
        if state.now_ms - other.started_at_ms < job.min_runtime_ms:
            continue
        if job.queue == record.job.queue:
            if job.priority >= record.job.priority:
                continue
        elif not reclaim:
            continue
        elif job.queue in state.queues:
            over = state.queues[job.queue].used_milli - entitled_milli(state, job.queue, shares)
            if over < other.held_milli:
                continue
        holds = tuple(member.hold for member in other.members if member.hold is not None)
        lost = max(0, state.now_ms - other.started_at_ms) * other.held_milli
        out.append(Victim(job_id, holds, lost + 1))
    return out


def _leaves_enough(state: State, record: JobRecord, some: Iterable[Victim], shares: dict[str, int]) -> bool:
    """Whether these victims together leave every victim's queue, and its parents, what they are entitled to."""
    taken: dict[str, int] = {}
    own = {each.queue.name for each in state.queues.path(record.job.queue)}
    for victim in some:
        other = state.jobs[victim.job_id]
        for each in state.queues.path(other.job.queue):
            if each.queue.name not in own:
                taken[each.queue.name] = taken.get(each.queue.name, 0) + other.held_milli
    return all(
        state.queues[name].used_milli - milli >= entitled_milli(state, name, shares) for name, milli in taken.items()
    )
