"""What becomes of those that were told to leave their cards, or to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import JobState, Residence
from flexai.scheduling import evicting, parking, returning
from flexai.scheduling.records import cost_class

if TYPE_CHECKING:
    from flexai.scheduling.events import MemberParked, MemberWoken
    from flexai.scheduling.records import JobRecord, MemberRecord
    from flexai.scheduling.state import State


def parked(state: State, event: MemberParked) -> None:
    """A member is in host memory, and its place free; or it cannot be moved, and its job is stopped instead."""
    found = _moving(state, event, Residence.LEAVING)
    if found is None:
        return
    record, member = found
    if event.refused:
        record.cannot_park = True
        _stays(state, record, member)
        _stop(state, record, f"it could not be parked: {event.refused}")
        return
    assert member.home is not None
    state.move_costs.parked(*cost_class(record), state.now_ms - member.moved_at_ms)
    state.swap(record, member, parking.in_host(member.home))
    member.residence, state.reservation = Residence.IN_HOST, None
    if not member.evicting:
        state.stopping.pop((record.job.id, event.member), None)
    if returning.is_settled(record):
        record.wakes_from_ms = state.now_ms + parking.least_stay_ms(state, record)
        state.note_parked(record, parked=True)


def woken(state: State, event: MemberWoken) -> None:
    """A member is back on its card, and works; or it cannot be, and its job is stopped: what it had done is lost."""
    found = _moving(state, event, Residence.RETURNING)
    if found is None:
        return
    record, member = found
    if event.refused:
        _stop(state, record, f"it could not be woken: {event.refused}")
        return
    state.move_costs.woken(*cost_class(record), state.now_ms - member.moved_at_ms)
    _stays(state, record, member)
    if record.is_away or record.state is not JobState.PARKED:
        return
    record.started_at_ms += state.now_ms - record.away_at_ms
    record.away_at_ms, record.woken_at_ms = -1, state.now_ms
    state.run_times.started(record.burst, record.job.id, record.started_at_ms)
    state.set_state(record, JobState.RUNNING, "woken")
    if record.n_to_start:
        state.wait(record)


def _moving(
    state: State, event: MemberParked | MemberWoken, residence: Residence
) -> tuple[JobRecord, MemberRecord] | None:
    """The member that an event is about, if it was told so."""
    record = state.jobs.get(event.job_id)
    if record is None or not 0 <= event.member < len(record.members):
        return None
    member = record.members[event.member]
    return (record, member) if member.hold is not None and member.residence is residence else None


def _stays(state: State, record: JobRecord, member: MemberRecord) -> None:
    """A member is on its card, and holds no host memory for that any more."""
    assert member.home is not None
    state.swap(record, member, member.home)
    member.residence, member.home, state.reservation = Residence.ON_CARD, None, None


def _stop(state: State, record: JobRecord, cause: str) -> None:
    if record.state is JobState.PARKED:
        evicting.evict_job(state, record, cause)
