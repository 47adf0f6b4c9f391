"""Booked places: what others are stopped for goes to the job that they are stopped for, and to no other.

When members are stopped for a job, the place that it will find once they are gone is chosen at once, beside the places
booked before it: so no two claimants ever hold halves of each other's. What is free of a place is held in the books,
and the rest as soon as it is vacated, before anything else is placed (``placing``). A booking ends when its job starts,
there or sooner elsewhere, when the job goes, or when nothing that is still being stopped could complete its place.
Places are chosen anew whenever nodes or cards come, change or go.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from flexai.cluster import Plan
from flexai.policy.gang import Need
from flexai.policy.roles import fits
from flexai.scheduling import entitlement, parking, returning
from flexai.scheduling.commands import Book
from flexai.scheduling.gangs import place_members
from flexai.scheduling.places import Booking

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from flexai.cluster import Books, Hold
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

    MemberKey = tuple[str, int]


MOST_ORDERS = 8
"""In so many orders it is tried to give every claimant a place again, after a restart."""


def book(state: State, record: JobRecord, claimed: Iterable[MemberKey] = ()) -> bool:
    """Book the place that a job will have once those stopped for it are gone; False if there is none.

    ``claimed`` are the members stopped for it. Without any it waits for those that are being stopped anyway, as far as
    they stand on the nodes of its place.
    """
    keys = tuple(key for key in claimed if key in state.stopping)
    plan, gained = Plan(state.books), set(state.books.gained)
    for hold in _leaving(state, keys or state.stopping):
        plan.give(hold)
    if not keys:  # what claimants wait for is among what is given
        for other in state.booked.values():
            other.move_in(plan)
    placed = place_members(state, record, plan)
    plan.undo()
    state.books.gained.intersection_update(gained)  # nobody gained by the trial
    if placed is None:
        return False
    _enter(state, record, _least(record, placed), keys)
    return True


def _enter(state: State, record: JobRecord, place: dict[int, Hold], keys: tuple[MemberKey, ...]) -> None:
    """A place is a job's from now on: what is free of it is kept."""
    booking = Booking(record.need, place)
    if not keys:
        held = {key: state.jobs[key[0]].members[key[1]].hold for key in state.stopping}
        keys = tuple(key for key, hold in held.items() if hold is not None and hold.row in booking.rows)
    state.claims[record.job.id] = keys
    state.booked[record.job.id] = booking
    booking.keep(state.books)
    state.reservation = None


def _book_again(state: State, record: JobRecord, before: Booking | None, claimed: tuple[MemberKey, ...]) -> bool:
    """Book for a claimant what it had ``before``, if that may be had; else another place; False if there is none."""
    if before is not None and before.need == record.need and _can_have(state, before.place):
        _enter(state, record, before.place, claimed)
        return True
    return not any(key in state.stopping for key in claimed) or book(state, record, claimed)


def _can_have(state: State, place: Mapping[int, Hold]) -> bool:
    """Whether a job could have a place once all who are being stopped are gone, beside all places booked so far."""
    plan, gained = Plan(state.books), set(state.books.gained)
    for hold in _leaving(state, state.stopping):
        plan.give(hold)
    for other in state.booked.values():
        other.move_in(plan)
    able = _is_free(state.books, place)
    plan.undo()
    state.books.gained.intersection_update(gained)  # nobody gained by the trial
    return able


def _is_free(books: Books, place: Mapping[int, Hold]) -> bool:
    """Whether members could have just these places now."""
    trial = Booking(Need(()), dict(place))
    cards = all(
        books.free_milli.item(at) >= milli and books.free_memory.item(at) >= n_bytes and not books.cut.item(at) & cut
        for at, (milli, n_bytes, cut) in trial.lacks.items()
    )
    return cards and all(
        books.cpu_milli.item(row) >= cpu_milli and books.ram_bytes.item(row) >= ram_bytes
        for row, (cpu_milli, ram_bytes) in trial.host_lacks.items()
    )


def _least(record: JobRecord, placed: Mapping[int, Hold]) -> dict[int, Hold]:
    """Of the members placed those that must start together: nothing is kept idle for more."""
    out: dict[int, Hold] = {}
    for each in record.needed_roles():
        numbers = [number for number in each.numbers if number in placed][: each.together.n_members]
        out |= {number: placed[number] for number in numbers}
    return out


def is_whole(record: JobRecord, place: Mapping[int, Hold]) -> bool:
    """Whether a place is one for just the members of a job that must start together."""
    needed = record.needed_roles()
    n_placed = [sum(number in place for number in each.numbers) for each in needed]
    return n_placed == [each.together.n_members for each in needed] and sum(n_placed) == len(place)


def _leaving(state: State, keys: Iterable[MemberKey]) -> Iterator[Hold]:
    """What will be free once these, which are being stopped or parked, are gone."""
    for job_id, index in keys:
        hold = parking.leaves(state.jobs[job_id].members[index])
        if hold is not None:
            yield hold


def later(state: State) -> Books:
    """The books as they will be then, with every claimant in its place."""
    twin = state.books.copy()
    for hold in _leaving(state, state.stopping):
        twin.give(hold)
    for booking in state.booked.values():
        booking.move_in(twin)
    return twin


def drop(state: State, job_id: str) -> None:
    """A booking is over: what was kept for it is free."""
    booking = state.booked.pop(job_id, None)
    if booking is not None:
        for hold in booking.kept:
            state.books.give(hold)
        state.reservation = None


