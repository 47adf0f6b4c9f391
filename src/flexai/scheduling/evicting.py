"""Evictions: for a queue's quota across queues (reclaim), for priority inside a queue (preempt), and on command.

A queue that holds less than its quota may take back from queues that hold more than theirs, never leaving a victim's
queue below its own quota: the claimant is then at most at its quota and the victim at least at its, so the two can
never take turns. Inside a queue a job may evict jobs of lower priority. Only preemptible jobs that have run their
minimum run time are victims; they end gracefully and keep their place. What is freed is reserved for the claimant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.model import JobState
from flexai.policy.victims import Victim, cheapest_on
from flexai.scheduling.commands import Evict
from flexai.scheduling.placing import need_rank

if TYPE_CHECKING:
    from flexai.scheduling.records import JobRecord, Line
    from flexai.scheduling.state import State

STEPS = 2_000
"""Search budget of a step that brings none: nodes looked at."""


def run(state: State, lines: list[Line], steps: int) -> None:
    """Evict for whoever of these is owed most, one claimant at a time, within the budget of nodes looked at."""
    if not state.settings.preempt or not lines or not state.running:
        return
    lines = [line for line in lines if _may_claim(state, line)]
    lines.sort(key=lambda line: (need_rank(state, {}, line.key.queue)[0], -line.key.priority, line.head.job.seq))
    for line in lines:
        record = line.head
        if record.job.id in state.claims and any(name in state.running for name in state.claims[record.job.id]):
            continue
        steps -= len(state.books.names)
        victims = _victims_for(state, record)
        chosen = _choose(state, record, victims) if victims else None
        if chosen:
            verb = "reclaimed" if _below_quota(state, record) else "preempted"
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
    for index, member in enumerate(record.members):
        if member.hold is not None and not member.evicting:
            member.evicting, member.requeue = True, True
            state.out.append(Evict(record.job.id, index, state.settings.grace_ms, requeue=True, cause=cause))
    state.set_state(record, JobState.STOPPING, cause)


def stop_rest(state: State, record: JobRecord, cause: str) -> None:
    """Stop the members that still run, for good."""
    for index, member in enumerate(record.members):
        if member.hold is not None and not member.evicting:
            member.evicting, member.requeue = True, False
            state.out.append(Evict(record.job.id, index, state.settings.grace_ms, requeue=False, cause=cause))
    state.set_state(record, JobState.STOPPING, cause)


def _may_claim(state: State, line: Line) -> bool:
    record = line.head
    if state.now_ms - record.job.submitted_at_ms < state.settings.preempt_delay_ms:
        return False
    if state.queues.over_limit(record.job.queue, record.asked_milli):
        return False
    least = min(state.evictable.get(line.key.queue, ()), default=2**31)
    return _below_quota(state, record) or line.key.priority > least


def _below_quota(state: State, record: JobRecord) -> bool:
    """Whether its queue, with the job, would still be within its quota."""
    if record.job.queue not in state.queues:
        return False
    queue = state.queues[record.job.queue]
    return queue.used_milli + record.asked_milli <= queue.queue.quota_milli


def _victims_for(state: State, record: JobRecord) -> dict[int, list[Victim]]:
    """Who may be evicted for the job, by node."""
    reclaim = _below_quota(state, record)
    spare: dict[str, int] = {}
    out: dict[int, list[Victim]] = {}
    for job_id in state.running:
        other = state.jobs[job_id]
        job = other.job
        if not job.preemptible or other.state is JobState.STOPPING:
            continue
        if state.now_ms - other.started_at_ms < job.min_runtime_ms:
            continue
        same = job.queue == record.job.queue
        if same and job.priority >= record.job.priority:
            continue
        if not same:
            if not reclaim or job.queue not in state.queues:
                continue
            queue = state.queues[job.queue]
            left = spare.setdefault(job.queue, queue.used_milli - queue.queue.quota_milli)
            if left < other.held_milli:
                continue
        holds = tuple(member.hold for member in other.members if member.hold is not None)
        lost = max(0, state.now_ms - other.started_at_ms) * other.held_milli
        victim = Victim(job_id, holds, lost + 1)
        for row in {hold.row for hold in holds}:
            out.setdefault(row, []).append(victim)
    return out


def _choose(state: State, record: JobRecord, by_row: dict[int, list[Victim]]) -> list[Victim] | None:
    """The cheapest nodes until all members have a place, each member where it costs least."""
    books, shape = state.books, record.shape
    gained = set(books.gained)
    n_free = int(books.n_fit(shape).sum())
    needed = record.job.min_member - n_free
    costs: list[tuple[int, int, list[Victim]]] = []
    for row in sorted(by_row):
        at = np.array([row], dtype=np.int64)
        before = int(books.n_fit(shape, at)[0])

        def fits(at: np.ndarray[tuple[int], np.dtype[np.int64]] = at, before: int = before) -> bool:
            return int(books.n_fit(shape, at)[0]) > before

        some = cheapest_on(books, row, by_row[row], fits)
        if some is not None:
            costs.append((sum(victim.lost for victim in some), row, some))
    books.gained = gained
    chosen: dict[str, Victim] = {}
    spare: dict[str, int] = {}
    for _, _, some in sorted(costs, key=lambda entry: entry[:2]):
        if needed <= 0:
            break
        if _allowed(state, record, some, chosen, spare):
            needed -= 1
            chosen.update({victim.job_id: victim for victim in some})
    return list(chosen.values()) if needed <= 0 and chosen else None


def _allowed(
    state: State, record: JobRecord, some: list[Victim], chosen: dict[str, Victim], spare: dict[str, int]
) -> bool:
    """Whether these victims, on top of those chosen, leave every victim's queue its quota."""
    taken: dict[str, int] = {}
    for victim in some:
        other = state.jobs[victim.job_id]
        if victim.job_id not in chosen and other.job.queue != record.job.queue:
            taken[other.job.queue] = taken.get(other.job.queue, 0) + other.held_milli
    for name, milli in taken.items():
        queue = state.queues[name]
        left = spare.get(name, queue.used_milli - queue.queue.quota_milli)
        if left < milli:
            return False
    for name, milli in taken.items():
        queue = state.queues[name]
        spare[name] = spare.get(name, queue.used_milli - queue.queue.quota_milli) - milli
    return True
