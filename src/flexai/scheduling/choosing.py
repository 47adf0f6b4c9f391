"""Whom to evict for a job: the cheapest members whose going leaves room for it and every queue what it is owed.

Who may be evicted at all, for whom, and what that leaves to its queue is told in ``evicting``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import Plan, group_sums
from flexai.model import JobState, Residence, TenantClass
from flexai.policy.gang import Need, fits_together, most_together
from flexai.policy.roles import fits, orders, pack
from flexai.policy.victims import Victim, cheapest_set
from flexai.scheduling import entitlement, parking

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from flexai.cluster import Books, Hold
    from flexai.scheduling.entitlement import Standing
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

MAX_GROUPS = 4
"""So many groups of a required level are searched for victims, those that lack least first."""
MOST_SPARED = 32
"""Of so many victims for a gang of roles each is looked at again, whether all the others suffice."""
ON_THE_WAY = {Residence.LEAVING, Residence.RETURNING}
SHRINK_DISCOUNT = 1000
"""A member that an elastic job can do without costs so much less than its run time: its work goes on in the others."""


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
