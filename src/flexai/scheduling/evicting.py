"""Evictions: for a queue's entitlement across queues (reclaim), for priority inside a queue (preempt), on command.

A queue that holds less than it is entitled to (its quota; its fair share with ``reclaim="fair_share"``) may take back
from queues that hold more than theirs, never leaving a victim's queue below its own: the claimant is then at most at
its entitlement and the victim at least at its, so the two can never take turns. The same holds for the queues above
both, up to the first that they share. Inside a queue a job may evict jobs of lower priority. Only preemptible jobs that
have run their minimum run time are victims; they end gracefully and keep their place. An elastic job first gives up the
members beyond its ``min_member`` and goes on. What is freed is reserved for the claimant.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from flexai.cluster import ALL_CARDS
from flexai.model import JobState, TenantClass
from flexai.policy.roles import fits
from flexai.scheduling import booking, entitlement, parking
from flexai.scheduling.choosing import choose, is_lent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.policy.victims import Victim
    from flexai.scheduling.entitlement import Standing
    from flexai.scheduling.records import JobRecord, Line
    from flexai.scheduling.state import State

STEPS = 20_000
"""Search budget of a step that brings none: nodes looked at for victims."""
NOBODY: Mapping[str, str] = MappingProxyType({})


def run(state: State, lines: list[Line], steps: int) -> int:
    """Evict for whoever of these is owed most, one claimant at a time; answers what is left of the budget.

    ``steps`` are nodes that may be looked at for victims.
    """
    if not state.settings.preempt or not lines or not state.running:
        return steps
    lines = [line for line in lines if line.key.shape.n_devices and not line.head.is_placed]
    if not lines:
        return steps
    standing = entitlement.standing_of(state)
    lines = [line for line in lines if _may_claim(state, line.head, standing)]
    lines.sort(key=lambda line: (entitlement.need_rank(state, {}, line.key)[0], -line.key.priority, line.head.job.seq))
    for line in lines:
        for record in list(line.jobs):
            if record.job.id in state.booked:
                continue
            if entitlement.is_claiming(state, record) or not _may_claim(state, record, standing):
                break
            if not _fits_later(state, record, standing):
                chosen, looked_at = choose(state, record, standing, steps)
                steps -= looked_at
                if not chosen:
                    break
                parks = parking.to_park(state, record, chosen)
                evict_for(state, record, chosen, _verb(state, record, chosen), parks)
            standing = entitlement.standing_of(state)
            if steps <= 0:
                return 0
        if steps <= 0:
            return 0
    return steps


def _fits_later(state: State, record: JobRecord, standing: Standing) -> bool:
    """Whether what is being stopped anyway leaves room for a job that is owed it: that is booked, and nobody goes."""
    if not state.stopping or fits(state.books, record.need) or not _is_owed(state, record, standing):
        return False
    return fits(booking.later(state), record.need) and booking.book(state, record)


def evict_for(
    state: State, record: JobRecord, chosen: Sequence[Victim], verb: str, parks: Mapping[str, str] = NOBODY
) -> None:
    """Evict victims for a job, or park those named in ``parks`` (and why), and keep what they leave for it."""
    cause = f"{verb} for job {record.job.id} of queue {record.job.queue}"
    jobs = {victim.job_id for victim in chosen if not victim.members}
    claimed: list[tuple[str, int]] = []
    for victim in chosen:
        other = state.jobs[victim.job_id]
        members = victim.members or range(len(other.members))
        held = [(victim.job_id, index) for index in members if other.members[index].hold is not None]
        claimed += [key for key in held if key not in state.stopping]
        if victim.job_id in parks:
            parking.park_job(state, other, f"{cause}; {parks[victim.job_id]}", record.job.id)
        elif not victim.members:
            evict_job(state, other, cause, record.job.id)
        elif victim.job_id not in jobs:
            shrink_job(state, other, victim.members, cause, record.job.id)
    state.claims[record.job.id] = tuple(claimed)
    state.big[record.job.id] = None
    state.reservation = None
    booking.book(state, record, claimed)


def evict_job(state: State, record: JobRecord, cause: str, claimant: str = "") -> None:
    """Stop all members; the job keeps its place in the queue."""
    _stop(state, record, cause, requeue=True, claimant=claimant)


def stop_rest(state: State, record: JobRecord, cause: str) -> None:
    """Stop the members that still run, for good."""
    _stop(state, record, cause, requeue=False)


def shrink_job(state: State, record: JobRecord, members: Iterable[int], cause: str, claimant: str) -> None:
    """Stop some members of an elastic job; it goes on with the others, and they wait to join it again."""
    for index in members:
        _stop_member(state, record, index, f"shrunk: {cause}", requeue=True, claimant=claimant)


def _stop(state: State, record: JobRecord, cause: str, *, requeue: bool, claimant: str = "") -> None:
    state.leave(record)
    state.note_parked(record, parked=False)
    for index in range(len(record.members)):
        _stop_member(state, record, index, cause, requeue=requeue, claimant=claimant)
    record.stops_at_ms = state.now_ms + state.grace_ms(record.job)
    state.set_state(record, JobState.STOPPING, cause)


def _stop_member(
    state: State, record: JobRecord, index: int, cause: str, *, requeue: bool, claimant: str = ""
) -> None:  # fmt: skip
    member = record.members[index]
    if member.hold is not None and not member.evicting:
        state.stop(record, index, cause, requeue=requeue, claimant=claimant)


def _verb(state: State, record: JobRecord, chosen: Sequence[Victim]) -> str:
    if all(is_lent(state.jobs[victim.job_id]) for victim in chosen):
        return "taken back"
    return "preempted" if all(_is_own(state, record, victim) for victim in chosen) else "reclaimed"


def _is_own(state: State, record: JobRecord, victim: Victim) -> bool:
    return state.jobs[victim.job_id].job.queue == record.job.queue


def _may_claim(state: State, record: JobRecord, standing: Standing) -> bool:
    """Whether a job may have others stopped: it has waited long enough, no limit is in its way, and something is owed.

    Claimants count against limits as if they ran. A claimant itself may, for the sake of those like it behind it.
    """
    job = record.job
    if state.now_ms - job.submitted_at_ms < state.settings.preempt_delay_ms or job.queue not in state.queues:
        return False
    may_take_back = bool(state.lent) and job.request.tenant_class is not TenantClass.BEST_EFFORT
    if not (may_take_back or _is_owed(state, record, standing)):  # of most jobs this says no, and costs least
        return False
    if job.id not in state.booked:
        path = state.queues.path(job.queue)
        coming = max(standing.coming.get((each.queue.name, ALL_CARDS), 0) for each in path)
        mine = [state.jobs[name] for name in state.booked if name in state.jobs]
        own = sum(one.needed_milli for one in mine if (one.job.queue, one.job.user) == (job.queue, job.user))
        if state.queues.over_limit(job.queue, record.needed_milli + coming) is not None:
            return False
        if state.queues.over_user_limit(job.queue, job.user, record.needed_milli + own):
            return False
    return True


def _is_owed(state: State, record: JobRecord, standing: Standing) -> bool:
    """Whether its priority or what its queue is entitled to may let it have a place that others hold."""
    least = min(state.evictable.get(record.job.queue, ()), default=2**31)
    return record.job.priority > least or entitlement.is_entitled(state, record, standing)
