"""What becomes of members: they start and end, and with them their jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.model import JobState, MemberState, Residence
from flexai.scheduling import evicting
from flexai.scheduling.records import cost_class

if TYPE_CHECKING:
    from flexai.model import Role
    from flexai.scheduling.events import MemberFinished, MemberStarted
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def started(state: State, event: MemberStarted) -> None:
    """A member's process runs."""
    record = state.jobs.get(event.job_id)
    if record is None or not 0 <= event.member < len(record.members):
        return
    member = record.members[event.member]
    if member.hold is None or member.evicting or member.residence is not Residence.ON_CARD:
        return
    if member.state is MemberState.STARTING:
        member.held_bytes = -1
        state.move_costs.started(*cost_class(record), state.now_ms - member.started_at_ms)
    member.state = MemberState.RUNNING
    if all(each.state is not MemberState.STARTING for each in record.members):
        state.set_state(record, JobState.RUNNING, "started")


def finished(state: State, event: MemberFinished) -> None:
    """A member's processes are gone: what it held is free, and the job goes on, waits again or ends."""
    record = state.jobs.get(event.job_id)
    if record is None or not 0 <= event.member < len(record.members):
        return
    member = record.members[event.member]
    if member.hold is None and not _forget_found(state, event):
        return
    state.free(record, member)
    requeued = member.evicting and member.requeue and event.exit_code != 0 and not record.cancelled
    if requeued:
        state.move_costs.stopped(*cost_class(record), state.now_ms - member.stopped_at_ms)
    member.evicting, member.requeue = False, False
    member.state = MemberState.WAITING if requeued else MemberState.FINISHED
    member.failed = not requeued and event.exit_code != 0
    if not requeued and event.exit_code and not record.exit_code:
        record.exit_code, record.cause = event.exit_code, event.cause
    if record.is_placed or event.job_id in state.found:
        _one_less(state, record, failed=not requeued and event.exit_code != 0)
        return
    state.note_running(record, runs=False)
    if any(each.state is MemberState.WAITING for each in record.members) and not record.cancelled:
        if requeued or not record.exit_code:
            _requeue(state, record, evicted=requeued)
            return
        state.leave(record)  # an elastic job whose members failed grows no more
    ran_ms = record.ran_ms(state.now_ms)
    if record.exit_code == 0 and not record.cancelled:
        state.run_times.finished(record.burst, record.job.id, ran_ms)
        end(state, record, JobState.SUCCEEDED, event.cause or "exited", known=False)
    elif record.cancelled:
        end(state, record, JobState.CANCELLED, event.cause or "cancelled")
    else:
        state.run_times.finished(record.burst, record.job.id, ran_ms)
        end(state, record, JobState.FAILED, record.cause or event.cause, known=False)


def _one_less(state: State, record: JobRecord, *, failed: bool) -> None:
    """A member is gone, others are there: too few of them are stopped; else the job goes on, and may grow again."""
    stops = record.state is JobState.STOPPING
    if failed and not stops and (short := _short_of(record)) is not None:
        evicting.stop_rest(state, record, f"another member failed; it needs {_told(short)} together")
    elif not stops and record.state not in (JobState.HELD, JobState.PARKED) and not record.cancelled:
        state.leave(record)
        if record.n_to_start:
            state.wait(record)


def _short_of(record: JobRecord) -> Role | None:
    """A role of which fewer members are left than the job needs; one that is being stopped is as good as gone."""
    for index, role in enumerate(record.job.parts):
        n_left = sum(
            (member.hold is not None and not member.evicting)
            or (member.state is MemberState.FINISHED and not member.failed)
            for member in record.members_of(index)
        )
        if n_left < role.min_member:
            return role
    return None


def _told(role: Role) -> str:
    return f"{role.min_member} of role {role.name}" if role.name else f"{role.min_member}"


def _requeue(state: State, record: JobRecord, *, evicted: bool) -> None:
    """Nothing of the job runs, and it is not over: evicted, roles start again as a whole, elastic ones their rest."""
    state.leave(record)
    state.run_times.stopped(record.burst, record.job.id)
    record.n_evictions += evicted
    record.exit_code, record.cause, record.started_at_ms, record.away_at_ms = 0, "", -1, -1
    for index, role in enumerate(record.job.parts if evicted else ()):
        if not role.is_elastic:
            for member in record.members_of(index):
                member.state = MemberState.WAITING
    cause = "evicted; keeps its place in the queue" if evicted else "the rest of its members wait"
    state.set_state(record, JobState.QUEUED, cause)
    state.wait(record)
    state.mark_big(record)


def end(state: State, record: JobRecord, final: JobState, cause: str, *, known: bool = True) -> None:
    """Nothing more happens to the job; those that waited for it go on or end with it."""
    job_id = record.job.id
    if known:
        state.run_times.forget(record.burst, job_id)
    del state.jobs[job_id]
    state.claims.pop(job_id, None)
    if state.reservation is not None and state.reservation.job_id == job_id:
        state.reservation = None
        state.ready.update(state.deferred)
        state.deferred.clear()
    state.set_state(record, final, cause)
    succeeded = final is JobState.SUCCEEDED
    state.ended[job_id] = succeeded
    for name in state.dependants.pop(job_id, ()):
        waiting = state.jobs.get(name)
        if waiting is None or job_id not in waiting.waits_on:
            continue
        if not succeeded:
            end(state, waiting, JobState.CANCELLED, f"job {job_id} did not succeed")
            continue
        waiting.waits_on.discard(job_id)
        if not waiting.waits_on and waiting.state is JobState.QUEUED:
            state.wait(waiting)
            state.mark_big(waiting)


def _forget_found(state: State, event: MemberFinished) -> bool:
    """A member found after a restart ended before its node came back; whether it was one of those."""
    known = state.found.get(event.job_id)
    if known is None or event.member not in known.members:
        return False
    left = replace(
        known,
        grants=tuple(grant for grant in known.grants if grant.member != event.member),
        hosts=tuple((member, node) for member, node in known.hosts if member != event.member),
    )
    if left.members:
        state.found[event.job_id] = left
    else:
        del state.found[event.job_id]
    return True
