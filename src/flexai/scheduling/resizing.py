"""Users change what a job that is in already has: the shares of one role, or how many of its members run at once.

A job without roles is one role without a name. Of an elastic role members beyond what its user wants are stopped, the
last first, and wait; when he wants more again they start like any that an elastic job grows by.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.model import JobState, Reason
from flexai.scheduling import entitlement
from flexai.scheduling.commands import Resize
from flexai.scheduling.events import JobMembersAsked, JobResizeAsked
from flexai.scheduling.wording import card_name, part, say

if TYPE_CHECKING:
    from flexai.cluster import Hold
    from flexai.model import PendingReason, Role
    from flexai.scheduling.records import JobRecord, MemberRecord
    from flexai.scheduling.state import State

    Placed = list[tuple[int, MemberRecord, Hold]]


def asked(state: State, event: JobResizeAsked | JobMembersAsked) -> None:
    """Do what a user asks for, all of it or, where that cannot be had, nothing."""
    record = state.jobs.get(event.job_id)
    index = -1 if record is None else record.job.role_named(event.role)
    if record is None or index < 0 or event.job_id in state.found:
        return
    if isinstance(event, JobResizeAsked):
        _reshare(state, record, index, event)
    else:
        _limit_members(state, record, index, event.n_members)


def why_not(state: State, event: JobResizeAsked) -> PendingReason | None:
    """Why the members that run could not have these shares now; None if they could, or none runs."""
    record = state.jobs.get(event.job_id)
    index = -1 if record is None else record.job.role_named(event.role)
    if record is None or index < 0:
        return None
    if event.job_id in state.found:
        return say(state, Reason.AGENT_AWAY, "Its node has not come back yet since the pool was started again.")
    role = record.job.parts[index]
    growth, placed = event.compute_milli - role.request.compute_milli, _placed(record, index)
    if growth <= 0 or not placed:
        return None
    short = _short_card(state, placed, growth)
    if short is not None:
        row, column, n_here = short
        free = max(0, int(state.books.free_milli[row, column]))
        more = f"{n_here} members with {part(growth)} more each" if n_here > 1 else f"{part(growth)} more"
        return say(
            state, Reason.NOT_ENOUGH_COMPUTE,
            f"It runs on {card_name(state.books, row, column)}, which has {part(free)} free beside its neighbours: "
            f"not enough for {more}.",
            free_milli=free, missing_milli=growth * n_here - free, n_members=n_here,
        )  # fmt: skip
    if _over_limit(state, record, placed, growth):
        asked_milli = _more_milli(placed, growth)
        return say(
            state, Reason.QUEUE_LIMIT,
            f"{part(asked_milli)} of a card more is beyond a limit of queue {record.job.queue}, or of its user there; "
            "see `flexai queues`.",
            asked_milli=asked_milli,
        )  # fmt: skip
    return None


def _reshare(state: State, record: JobRecord, index: int, event: JobResizeAsked) -> None:
    """Other shares for one role; running members that they do not fit keep what they have."""
    role = record.job.parts[index]
    if record.is_away or role.request.n_devices == 0 or role.request.partition:
        return
    growth, placed = event.compute_milli - role.request.compute_milli, _placed(record, index)
    if placed and (_short_card(state, placed, growth) or (growth > 0 and _over_limit(state, record, placed, growth))):
        return
    limit_milli = max(event.limit_milli, event.compute_milli)
    request = replace(role.request, compute_milli=event.compute_milli, limit_milli=limit_milli)
    _change(state, record, index, replace(role, request=request))
    for number, member, hold in placed:
        resized = replace(hold, compute_milli=event.compute_milli)
        state.swap(record, member, resized)
        state.reservation = None
        member.grants = state.grants_of(record, number, resized)
        state.out.append(Resize(record.job.id, number, member.grants, "its user asked"))


def _limit_members(state: State, record: JobRecord, index: int, n_members: int) -> None:
    """So many members of a role at once from now on; of those that run the last are stopped, and wait."""
    role = record.job.parts[index]
    least, size = max(1, role.min_member), max(1, role.subgroup_size)
    if record.cancelled or record.is_away or not least <= n_members <= role.n_members or n_members % size:
        return
    _change(state, record, index, replace(role, most_at_once=0 if n_members == role.n_members else n_members))
    first = record.job.first_of(index)
    held = [number for number, member in enumerate(record.members_of(index), first) if member.hold is not None]
    going = [number for number in held if record.members[number].evicting]
    named = f" of role {role.name}" if role.name else ""
    for number in _last(held, first, size, len(held) - n_members):
        if number not in going and record.state is not JobState.STOPPING:
            state.stop(record, number, f"its user wants {n_members} members{named}", requeue=True)


def _last(held: list[int], first: int, size: int, n: int) -> list[int]:
    """At least ``n`` of the members of a role, the last first: whole subgroups, if they come in such."""
    out: list[int] = []
    for number in reversed(held):
        if len(out) >= n and (not out or (number - first) // size != (out[-1] - first) // size):
            break
        out.append(number)
    return out


def _change(state: State, record: JobRecord, index: int, role: Role) -> None:
    """A role of a job is another one from now on; what waits of the job waits for that."""
    waits = record.line is not None
    is_big = record.job.id in state.big
    state.leave(record)
    record.job = record.job.with_part(index, role)
    record.shapes = state.shapes_of(record.job)
    grows = record.is_placed and record.state not in (JobState.STOPPING, JobState.PARKED) and not record.cancelled
    if (waits or grows) and record.n_to_start:
        state.wait(record)
        if is_big:
            state.mark_big(record)


def _placed(record: JobRecord, index: int) -> Placed:
    """Members of a role that hold their share of a card; those that run on what is lent hold none."""
    first = record.job.first_of(index)
    return [
        (number, member, member.hold)
        for number, member in enumerate(record.members_of(index), first)
        if member.hold is not None and not member.lent
    ]


def _short_card(state: State, placed: Placed, growth: int) -> tuple[int, int, int] | None:
    """A card that has not so much for each of its members, and how many these are; None if all cards have."""
    on_card = Counter((hold.row, column) for _, _, hold in placed for column in hold.columns)
    for at, n_here in on_card.items():
        if state.books.free_milli[at] < growth * n_here:
            return *at, n_here
    return None


def _more_milli(placed: Placed, growth: int) -> int:
    return growth * sum(len(hold.columns) for _, _, hold in placed)


def _over_limit(state: State, record: JobRecord, placed: Placed, growth: int) -> bool:
    """Whether a limit of its queue, its user or a class of cards forbids members that grow."""
    more = [replace(hold, compute_milli=growth) for _, _, hold in placed]
    return entitlement.is_over_limit(state, record.job, _more_milli(placed, growth), more)
