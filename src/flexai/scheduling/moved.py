"""What becomes of those that were told to leave their cards, or to come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import JobState, Residence
from flexai.scheduling import evicting, parking, restart, returning
from flexai.scheduling.records import cost_class

if TYPE_CHECKING:
    from flexai.scheduling.events import MemberParked, MemberWoken
    from flexai.scheduling.records import JobRecord, MemberRecord
    from flexai.scheduling.state import State

FIRST_RETRY_MS = 5_000
"""A wake that was refused is tried again after so long, then after twice that each time."""
MOST_REFUSED = 6
"""A wake that was refused so often in a row is tried no more."""


def parked(state: State, event: MemberParked) -> None:
    """A member is in host memory, and its place free.

    Or it cannot be moved: then its job is stopped, if that was for another, or else goes on with all that had left.
    """
    found = _moving(state, event, Residence.LEAVING)
    if found is None:
        restart.arrived(state, event)
        return
    record, member = found
    if event.refused:
        _stays(state, record, member)
        if record.parked_for:
            record.cannot_park = True
            _stop(state, record, f"it could not be parked: {event.refused}")
            return
        if not member.evicting:
            state.stopping.pop((record.job.id, event.member), None)
        record.kept_away = False
        if record.is_away:
            _arrived(state, record)
        else:
            _goes_on(state, record, f"it could not be parked: {event.refused}")
        return
    assert member.home is not None
    state.move_costs.parked(*cost_class(record), state.now_ms - member.moved_at_ms)
    state.swap(record, member, parking.in_host(member.home, member.host_bytes))
    member.residence, state.reservation = Residence.IN_HOST, None
    if not member.evicting:
        state.stopping.pop((record.job.id, event.member), None)
    _arrived(state, record)


def _arrived(state: State, record: JobRecord) -> None:
    """One more member has arrived, or stays where it was; with the last, its job waits until it can come back."""
    if returning.is_settled(record):
        record.wakes_from_ms = state.now_ms + (parking.least_stay_ms(state, record) if record.parked_for else 0)
        state.note_parked(record, parked=not record.kept_away)


def woken(state: State, event: MemberWoken) -> None:
    """A member is back on its card, and works; or it cannot be, and waits in host memory to be tried again.

    After ``MOST_REFUSED`` times its job is stopped, to begin anew: what it had done is lost.
    """
    found = _moving(state, event, Residence.RETURNING)
    if found is None:
        restart.arrived(state, event)
        return
    record, member = found
    was_own = member.left is None
    if event.refused:
        assert member.home is not None
        member.residence, state.reservation, record.why_refused = Residence.IN_HOST, None, event.refused
        if member.left is not None:  # on other cards: from now on it waits for its own alone
            member.home, member.left, record.cannot_move = member.left, None, event.refused
            member.grants = state.grants_of(record, event.member, member.home)
        state.swap(record, member, parking.in_host(member.home, member.host_bytes))
    else:
        state.move_costs.woken(*cost_class(record), state.now_ms - member.moved_at_ms)
        _stays(state, record, member)
    if not record.is_away:
        _goes_on(state, record, "woken")
    elif returning.is_settled(record):
        _waits_again(state, record, is_counted=was_own)


def _waits_again(state: State, record: JobRecord, *, is_counted: bool) -> None:
    """Some members of a job could not be brought back: what it had done lives in host memory, so it is tried again.

    At once, and not counted, where it was tried on other cards than its own.
    """
    if not is_counted:
        record.wakes_from_ms = state.now_ms
        state.note_parked(record, parked=not record.kept_away)
        return
    record.n_refused_wakes += 1
    if record.n_refused_wakes > MOST_REFUSED:
        _stop(state, record, f"it could not be woken, tried {record.n_refused_wakes} times: {record.why_refused}")
        return
    record.wakes_from_ms = state.now_ms + (FIRST_RETRY_MS << record.n_refused_wakes - 1)
    state.note_parked(record, parked=not record.kept_away)


def _goes_on(state: State, record: JobRecord, cause: str) -> None:
    """All members of a job are on their cards again."""
    if record.state is not JobState.PARKED:
        return
    record.started_at_ms += state.now_ms - record.away_at_ms
    record.away_at_ms, record.woken_at_ms, record.n_refused_wakes, record.why_refused = -1, state.now_ms, 0, ""
    record.cannot_move = ""  # the next time it may be another card, and another reason
    state.run_times.started(record.burst, record.job.id, record.started_at_ms)
    state.set_state(record, JobState.RUNNING, cause)
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
    member.residence, member.home, member.left, state.reservation = Residence.ON_CARD, None, None, None


def _stop(state: State, record: JobRecord, cause: str) -> None:
    if record.state is JobState.PARKED:
        evicting.evict_job(state, record, cause)
