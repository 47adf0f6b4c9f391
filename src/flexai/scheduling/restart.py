"""What ran before a restart: grants that exist are truth, and are booked when their nodes are back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import Hold
from flexai.model import JobState, MemberState, Residence
from flexai.policy.advance import Advance
from flexai.scheduling import booking, due, parking, placing, returning
from flexai.scheduling.events import AdvanceTold, GrantsFound, MemberParked, MemberWoken, PlaceBooked
from flexai.scheduling.jobs import new_record
from flexai.scheduling.places import Booking

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flexai.cluster import Shape
    from flexai.model import Grant
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def told(state: State, event: GrantsFound | PlaceBooked | AdvanceTold) -> None:
    """What a pool that was started again knows of before."""
    if isinstance(event, GrantsFound):
        _found(state, event)
    elif isinstance(event, AdvanceTold):
        known = Advance(event.share_milli, state.now_ms, 0, event.owed, event.most_saved)
        state.advances.setdefault((event.queue, event.resource), known)
    else:
        _place_told(state, event)


def _found(state: State, event: GrantsFound) -> None:
    """Grants that exist after a restart; booked when all their nodes are back."""
    job = event.job
    if job.id in state.jobs:
        return
    record = new_record(state, job)
    for index in (index for index in event.evicted if 0 <= index < len(record.members)):
        record.members[index].evicting = record.members[index].requeue = True
    for index, residence in event.away:
        if 0 <= index < len(record.members):
            record.members[index].residence = residence
    for index, claimant in event.claimed:
        state.claims[claimant] = (*state.claims.get(claimant, ()), (job.id, index))
    waiting = {*event.waiting}
    for index, member in enumerate(record.members):
        member.state = MemberState.WAITING if index in waiting else MemberState.FINISHED
    record.state, record.started_at_ms = JobState.RUNNING, state.now_ms
    state.note_running(record, runs=True)
    if is_back(state, event):
        take_found(state, record, event)
    else:
        state.found[job.id] = event
        for node in {grant.node: None for grant in event.grants} | {node: None for _, node in event.hosts}:
            state.found_on.setdefault(node, {})[job.id] = None


def _place_told(state: State, event: PlaceBooked) -> None:
    """A place was booked for a job before a restart: it is again, when all its nodes are back."""
    record = state.jobs.get(event.job_id)
    if record is not None and not record.is_placed:
        state.places_told[event.job_id] = event
        state.claims[event.job_id] = event.claimed


def places_back(state: State) -> dict[str, Booking]:
    """Places that were told, and of which all nodes and cards are back."""
    out: dict[str, Booking] = {}
    for job_id, event in list(state.places_told.items()):
        record = state.jobs.get(job_id)
        if record is None or record.is_placed:
            del state.places_told[job_id]
        elif is_back(state, event):
            del state.places_told[job_id]
            place = {index: hold for index, (hold, _) in _told_of(state, record, event).items()}
            if booking.is_whole(record, place):
                out[job_id] = Booking(record.need, place)
                state.noted[job_id] = place, state.claims[job_id]
    return out


def is_back(state: State, event: GrantsFound | PlaceBooked) -> bool:
    """Whether all that was found has its nodes and cards again."""
    row_of, place_of = state.books.row_of, state.books.place_of
    grants = (*event.grants, *event.left) if isinstance(event, GrantsFound) else event.grants
    return all(grant.node in row_of and grant.device in place_of for grant in grants) and all(
        node in row_of for _, node in event.hosts
    )


def arrived(state: State, event: MemberParked | MemberWoken) -> None:
    """A member of a job whose nodes are not all back has arrived where it was moving to, or stays where it was."""
    found, leaves = state.found.get(event.job_id), isinstance(event, MemberParked)
    if found is None or not 0 <= event.member < len(state.jobs[event.job_id].members):
        return
    member = state.jobs[event.job_id].members[event.member]
    if member.residence is not (Residence.LEAVING if leaves else Residence.RETURNING):
        return
    is_away = leaves is not bool(event.refused)
    member.residence = Residence.IN_HOST if is_away else Residence.ON_CARD
    left = [grant for grant in found.left if grant.member == event.member]
    if is_away and left:
        kept = (grant for grant in found.grants if grant.member != event.member)
        found = replace(found, grants=(*kept, *left))
    if leaves and event.refused:
        found = replace(found, kept_away=False)
    elif leaves and any(index == event.member for index, _ in found.claimed):
        found = replace(found, away_at_ms=state.now_ms)
    others = tuple(grant for grant in found.left if grant.member != event.member)
    state.found[event.job_id] = replace(found, left=others)


def take_found(state: State, record: JobRecord, event: GrantsFound) -> None:
    """Book grants that exist: they are truth, even on a card that is cordoned."""
    due.note_large(state, record)
    left, booked = _holds(state, record, event.left), dict(event.host_bytes)
    for index, (was_given, held) in _told_of(state, record, event).items():
        member, shape, hold = record.members[index], record.shape_of(index), was_given
        if member.residence is not Residence.ON_CARD:
            member.home, member.left, member.moved_at_ms = hold, left.get(index), state.now_ms
            member.host_bytes = booked.get(index, sum(hold.memory_bytes))
            is_away = member.residence is Residence.IN_HOST
            hold = (parking.in_host if is_away else parking.beside_host)(hold, member.host_bytes)
        state.books.take(hold)
        if held and shape.compute_milli and not held[0].compute_milli:
            member.lent = True
            state.lent[record.job.id, index] = None
        state.hold(record, member, hold)
        member.state, member.grants = MemberState.RUNNING, tuple(held)
        if member.evicting or member.residence is Residence.LEAVING:
            state.stopping[record.job.id, index] = None
    if record.is_away and not record.cancelled and not any(member.evicting for member in record.members):
        record.kept_away = event.kept_away
        leaving_for = (who for index, who in event.claimed if record.members[index].residence is Residence.LEAVING)
        record.parked_for = next(leaving_for, "")
        record.state, record.away_at_ms = JobState.PARKED, state.now_ms
        if event.away_at_ms >= 0:
            record.wakes_from_ms = event.away_at_ms + state.settings.park_least_ms
        state.note_parked(record, parked=returning.is_settled(record) and not record.kept_away)
        return
    state.run_times.started(record.burst, record.job.id, state.now_ms)
    if record.n_to_start and record.is_placed:
        state.wait(record)
    if event.kept_away and not parking.obstacle(state, record):
        record.kept_away = True
        parking.park_job(state, record, "its user asked")


def _told_of(state: State, record: JobRecord, event: GrantsFound | PlaceBooked) -> dict[int, tuple[Hold, list[Grant]]]:
    """What members hold, or are to hold, as it was told, in the order of the members."""
    by_member = _by_member(event.grants)
    hosts, out = dict(event.hosts), {}
    for index in range(len(record.members)):
        held, shape = by_member.get(index, []), record.shape_of(index)
        if held:
            out[index] = _hold_of(state, shape, held), held
        elif index in hosts:
            out[index] = Hold(state.books.row_of[hosts[index]], (), 0, (), shape.cpu_milli, shape.ram_bytes), held
    return out


def _by_member(grants: Iterable[Grant]) -> dict[int, list[Grant]]:
    by_member: dict[int, list[Grant]] = {}
    for grant in grants:
        by_member.setdefault(grant.member, []).append(grant)
    return by_member


def _holds(state: State, record: JobRecord, grants: Iterable[Grant]) -> dict[int, Hold]:
    return {index: _hold_of(state, record.shape_of(index), held) for index, held in _by_member(grants).items()}


def _hold_of(state: State, shape: Shape, held: list[Grant]) -> Hold:
    places = [state.books.place_of[grant.device] for grant in held]
    return placing.hold_of(
        places, held[0].compute_milli, tuple(grant.memory_bytes for grant in held), shape.cpu_milli,
        shape.ram_bytes, tuple(shape.profile.places(grant.partition_start) for grant in held)
        if shape.profile is not None and all(grant.partition_start >= 0 for grant in held) else (),
    )  # fmt: skip
