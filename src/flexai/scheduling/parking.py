"""Parking: a victim whose memory is in the way waits in host memory, with its work, instead of being stopped.

A victim is parked if that costs it less: the time to park and to wake it, as measured, against a stop, a start and the
work done over (all of it, or what came after the last checkpoint). Host memory for what it holds of its cards, and a
margin, is booked first; it keeps its CPUs, since its processes live. Its place on the cards is given up. It comes back
to the same cards, or where drivers can do that (``Device.can_move_when_parked``) to others of their model and node, as
soon as they have room for it, its queue's standing allows it and ``park_least_ms`` are over, before newer work of its
queue and priority. Each time that it is parked again before it has run so long, it stays twice as long, so parks and
wakes never take more than a part of anybody's time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import Hold, Plan
from flexai.model import JobState, MemberState, Residence
from flexai.policy.roles import fits
from flexai.scheduling.commands import Park
from flexai.scheduling.records import cost_class
from flexai.scheduling.wording import card_name, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.policy.victims import Victim
    from flexai.scheduling.events import MemoryMeasured
    from flexai.scheduling.records import JobRecord, MemberRecord
    from flexai.scheduling.state import State

LEAST_MARGIN_BYTES = 512 << 20
"""What a job may come to hold between two looks at it and its park; of a large one, an eighth of what it holds."""

LONGEST_STAYS = 6
"""The least stay doubles so often."""


def restart_ms(state: State, record: JobRecord) -> int:
    """What a job loses if it is stopped and started again."""
    ran_ms, every_ms = record.ran_ms(state.now_ms), state.settings.checkpoint_every_ms
    saves = record.job.checkpointable and not record.is_away  # it cannot save what it cannot reach
    lost_ms = (ran_ms % every_ms if every_ms else 0) if saves else ran_ms
    seen_ms = state.move_costs.move_ms(*cost_class(record), state.grace_ms(record.job))
    return state.settings.move_cost_ms + seen_ms + lost_ms


def stay_ms(state: State, record: JobRecord) -> int:
    """What a job loses if it is parked and woken again."""
    most_bytes = max(host_bytes(member) for member in record.members if member.hold is not None)
    return state.move_costs.stay_ms(*cost_class(record), most_bytes)


def may_park(state: State, record: JobRecord) -> bool:
    """Whether a job may be parked for another: the pool does that, the job agrees to it, and nothing is in the way.

    Its time limit, if it has one, would go on counting; so such a job is not parked.
    """
    job = record.job
    if state.settings.park == "never" or not job.parkable or job.time_limit_ms or record.cannot_park:
        return False
    return not obstacle(state, record)


def obstacle(state: State, record: JobRecord) -> str:
    """Why a job cannot be parked now, as the end of a sentence about it; empty if it can.

    It must run as a whole, its cards must be able to, and there must be host memory for what it holds of them.
    """
    if record.state is not JobState.RUNNING or record.is_away:
        return "does not run, or is being moved"
    if any(role.request.partition for role in record.job.parts):
        return "holds a partition of its card"
    moving: list[MemberRecord] = []
    for member in record.members:
        if member.hold is None:
            continue
        hold = member.hold
        if member.state is not MemberState.RUNNING or member.evicting:
            return "has members that have not begun, or are being ended"
        for column in hold.columns:
            if (hold.row, column) not in state.books.parking:
                return f"is on {card_name(state.books, hold.row, column)}, which cannot park programs"
        moving.append(member)
    if not any(member.hold.columns for member in moving if member.hold is not None):
        return "holds no card"
    for row, n_bytes in _needs(moving).items():
        free_bytes = state.books.ram_bytes.item(row)
        if free_bytes < n_bytes:
            name, needed, free = state.books.names[row], size(n_bytes), size(free_bytes)
            return f"needs {needed} of host memory for what it holds of cards, and node {name} has {free} free for it"
    return ""


def measured(state: State, event: MemoryMeasured) -> None:
    """Members hold so much device memory now."""
    for job_id, index, n_bytes in event.held:
        record = state.jobs.get(job_id)
        if record is not None and 0 <= index < len(record.members):
            record.members[index].held_bytes = n_bytes


def host_bytes(member: MemberRecord) -> int:
    """Host memory to book for the device memory of a member: what it holds and a margin, or its cap if that is less."""
    cap_bytes = sum(member.hold.memory_bytes) if member.hold is not None else 0
    held_bytes = member.held_bytes
    return cap_bytes if held_bytes < 0 else min(cap_bytes, held_bytes + max(LEAST_MARGIN_BYTES, held_bytes // 8))


def _needs(members: Iterable[MemberRecord]) -> dict[int, int]:
    """Host memory that the device memory of these would take, by node."""
    needs: dict[int, int] = {}
    for member in members:
        if member.hold is not None:
            needs[member.hold.row] = needs.get(member.hold.row, 0) + host_bytes(member)
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
        members = [member for member in state.jobs[victim.job_id].members if member.hold is not None]
        needs = _needs(members)
        if any(left[row] < n_bytes for row, n_bytes in needs.items()):
            continue
        mark = plan.mark()
        for member in members:
            assert member.hold is not None
            plan.take(in_host(member.hold, host_bytes(member)))
        if not fits(books, claimant.need):
            plan.undo(mark)
            continue
        for row, n_bytes in needs.items():
            left[row] -= n_bytes
        out[victim.job_id] = f"to host memory and back costs it {stay / 1000:.1f} s, a restart {restart / 1000:.1f} s"
    plan.undo()
    return out


def in_host(hold: Hold, n_bytes: int) -> Hold:
    """What a member holds while it is parked: its CPUs, and host memory for its device memory too."""
    return Hold(hold.row, (), 0, (), hold.cpu_milli, hold.ram_bytes + n_bytes)


def leaves(member: MemberRecord) -> Hold | None:
    """What will be free of what a member holds, once it is parked or stopped."""
    hold = member.hold
    if hold is None or member.residence is not Residence.LEAVING or member.evicting:
        return hold
    return replace(hold, cpu_milli=0, ram_bytes=0)


def park_job(state: State, record: JobRecord, cause: str, claimant: str = "") -> None:
    """Command the park of all that a job holds, for a claimant or, without one, as its user asked."""
    record.parked_for = claimant
    if claimant:
        comes_soon = state.now_ms - record.woken_at_ms < least_stay_ms(state, record)
        record.n_short_stays = min(record.n_short_stays + 1, LONGEST_STAYS) if comes_soon else 0
    state.leave(record)
    for index, member in enumerate(record.members):
        if member.hold is None:
            continue
        member.home, member.residence, member.moved_at_ms = member.hold, Residence.LEAVING, state.now_ms
        member.host_bytes = host_bytes(member)
        state.swap(record, member, beside_host(member.hold, member.host_bytes))
        state.stopping[record.job.id, index] = None
        state.out.append(Park(record.job.id, index, cause, claimant, member.host_bytes))
    record.away_at_ms = state.now_ms
    state.run_times.stopped(record.burst, record.job.id)
    state.reservation = None
    state.set_state(record, JobState.PARKED, cause)


def beside_host(hold: Hold, n_bytes: int) -> Hold:
    """A place on the card, and host memory for the memory on it: what is held while it moves."""
    return replace(hold, ram_bytes=hold.ram_bytes + n_bytes)


def least_stay_ms(state: State, record: JobRecord) -> int:
    """How long it stays away at least; and how long it runs at least for its next stay not to be longer."""
    return state.settings.park_least_ms << record.n_short_stays
