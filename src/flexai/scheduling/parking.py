"""Parking: a victim whose memory is in the way waits in host memory, with its work, instead of being stopped.

A victim is parked if that costs it less: the time to park and to wake it, as measured, against a stop, a start and the
work done over (all of it, or what came after the last checkpoint). Host memory for all that it may hold of its cards is
booked first; it keeps its CPUs, since its processes live. Its place on the cards is given up, and it comes back to the
same cards, or where drivers can do that (``Device.can_move_when_parked``) to others of their model and node: as soon as
they have room for it, its queue's standing allows it and ``park_least_ms`` are over, before newer work of its queue and
priority. Each time that it is parked again before it has run so long, it stays twice as long, so parks and wakes never
take more than a part of anybody's time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import Hold, Plan
from flexai.model import JobState, MemberState, Residence, TenantClass
from flexai.policy.gang import Together
from flexai.policy.reservation import NEVER_MS
from flexai.policy.roles import fits
from flexai.scheduling.commands import Park, Wake
from flexai.scheduling.predicting import ends_at, ends_ms
from flexai.scheduling.records import LineKey, cost_class

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flexai.policy.victims import Victim
    from flexai.scheduling.records import JobRecord, MemberRecord
    from flexai.scheduling.state import State

PREDICTED_FOR_MS = 10_000
"""When a parked job can likely come back is predicted again after so long."""
LONGEST_STAYS = 6
"""The least stay doubles so often."""

Place = tuple[int, int]
"""(row, column) of a card."""


# -- who is parked ----------------------------------------------------------------------------------------------------


def restart_ms(state: State, record: JobRecord) -> int:
    """What a job loses if it is stopped and started again."""
    ran_ms, every_ms = record.ran_ms(state.now_ms), state.settings.checkpoint_every_ms
    saves = record.job.checkpointable and not record.is_away  # it cannot save what it cannot reach
    lost_ms = (ran_ms % every_ms if every_ms else 0) if saves else ran_ms
    seen_ms = state.move_costs.move_ms(*cost_class(record), state.grace_ms(record.job))
    return state.settings.move_cost_ms + seen_ms + lost_ms


def stay_ms(state: State, record: JobRecord) -> int:
    """What a job loses if it is parked and woken again."""
    most_bytes = max(sum(member.hold.memory_bytes) for member in record.members if member.hold is not None)
    return state.move_costs.stay_ms(*cost_class(record), most_bytes)


def may_park(state: State, record: JobRecord) -> bool:
    """Whether a job can be parked: it runs as a whole, its cards do that, and there is host memory for it now.

    Its time limit, if it has one, would go on counting; so such a job is not parked.
    """
    job = record.job
    if state.settings.park == "never" or not job.parkable or job.time_limit_ms or record.cannot_park:
        return False
    if record.state is not JobState.RUNNING or record.is_away or any(role.request.partition for role in job.parts):
        return False
    holds: list[Hold] = []
    for member in record.members:
        if member.hold is None:
            continue
        hold = member.hold
        if member.state is not MemberState.RUNNING or member.evicting or not hold.columns:
            return False
        if any((hold.row, column) not in state.books.parking for column in hold.columns):
            return False
        holds.append(hold)
    return all(state.books.ram_bytes.item(row) >= n_bytes for row, n_bytes in _host_bytes(holds).items())


def _host_bytes(holds: Iterable[Hold]) -> dict[int, int]:
    """Host memory that the device memory of these would take, by node."""
    needs: dict[int, int] = {}
    for hold in holds:
        needs[hold.row] = needs.get(hold.row, 0) + sum(hold.memory_bytes)
    return needs


def lost_ms(state: State, record: JobRecord) -> int:
    """What a victim loses: the cheaper of a restart and a stay in host memory."""
    restart = restart_ms(state, record)
    return min(restart, stay_ms(state, record)) if may_park(state, record) else restart


def to_park(state: State, claimant: JobRecord, chosen: Sequence[Victim]) -> dict[str, str]:
    """Which of the victims are parked, and why; the others must be stopped.

    Tried on the books: with those parked in host memory, and the others gone, the claimant must fit, CPUs and host
    memory too.
    """
    if state.settings.park == "never":
        return {}
    books, plan, out = state.books, Plan(state.books), dict[str, str]()
    left = {hold.row: books.ram_bytes.item(hold.row) for victim in chosen for hold in victim.holds}
    for victim in chosen:
        for hold in victim.holds:
            plan.give(hold)
    whole = [victim for victim in chosen if sum(other.job_id == victim.job_id for other in chosen) == 1]
    costs = {
        victim.job_id: (stay_ms(state, record), restart_ms(state, record))
        for victim in whole
        for record in [state.jobs[victim.job_id]]
        if not victim.members and may_park(state, record)
    }
    for victim in sorted(whole, key=lambda each: (-each.lost, each.job_id)):
        stay, restart = costs.get(victim.job_id, (0, 0))
        if stay >= restart:
            continue
        needs = _host_bytes(victim.holds)
        if any(left[row] < n_bytes for row, n_bytes in needs.items()):
            continue
        mark = plan.mark()
        for hold in victim.holds:
            plan.take(in_host(hold))
        if not fits(books, claimant.need):
            plan.undo(mark)
            continue
        for row, n_bytes in needs.items():
            left[row] -= n_bytes
        out[victim.job_id] = f"to host memory and back costs it {stay / 1000:.1f} s, a restart {restart / 1000:.1f} s"
    plan.undo()
    return out


def in_host(hold: Hold) -> Hold:
    """What a member holds while it is parked: its CPUs, and host memory for its device memory too."""
    return Hold(hold.row, (), 0, (), hold.cpu_milli, hold.ram_bytes + sum(hold.memory_bytes))


def leaves(member: MemberRecord) -> Hold | None:
    """What will be free of what a member holds, once it is parked or stopped."""
    hold = member.hold
    if hold is None or member.residence is not Residence.LEAVING or member.evicting:
        return hold
    return replace(hold, cpu_milli=0, ram_bytes=0)


def park_job(state: State, record: JobRecord, cause: str, claimant: str) -> None:
    """Command the park of all that a job holds, for a claimant."""
    if state.now_ms - record.woken_at_ms < least_stay_ms(state, record):
        record.n_short_stays = min(record.n_short_stays + 1, LONGEST_STAYS)
    else:
        record.n_short_stays = 0
    state.leave(record)
    for index, member in enumerate(record.members):
        if member.hold is None:
            continue
        member.home, member.residence, member.moved_at_ms = member.hold, Residence.LEAVING, state.now_ms
        state.swap(record, member, beside_host(member.hold))
        state.stopping[record.job.id, index] = None
        state.out.append(Park(record.job.id, index, cause, claimant))
    record.away_at_ms = state.now_ms
    state.run_times.stopped(record.burst, record.job.id)
    state.reservation = None
    state.set_state(record, JobState.PARKED, cause)


def beside_host(hold: Hold) -> Hold:
    """A place on the card, and host memory for the memory on it: what is held while it moves."""
    return replace(hold, ram_bytes=hold.ram_bytes + sum(hold.memory_bytes))


def least_stay_ms(state: State, record: JobRecord) -> int:
    """How long it stays away at least; and how long it runs at least for its next stay not to be longer."""
    return state.settings.park_least_ms << record.n_short_stays


# -- who comes back ---------------------------------------------------------------------------------------------------


def is_over_limit(state: State, record: JobRecord) -> bool:
    """Whether its queue, its user or a class of cards would be over a limit with the job back."""
    queue, milli = record.job.queue, record.home_milli
    if queue not in state.queues or state.queues.over_limit(queue, milli) is not None:
        return True
    if state.queues.over_user_limit(queue, record.job.user, milli):
        return True
    by_class: dict[str, int] = {}
    for home in homes(record):
        for name, part in state.books.by_class(home).items() if state.queues.limited else ():
            by_class[name] = by_class.get(name, 0) + part
    return any(name in state.queues.full_classes(queue, part) for name, part in by_class.items() if part)


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
    if any(member.lent for member in record.members):
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
    return all((home.row, column) in state.books.moving for home in homes(record) for column in home.columns)


def _others_like(state: State, home: Hold, taken: dict[Place, tuple[int, int]]) -> tuple[int, ...] | None:
    """Cards of the same node for one member, beside what others of its job take; None if too few have room."""
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
    """Whether all that is left of a parked job is in host memory."""
    return record.state is JobState.PARKED and all(
        member.hold is None or member.residence is Residence.IN_HOST for member in record.members
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
    back = [beside_host(home) for home in to]
    if state.reservation is not None:
        left_ms = state.run_times.remaining_ms(
            record.burst, record.ran_ms(state.now_ms), state.settings.backfill_quantile
        )
        if not state.reservation.lets_pass(back, state.now_ms + left_ms):
            return False
    took_ms = state.now_ms - record.away_at_ms
    where = "its place on the card is free" if to == homes(record) else "another card of its model has room for it"
    cause = f"woken after {took_ms / 1000:.1f} s in host memory: {where}"
    moving = [(index, member) for index, member in enumerate(record.members) if member.home is not None]
    for (index, member), hold, home in zip(moving, back, to, strict=True):
        if state.reservation is not None and member.hold is not None:
            state.reservation.ended(member.hold)
        state.swap(record, member, hold)
        member.residence, member.moved_at_ms = Residence.RETURNING, state.now_ms
        is_elsewhere, member.home = member.home != home, home
        if is_elsewhere:
            member.grants = state.grants_of(record, index, home)
        state.out.append(Wake(record.job.id, index, cause, member.grants if is_elsewhere else ()))
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