def first_like(state: State, record: JobRecord) -> JobRecord:
    """The claimant that is served with a job's place: of those in its line, which are all alike, the first."""
    line = state.lines[record.line] if record.line is not None else None
    first = next((one for one in line.jobs if one.job.id in state.booked), record) if line is not None else record
    mine, its = record.job.id, first.job.id
    if mine != its:
        state.booked[mine], state.booked[its] = state.booked[its], state.booked[mine]
        state.claims[mine], state.claims[its] = state.claims[its], state.claims[mine]
        for one in (record, first):
            booking = state.booked[one.job.id]
            numbers = [number for each in one.needed_roles() for number in each.numbers[: each.together.n_members]]
            booking.place = dict(zip(numbers, booking.place.values(), strict=True))
    return first


def take(state: State, record: JobRecord) -> dict[int, Hold]:
    """Its place, all of which was kept for it, and is held by its members from now on."""
    booking = state.booked[record.job.id]
    returning.let_go(state, booking.kept)
    booking.kept = []
    for hold in booking.place.values():
        state.books.take(hold)
    return booking.place


def drop_all(state: State) -> dict[str, Booking]:
    """Something about nodes, cards or what is held there is told: ``renew`` books again after it."""
    before = dict(state.booked)
    for job_id in before:
        drop(state, job_id)
    return before


def renew(state: State, before: Mapping[str, Booking]) -> None:
    """Book again for every claimant: what it had ``before``, where that may be had, or else anything that will do.

    One may then take what another needs more: so it is tried in several orders, until all have a place. Whoever had one
    on nodes that are not back yet waits for them.
    """
    claimants = [
        record
        for record in (state.jobs.get(job_id) for job_id in state.claims)
        if record is not None
        and record.job.id not in state.places_told
        and _waits(record)
        and (record.job.id in before or entitlement.is_claiming(state, record))
    ]
    claimed = {record.job.id: state.claims[record.job.id] for record in claimants}
    left = [record for record in claimants if record.job.id not in before]
    left.sort(key=lambda record: -record.needed_milli)
    known = [record for record in claimants if record.job.id in before]
    known.sort(key=lambda record: list(before).index(record.job.id))
    for turn in range(max(1, min(len(left), MOST_ORDERS))):
        order = [*known, *left[turn:], *left[:turn]]
        done = [
            _book_again(state, record, before.get(each), claimed[each]) for record in order for each in [record.job.id]
        ]
        if all(done):
            return
        if turn + 1 < min(len(left), MOST_ORDERS):
            drop_all(state)
    state.big.update((record.job.id, None) for record in claimants if record.job.id not in state.booked)


def note(state: State) -> None:
    """Say which places are booked now that were not, or were others; a job that starts needs none any more."""
    for job_id in [name for name in state.noted if name not in state.booked]:
        del state.noted[job_id]
        record = state.jobs.get(job_id)
        if record is not None and not record.is_placed:
            state.out.append(Book(job_id))
    for job_id, booking in state.booked.items():
        now, before = (booking.place, state.claims[job_id]), state.noted.get(job_id)
        if before is None or any(one is not other and one != other for one, other in zip(now, before, strict=True)):
            state.noted[job_id] = now
            record = state.jobs[job_id]
            grants = tuple(g for number, hold in now[0].items() for g in state.grants_of(record, number, hold))
            hosts = tuple((n, state.books.names[hold.row]) for n, hold in now[0].items() if not hold.columns)
            state.out.append(Book(job_id, grants, hosts, now[1]))


def is_void(state: State, job_id: str) -> bool:
    """Whether nobody could make use of a booking any more."""
    record = state.jobs.get(job_id)
    return record is None or not _waits(record) or record.need != state.booked[job_id].need


def _waits(record: JobRecord) -> bool:
    return record.line is not None and not record.is_placed


def may_begin(state: State, record: JobRecord) -> bool:
    """Whether the limits of its queue and its user let the job have its place."""
    place = state.booked[record.job.id].place.values()
    return not entitlement.is_over_limit(state, record.job, record.needed_milli, place)


# -- what is said of them ---------------------------------------------------------------------------------------------


def unbooked(state: State) -> State:
    """The state as if nothing were kept for claimants, to be read only."""
    if not state.booked:
        return state
    bare = copy(state)
    bare.books = state.books.copy()
    for booking in state.booked.values():
        for hold in booking.kept:
            bare.books.give(hold)
    return bare


def kept_from(state: State, record: JobRecord) -> JobRecord | None:
    """The first claimant whose place keeps a job from starting that would fit else; None if none does."""
    others = [job_id for job_id in state.booked if job_id != record.job.id and job_id in state.jobs]
    if not others:
        return None
    twin = state.books.copy()
    own = state.booked.get(record.job.id)
    for hold in own.kept if own is not None else ():
        twin.give(hold)
    if fits(twin, record.need):
        return None
    for job_id in others:
        for hold in state.booked[job_id].kept:
            twin.give(hold)
        if fits(twin, record.need):
            return state.jobs[job_id]
    return None


def free_in_ms(state: State, claimant: JobRecord) -> int:
    """When the last of those that are stopped for a claimant will be gone at the latest."""
    ends = [
        record.members[index].stopped_at_ms + state.grace_ms(record.job) - state.now_ms
        for job_id, index in state.claims.get(claimant.job.id, ())
        if (job_id, index) in state.stopping
        for record in [state.jobs[job_id]]
    ]
    return max(0, *ends) if ends else 0
