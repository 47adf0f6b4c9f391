"""Evictions: for a queue's entitlement across queues (reclaim), for priority inside a queue (preempt), on command.

A queue that holds less than it is entitled to (its quota; its fair share with ``reclaim="fair_share"``) may take back
from queues that hold more than theirs, never leaving a victim's queue below its own: the claimant is then at most at
its entitlement and the victim at least at its, so the two can never take turns. The same holds for the queues above
both, up to the first that they share. Inside a queue a job may evict jobs of lower priority. Only preemptible jobs that
have run their minimum run time are victims; they end gracefully and keep their place. An elastic job first gives up the
members beyond its ``min_member`` and goes on. What is freed is reserved for the claimant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import ALL_CARDS, Plan, group_sums
from flexai.model import JobState, Residence, TenantClass
from flexai.policy.gang import Need, fits_together, most_together
from flexai.policy.roles import fits, orders, pack
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling import booking, entitlement, parking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from flexai.cluster import Books, Hold
    from flexai.scheduling.entitlement import Standing
    from flexai.scheduling.records import JobRecord, Line
    from flexai.scheduling.state import State

STEPS = 20_000
"""Search budget of a step that brings none: nodes looked at for victims."""
MAX_GROUPS = 4
"""So many groups of a required level are searched for victims, those that lack least first."""
MOST_SPARED = 32
"""Of so many victims for a gang of roles each is looked at again, whether all the others suffice."""
NOBODY: Mapping[str, str] = MappingProxyType({})
ON_THE_WAY = {Residence.LEAVING, Residence.RETURNING}
SHRINK_DISCOUNT = 1000
"""A member that an elastic job can do without costs so much less than its run time: its work goes on in the others."""


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


def is_lent(record: JobRecord) -> bool:
    """Whether a job runs on lent compute only."""
    return all(member.lent for member in record.members if member.hold is not None)


def choose(
    state: State, record: JobRecord, standing: Standing, steps: int
) -> tuple[list[Victim] | None, int]:  # fmt: skip
    """The victims for a job, and how many nodes were looked at. First the bound: would it fit with everybody gone?"""
    if record.job.roles:
        return _choose_for_roles(state, record, standing, steps)
    return _choose(state, record, Search(state.books), standing, steps)


@dataclass(slots=True)
class Search:
    """What victims are sought on.

    Attributes:
        books: free as it would be without those chosen before, and with what other roles of the job would take.
        within: queues that with the whole job would hold no more than they are entitled to.
        chosen: victims chosen before, for other roles.
        parts: what each job was split into.
        wanted: nodes where room is wanted.
    """

    books: Books
    within: set[str] | None = None
    chosen: list[Victim] = field(default_factory=list)
    parts: dict[str, list[Victim]] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)

    def if_all_left(self, state: State) -> Books:
        """The books without any evictable job, beside those that are gone already."""
        twin = state.evictable_holds.if_all_left(self.books)
        for victim in self.chosen:
            for hold in victim.holds:
                twin.take(hold)
        return twin


def _choose(
    state: State, record: JobRecord, search: Search, standing: Standing, steps: int
) -> tuple[list[Victim] | None, int]:  # fmt: skip
    """The victims for members that are alike."""
    books, shape, needed = search.books, state.shape_now(record), record.n_needed
    n = len(books.names)
    most = search.if_all_left(state).n_fit(shape)[:n]
    if most_together(books, most, record.together) < needed:
        return None, 1
    now = books.n_fit(shape)[:n]
    if search.within is None:
        search.within = entitlement.entitled_up_to(state, record, standing)
    looked_at = 1
    for rows, missing in _regions(search.books, record, most, now):
        nodes = rows[most[rows] > now[rows]].tolist()
        on: dict[int, list[Victim]] = {}
        if not search.chosen:
            search.parts, search.wanted = {}, set(nodes)
        for row in nodes:
            victims = _victims_on(state, record, row, standing, search)
            looked_at += 1
            if victims:
                on[row] = victims
            if looked_at >= steps:
                break
        chosen = cheapest_set(
            books, shape, missing, on,
            lambda some: _leaves_enough(state, record, [*search.chosen, *some], standing),
        )  # fmt: skip
        if chosen is not None and record.job.subgroup_size and not _would_fit(books, record.need, chosen):
            chosen = None  # room enough, but not in whole subgroups
        if chosen is not None or looked_at >= steps:
            return chosen, looked_at
    return None, looked_at


def _choose_for_roles(
    state: State, record: JobRecord, standing: Standing, steps: int
) -> tuple[list[Victim] | None, int]:  # fmt: skip
    """The victims for members that are unlike: those for one role, then for the next beside it, in any order."""
    need, looked_at = record.need, 1
    if fits(state.books, need) or not fits(state.evictable_holds.if_all_left(state.books), need):
        return None, looked_at
    roles, within = record.alone(), entitlement.entitled_up_to(state, record, standing)
    for order in orders(len(roles)):
        search = Search(state.books.copy(), within)
        for at in order:
            part = Need(need.parts[at : at + 1], need.level)
            if not fits(search.books, part):
                some, n_nodes = _choose(state, roles[at], search, standing, max(1, steps - looked_at))
                looked_at += n_nodes
                search.chosen += some or ()
                for hold in (hold for victim in some or () for hold in victim.holds):
                    search.books.give(hold)
            packing = pack(search.books, part)
            if packing.lacks >= 0:
                break
            for hold in packing.holds[0]:
                search.books.take(hold)
        else:
            chosen = _spared(state.books, need, search.chosen)
            if chosen and _would_fit(state.books, need, chosen) and _leaves_enough(state, record, chosen, standing):
                return chosen, looked_at
        if looked_at >= steps:
            break
    return None, looked_at


def _spared(books: Books, need: Need, chosen: list[Victim]) -> list[Victim]:
    """Those of the chosen that are needed: room made for one role may serve another too. The dearest is spared."""
    left = list(chosen)
    for victim in sorted(chosen, key=lambda each: (-each.lost, each.key)) if len(chosen) <= MOST_SPARED else ():
        others = [each for each in left if each is not victim]
        if _would_fit(books, need, others):
            left = others
    return left


def _regions(
    books: Books, record: JobRecord, most: NDArray[np.int64], now: NDArray[np.int64]
) -> list[tuple[NDArray[np.int64], int]]:
    """Rows to look for victims in, and how many members are missing there: groups of a required level, or everywhere.

    A region that lacks nothing waits for its turn, not for victims.
    """
    needed, level = record.n_needed, record.job.required_level
    if record.job.subgroup_size and fits_together(books, record.shape, record.together):
        return []
    if not level and record.job.subgroup_size:
        groups = books.topology.groups(record.job.subgroup_level, len(most))
        able = np.flatnonzero(group_sums(groups, most) >= needed)
        can = group_sums(groups, now)
        one = [(np.flatnonzero((groups == at) & (most > 0)), max(1, needed - int(can[at]))) for at in able.tolist()]
        one.sort(key=lambda each: each[1])
        return [*one[:MAX_GROUPS], (np.flatnonzero(most > 0), max(1, needed - int(now.sum())))]
    if not level:
        missing = needed - int(now.sum())
        return [(np.flatnonzero(most > 0), missing)] if missing > 0 else []
    if level not in books.topology:
        return []
    groups = books.topology.groups(level, len(most))
    could, can = group_sums(groups, most), group_sums(groups, now)
    if (can >= needed).any():
        return []
    able = np.flatnonzero(could >= needed)
    best = sorted((needed - int(can[group]), group) for group in able.tolist())[:MAX_GROUPS]
    return [(np.flatnonzero((groups == group) & (most > 0)), missing) for missing, group in best]


def _would_fit(books: Books, need: Need, chosen: Sequence[Victim]) -> bool:
    plan = Plan(books)
    for victim in chosen:
        for hold in victim.holds:
            plan.give(hold)
    able = fits(books, need)
    plan.undo()
    return able


def _victims_on(
    state: State,
    record: JobRecord,
    row: int,
    standing: Standing,
    search: Search,
) -> list[Victim]:
    """Who may be evicted for the job on one node."""
    out, parts = [], search.parts
    gone = {victim.key for victim in search.chosen}
    for job_id in state.evictable_holds.holders.get(row, ()):
        other = state.jobs[job_id]
        if job_id not in parts:
            may = _may_evict(state, record, other, search.within or set())
            parts[job_id] = [
                victim
                for victim in (_parts_of(state, other, search.wanted) if may else ())
                if is_lent(other) or _leaves_enough(state, record, [victim], standing)
            ]
        out += [
            victim
            for victim in parts[job_id]
            if any(hold.row == row for hold in victim.holds) and victim.key not in gone
        ]
    return out


def _may_evict(state: State, record: JobRecord, other: JobRecord, within: set[str]) -> bool:
    """Whether the job may have this one evicted, what its queue would be left with apart."""
    job = other.job
    if other.state is JobState.STOPPING or any(member.residence in ON_THE_WAY for member in other.members):
        return False
    if is_lent(other):  # it was told so: what it uses belongs to whoever is granted it
        return record.job.request.tenant_class is not TenantClass.BEST_EFFORT
    if not job.preemptible or other.ran_ms(state.now_ms) < job.min_runtime_ms:
        return False
    if job.queue == record.job.queue:
        return job.priority < record.job.priority
    return entitlement.may_take_from(state, record, within, job.queue)


def _parts_of(state: State, other: JobRecord, wanted: set[int]) -> list[Victim]:
    """A job as victims: members beyond the least of their role, one by one and at a token price, then all the rest.

    Of an elastic role those may go first that stand where room is wanted, the last first.
    """
    ran_ms = other.ran_ms(state.now_ms)
    lost_ms = ran_ms if state.settings.park == "never" else parking.lost_ms(state, other)
    if is_lent(other):
        ran_ms = lost_ms = 0
    spare: list[tuple[int, Hold]] = []
    least: list[tuple[int, Hold]] = []
    first = 0
    for role in other.job.parts:
        placed = [
            (index, member.hold)
            for index, member in enumerate(other.members[first : first + role.n_members], first)
            if member.hold is not None and not member.evicting
        ]
        first += role.n_members
        n_least = min(len(placed), role.min_member) if role.is_elastic else len(placed)
        placed.sort(key=lambda each: (each[1].row in wanted, each[0]))
        least += placed[:n_least]
        spare += placed[n_least:]
    out = [
        Victim(other.job.id, (hold,), 1 + ran_ms * hold.compute_milli * len(hold.columns) // SHRINK_DISCOUNT, (index,))
        for index, hold in spare
    ]
    if least:
        lost = lost_ms * (other.held_milli + other.home_milli) + 1
        out.append(Victim(other.job.id, tuple(hold for _, hold in least), lost))
    return out


def _leaves_enough(state: State, record: JobRecord, some: Iterable[Victim], standing: Standing) -> bool:
    """Whether these victims together leave every victim's queue, and its parents, what they are entitled to."""
    going = {
        (victim.job_id, index)
        for victim in some
        for index in victim.members or range(len(state.jobs[victim.job_id].members))
    }
    taken: dict[tuple[str, str], int] = {}
    for job_id, index in going:
        other = state.jobs[job_id]
        member = other.members[index]
        for device_class, milli in member.by_class.items() if member.hold is not None else ():
            if milli:
                at = other.job.queue, device_class
                taken[at] = taken.get(at, 0) + milli
    return entitlement.leaves_enough(state, record, taken, standing)
