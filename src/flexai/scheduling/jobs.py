"""What users ask: jobs are submitted, held, released, parked, woken and given up (``resizing`` for the rest)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.model import JobState, Residence
from flexai.scheduling import members, parking, returning
from flexai.scheduling.records import JobRecord, MemberRecord

if TYPE_CHECKING:
    from flexai.model import Job, Role
    from flexai.scheduling.events import ParkAsked
    from flexai.scheduling.state import State


def submit(state: State, job: Job) -> None:
    """A job was acknowledged: it waits, is held, or ends at once with a job it needed."""
    if job.id in state.jobs or job.id in state.ended:
        return
    record = new_record(state, job)
    roles: tuple[Role | Job, ...] = job.roles or (job,)
    for role, shape in zip(roles, record.shapes, strict=True):
        state.mix.add(shape, role.n_members)
    failed = [name for name in job.after if state.ended.get(name) is False]
    record.waits_on = {name for name in job.after if name not in state.ended}
    for name in record.waits_on:
        state.dependants.setdefault(name, []).append(job.id)
    if failed:
        members.end(state, record, JobState.CANCELLED, f"job {failed[0]} did not succeed")
    elif job.held:
        record.state = JobState.HELD
    elif not record.waits_on:
        state.wait(record)
        state.mark_big(record)


def new_record(state: State, job: Job) -> JobRecord:
    """The record of a job that is not known yet."""
    burst = state.run_times.submitted(f"{job.queue}/{job.user}", job.n_cards, state.now_ms)
    members = [MemberRecord() for _ in range(job.n_members)]
    record = state.jobs[job.id] = JobRecord(job, state.shapes_of(job), burst, JobState.QUEUED, members)
    return record


def hold(state: State, job_id: str, *, held: bool) -> None:
    """Its user holds a job or lets it go on."""
    record = state.jobs.get(job_id)
    if record is None or record.is_placed or (record.state is JobState.HELD) == held:
        return
    if held and not record.waits_on:
        state.leave(record)
    record.job = replace(record.job, held=held)
    state.set_state(record, JobState.HELD if held else JobState.QUEUED, "its user asked")
    if not held and not record.waits_on:
        state.wait(record)
        state.mark_big(record)


def cancel(state: State, job_id: str) -> None:
    """Its user gave a job up, wherever it stands."""
    record = state.jobs.get(job_id)
    if record is None or record.cancelled:
        return
    record.cancelled = True
    if job_id in state.found:  # its processes may live on a node that is not back yet
        for index in sorted(state.found[job_id].members):
            state.stop(record, index, "cancelled", requeue=False)
        state.set_state(record, JobState.STOPPING, "cancelled")
        return
    if not record.is_placed:
        state.leave(record)
        members.end(state, record, JobState.CANCELLED, "cancelled")
        return
    state.leave(record)
    state.note_parked(record, parked=False)
    for index, member in enumerate(record.members):
        if member.hold is not None:
            state.stop(record, index, "cancelled", requeue=False)
    state.set_state(record, JobState.STOPPING, "cancelled")


def why_not_park(state: State, job_id: str) -> str:
    """Why its user cannot have a job moved to host memory, or kept there, as the end of a sentence; empty if he can."""
    record = state.jobs.get(job_id)
    if record is None:
        return "is not known"
    if job_id in state.found:
        return "is on a node that has not come back yet"
    if record.state is not JobState.PARKED:
        return parking.obstacle(state, record)
    back = {Residence.RETURNING, Residence.ON_CARD}
    returns = any(member.hold is not None and member.residence in back for member in record.members)
    return "is being moved back to its card" if returns else ""


def park(state: State, event: ParkAsked) -> None:
    """Its user wants a job in host memory until further notice, or back: then it comes when there is room for it."""
    if found := state.found.get(event.job_id):  # asked just before the pool was started again
        state.found[event.job_id] = replace(found, kept_away=event.parked)
        return
    record = state.jobs.get(event.job_id)
    if record is None or record.kept_away is event.parked or (event.parked and why_not_park(state, event.job_id)):
        return
    record.kept_away = event.parked
    if event.parked and record.state is not JobState.PARKED:
        parking.park_job(state, record, "its user asked")
    else:
        state.note_parked(record, parked=not event.parked and returning.is_settled(record))


def age(state: State) -> None:
    """A job that has waited very long gets a reservation, whatever its size."""
    for line in state.lines.values():
        head = line.head
        if state.now_ms - head.job.submitted_at_ms >= state.settings.reserve_after_ms:
            state.big.setdefault(head.job.id, None)
    if state.deferred or state.big:
        state.ready.update(state.deferred)
        state.deferred.clear()
        state.reservation = None
