"""Coming back of parked jobs: to which cards and when, and what is kept for them until they can."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import Hold
from flexai.model import JobState, Residence, TenantClass
from flexai.policy.gang import Together
from flexai.policy.reservation import NEVER_MS
from flexai.scheduling import entitlement
from flexai.scheduling.commands import Wake
from flexai.scheduling.parking import beside_host
from flexai.scheduling.predicting import ends_at, ends_ms
from flexai.scheduling.records import LineKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from flexai.cluster import Books
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

PREDICTED_FOR_MS = 10_000
"""When a parked job can likely come back is predicted again after so long."""

Place = tuple[int, int]
"""(row, column) of a card."""


def is_over_limit(state: State, record: JobRecord) -> bool:
    """Whether its queue, its user or a class of cards would be over a limit with the job back."""
    return entitlement.is_over_limit(state, record.job, record.home_milli, homes(record))


def homes(record: JobRecord) -> list[Hold]:
    """What the members of a job held on their cards before it was parked."""
    return [member.home for member in record.members if member.home is not None]


def wanted(record: JobRecord) -> dict[Place, tuple[int, int]]:
    """Compute and memory that a parked job needs back, by card."""
    out: dict[Place, tuple[int, int]] = {}
    for home in homes(record):
        for column, memory in zip(home.columns, home.memory_bytes, strict=True):
            milli, n_bytes = out.get((home.row, column), (0, 0))
            out[home.row, column] = milli + home.compute_milli, n_bytes + memory
    return out


def missing(state: State, record: JobRecord) -> dict[Place, tuple[int, int]]:
    """Compute and memory that its cards lack for it."""
    books = state.books
    out: dict[Place, tuple[int, int]] = {}
    for place, (milli, n_bytes) in wanted(record).items():
        lack_bytes = max(0, n_bytes - books.free_memory.item(place))
        if not is_open(state, place):
            out[place] = 0, lack_bytes
        elif milli > books.free_milli.item(place) or lack_bytes:
            out[place] = max(0, milli - books.free_milli.item(place)), lack_bytes
    return out


def back_on(state: State, record: JobRecord) -> list[Hold] | None:
    """What the members of a parked job would hold if it came back now; None if there is no room for all of them.

    Their own cards if they may have them; else, where that can be done, the fullest others of the same model and node
    that take them, which for several cards of one member are linked to each other if the old ones were.
    """
    own = homes(record)
    if not missing(state, record):
        return own
    if any(member.lent for member in record.members) or record.cannot_move:
        return None
    taken: dict[Place, tuple[int, int]] = {}
    out: list[Hold] = []
    for home in own:
        columns = _others_like(state, home, taken)
        if columns is None:
            return None
        out.append(replace(home, columns=columns))
        for column, memory in zip(columns, home.memory_bytes, strict=True):
            milli, n_bytes = taken.get((home.row, column), (0, 0))
            taken[home.row, column] = milli + home.compute_milli, n_bytes + memory
    return out


def can_move(state: State, record: JobRecord) -> bool:
    """Whether a parked job may come back to other cards than its own."""
    books, own = state.books, [(home.row, column) for home in homes(record) for column in home.columns]
    others = [place for place in books.moving if place not in own]
    return not record.cannot_move and all(
        place in books.moving and any(_is_like(books, place, other) for other in others) for place in own
    )


def _is_like(books: Books, place: Place, other: Place) -> bool:
    return place[0] == other[0] and books.model.item(place) == books.model.item(other)


def _others_like(state: State, home: Hold, taken: dict[Place, tuple[int, int]]) -> tuple[int, ...] | None:
    """Cards of the same node for one member, beside what others of its job take; None if too few have room."""
    if not home.columns:
        return ()
    books, row, most_bytes = state.books, home.row, max(home.memory_bytes)
    models = {books.model.item(row, column) for column in home.columns}
    if len(models) > 1 or any((row, column) not in books.moving for column in home.columns):
        return None
    n = int(books.n_columns[row])
    fits = (books.free_milli[row, :n] >= home.compute_milli) & (books.free_memory[row, :n] >= most_bytes)
    fits &= (books.model[row, :n] == models.pop()) & (books.cut[row, :n] == 0)
    able = []
    for column in fits.nonzero()[0].tolist():
        milli, n_bytes = taken.get((row, column), (0, 0))
        free_milli, free_bytes = (
            books.free_milli.item(row, column) - milli,
            books.free_memory.item(row, column) - n_bytes,
        )
        if free_milli >= home.compute_milli and free_bytes >= most_bytes and (row, column) in books.moving:
            able.append((free_milli, free_bytes, column))
    able.sort()
    wanted, linked = len(home.columns), {books.link_group.item(row, column) for column in home.columns}
    if wanted > 1 and len(linked) == 1 and min(linked) >= 0:
        groups: dict[int, list[tuple[int, int, int]]] = {}
        for each in able:
            groups.setdefault(books.link_group.item(row, each[2]), []).append(each)
        roomy = [some for group, some in groups.items() if group >= 0 and len(some) >= wanted]
        able = min(roomy, key=len, default=[])
    return tuple(sorted(column for _, _, column in able[:wanted])) if len(able) >= wanted else None


def is_open(state: State, place: Place) -> bool:
    """Whether work may come to a card."""
    row, column = place
    return state.books.is_open(state.books.uuids[row][column])


def is_settled(record: JobRecord) -> bool:
    """Whether a parked job is in host memory, as far as it left its cards, and nothing of it is being moved."""
    return (
        record.state is JobState.PARKED
        and record.is_away
        and not any(member.residence in {Residence.LEAVING, Residence.RETURNING} for member in record.members)
    )


def due(state: State, *, lent: bool = False) -> Iterator[JobRecord]:
    """Parked jobs that may come back now as far as they and their cards go; those on lent compute, or the others."""
    for job_id in list(state.parked):
        record = state.jobs[job_id]
        if state.now_ms < record.wakes_from_ms or not is_settled(record):
            continue
        if any(member.lent for member in record.members) is not lent or is_over_limit(state, record):
            continue
        if back_on(state, record) is not None:
            yield record


def key_of(record: JobRecord) -> LineKey:
    """Where a parked job stands among lines; equal to no line's key."""
    job = record.job
    roles = tuple((shape, role.n_members, Together(0)) for shape, role in zip(record.shapes, job.roles, strict=False))
    return LineKey(
        job.queue, job.user, record.shape, len(homes(record)), 0, job.priority, record.burst, "", "", roles=roles
    )


def wake_job(state: State, record: JobRecord) -> bool:
    """Command the wake of a job that is due, unless others took its place or a reservation minds."""
    to = None if is_over_limit(state, record) else back_on(state, record)
    if to is None:
        return False
    moving = [(index, member) for index, member in enumerate(record.members) if member.home is not None]
    back = [beside_host(home, member.host_bytes) for home, (_, member) in zip(to, moving, strict=True)]
    if state.reservation is not None:
        left_ms = state.run_times.remaining_ms(
            record.burst, record.ran_ms(state.now_ms), state.settings.backfill_quantile
        )
        if not state.reservation.lets_pass(back, state.now_ms + left_ms):
            return False
    took_ms = state.now_ms - record.away_at_ms
    where = "its place on the card is free" if to == homes(record) else "another card of its model has room for it"
    cause = f"woken after {took_ms / 1000:.1f} s in host memory: {where}"
    for (index, member), hold, home in zip(moving, back, to, strict=True):
        if state.reservation is not None and member.hold is not None:
            state.reservation.ended(member.hold)
        state.swap(record, member, hold)
        member.residence, member.moved_at_ms = Residence.RETURNING, state.now_ms
        if member.home != home:
            member.left, member.home, member.grants = member.home, home, state.grants_of(record, index, home)
        state.out.append(Wake(record.job.id, index, cause, () if member.left is None else member.grants))
    record.why_refused = ""
    state.note_parked(record, parked=False)
    return True


# -- what is kept for them --------------------------------------------------------------------------------------------


def keep(state: State, record: JobRecord) -> list[Hold]:
    """Take out of the books what is kept from a newer job for older parked ones of its queue; ``let_go`` gives it back.

    Of their cards, what is free now and they need: unless the job is likely over by the time that they can come back.
    """
    kept: list[Hold] = []
    over_ms = ends_ms(state, record)
    for job_id in state.parked:
        older = state.jobs[job_id]
        if not _comes_first(older, record) or over_ms <= comes_back_ms(state, older):
            continue
        for (row, column), (milli, n_bytes) in wanted(older).items():
            free_milli = max(0, state.books.free_milli.item(row, column))
            free_bytes = max(0, state.books.free_memory.item(row, column))
            kept.append(Hold(row, (column,), min(milli, free_milli), (min(n_bytes, free_bytes),), 0, 0))
            state.books.take(kept[-1])
    return kept


def let_go(state: State, kept: Iterable[Hold]) -> None:
    """Give back what was kept. Nobody gained by that: no line is tried again for it."""
    gained = state.books.gained
    for hold in kept:
        was_gained = hold.row in gained
        state.books.give(hold)
        if not was_gained:
            gained.discard(hold.row)


def first_kept_for(state: State, record: JobRecord) -> JobRecord | None:
    """The parked job for which a newer one is kept off cards; None if there is none."""
    for job_id in state.parked:
        older = state.jobs[job_id]
        if _comes_first(older, record) and ends_ms(state, record) > comes_back_ms(state, older):
            return older
    return None


def _comes_first(parked: JobRecord, record: JobRecord) -> bool:
    """Whether a parked job has the same standing as one that waits, or more, and was there before."""
    older, newer = parked.job, record.job
    if parked.state is not JobState.PARKED or older.queue != newer.queue:
        return False
    borrows = any(member.lent for member in parked.members)
    if borrows and newer.request.tenant_class is not TenantClass.BEST_EFFORT:
        return False
    return older.priority >= newer.priority and older.seq < newer.seq


def comes_back_ms(state: State, record: JobRecord) -> int:
    """When its cards will likely have room for a parked job; ``NEVER_MS`` if not by what ends."""
    if back_on(state, record) is not None:
        return max(state.now_ms, record.wakes_from_ms)
    lack = missing(state, record)
    if not all(is_open(state, place) for place in lack):
        return NEVER_MS
    if state.now_ms - record.predicted_at_ms < PREDICTED_FOR_MS:
        return max(record.back_ms, record.wakes_from_ms)
    record.predicted_at_ms, record.back_ms = state.now_ms, _predicted_ms(state, lack)
    return max(record.back_ms, record.wakes_from_ms)


def _predicted_ms(state: State, lack: dict[Place, tuple[int, int]]) -> int:
    """When what holds these cards will have left so much of them; ``NEVER_MS`` if that is not enough."""
    ends: list[tuple[int, Hold]] = []
    for row in sorted({row for row, _ in lack}):
        for other in [state.jobs[job_id] for job_id in state.evictable_holds.holders.get(row, ())]:
            held = [member.hold for member in other.members if member.hold is not None and member.hold.row == row]
            there = [hold for hold in held if any((row, column) in lack for column in hold.columns)]
            if there:
                end_ms = ends_at(state, other)
                ends += [(end_ms, hold) for hold in there]
    for end_ms, hold in sorted(ends, key=lambda each: each[0]):
        for column, memory in zip(hold.columns, hold.memory_bytes, strict=True):
            if (hold.row, column) in lack:
                milli, n_bytes = lack[hold.row, column]
                lack[hold.row, column] = milli - hold.compute_milli, n_bytes - memory
        if all(milli <= 0 and n_bytes <= 0 for milli, n_bytes in lack.values()):
            return end_ms
    return NEVER_MS
