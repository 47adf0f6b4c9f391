"""Redistribution: waiting best-effort work starts on compute that is granted to others but measured idle.

A lent start holds memory, CPU and RAM like any other, but no compute: it runs on what the arbiter finds idle from one
turn to the next, and the owner has its compute back at once. Memory is never lent. So the books stay true: no card is
ever granted beyond a whole one.

Who is started goes by what queues are owed, guarantees first, where what a queue borrows counts as if it were held. How
much each then has of what is idle ``weighing`` says (docs/adr/0020), and the arbiter gives, from one turn to the next.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from flexai.model import Residence, TenantClass
from flexai.scheduling import entitlement, returning, weighing
from flexai.scheduling.commands import Resize
from flexai.scheduling.placing import begin
from flexai.scheduling.predicting import ends_ms
from flexai.scheduling.records import line_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flexai.scheduling.entitlement import Shares
    from flexai.scheduling.records import JobRecord, Line, LineKey
    from flexai.scheduling.state import State

LEAST_IDLE_MILLI = 100
"""Less than that of a card is not worth a start; changes of tenants and errors of measuring are of that size."""

SETTLED_AFTER_MS = 1_200
"""A card's own figure of how busy it is looks back a second: until then a borrower counts as using what it asked for,
or the card that it has just filled would be lent again and again."""


def run(state: State) -> None:
    """Grant what is lent where it became free; then start best-effort jobs on idle compute, by queue and submission."""
    if not state.settings.lend:
        return
    for job_id, member in list(state.lent):
        _grant_if_free(state, state.jobs[job_id], member)
    if not state.measured_milli:
        return
    _wake(state)
    waiting = [
        line
        for line in state.lines.values()
        if line.head.job.request.tenant_class is TenantClass.BEST_EFFORT
        and line.key.n_members == 1
        and line.key.shape.n_devices == 1
        and not line.key.shape.whole
        and not line.key.shape.partition
    ]
    if not waiting:
        return
    idle = idle_milli(state)
    by_queue = _by_queue(state, waiting)
    shares = entitlement.shares_of(state, 0) if len(by_queue) > 1 else {}
    ranks: dict[str, tuple[bool, float]] = {}
    while by_queue:
        lines = next(iter(by_queue.values()))
        why = ""
        if len(by_queue) > 1:
            for name in by_queue.keys() - ranks.keys():
                ranks[name] = _standing(state, shares, by_queue[name][0].key)
            queue = min(by_queue, key=lambda name: (ranks[name], by_queue[name][0].head.job.seq))
            lines, (_, over) = by_queue[queue], ranks.pop(queue)  # whoever borrows stands elsewhere after it
            why = f"; of {len(by_queue)} queues, {queue} has least of its fair share ({100 * over:.0f}%)"
        line = lines[0]
        if not _lend(state, line.head, idle, why) or not line.jobs or state.queues.over_limit(line.key.queue, 0):
            lines.remove(line)
        lines.sort(key=lambda each: each.head.job.seq)
        if not lines:
            del by_queue[line.key.queue]
    if state.lent:
        _join(state, [line for line in waiting if line.jobs])


def _by_queue(state: State, waiting: list[Line]) -> dict[str, list[Line]]:
    """Lines of queues that may have more, in order of submission."""
    out: dict[str, list[Line]] = {}
    for line in sorted(waiting, key=lambda each: each.head.job.seq):
        if line.key.queue in state.queues and not state.queues.over_limit(line.key.queue, 0):
            out.setdefault(line.key.queue, []).append(line)
    return out


def _join(state: State, waiting: list[Line]) -> None:
    """Start borrowers of queues that could not have what they are owed of all that is lent where they borrow now.

    Others, which have more of their shares, use all that is idle there; what part of that is theirs they have by weight
    once they are on it.
    """
    for queue, lines in _by_queue(state, waiting).items():
        while not state.queues.over_limit(queue, 0):
            could_milli, owed_milli, beyond_milli = weighing.outlook(state, queue)
            if could_milli >= owed_milli or not beyond_milli or not _holds_less(state, lines[0].key):
                break
            left = np.full((len(state.books.names), state.books.free_milli.shape[1]), -1, np.int64)
            for card, milli in beyond_milli.items():
                left[card] = milli
            why = (
                f"; of what is lent queue {queue} is owed {owed_milli / 10:g}% of a card and could have "
                f"{could_milli / 10:g}% where it borrows"
            )
            if not any(_start(state, line.head, left, "is left to borrowers", why) for line in lines if line.jobs):
                break


def _holds_less(state: State, key: LineKey) -> bool:
    """Whether a queue holds and borrows less of its fair share than another that borrows."""
    keys = {record.job.queue: line_key(record) for record in (state.jobs[job_id] for job_id, _ in state.lent)}
    borrowed_milli = {name: _borrowed_milli(state, name) for name in keys}
    shares = entitlement.shares_of(state, 0, borrowed_milli)
    uses = {
        name: entitlement.use_over_share(state, shares, each, borrowed_milli.get(name, 0))
        for name, each in (keys | {key.queue: key}).items()
        if name in state.queues
    }
    return uses[key.queue] < max(uses.values())


def _standing(state: State, shares: Shares, key: LineKey) -> tuple[bool, float]:
    """Whether a queue is beyond its quota with its next borrower; and what it holds and borrows over its share."""
    borrowed_milli = _borrowed_milli(state, key.queue)
    beyond = not entitlement.is_within_quota(state, key, borrowed_milli + key.shape.asked_milli)
    return beyond, entitlement.use_over_share(state, shares, key, borrowed_milli)


def _borrowed_milli(state: State, queue: str) -> int:
    return sum(
        state.jobs[job_id].shape.asked_milli for job_id, _ in state.lent if state.jobs[job_id].job.queue == queue
    )


def _wake(state: State) -> None:
    """Borrowers that are parked come back to what is idle of their own cards, before others borrow it."""
    parked = list(returning.due(state, lent=True)) if state.parked else []
    if not parked:
        return
    idle = idle_milli(state)
    for record in sorted(parked, key=lambda each: each.job.seq):
        places = returning.wanted(record)
        if all(idle[place] >= LEAST_IDLE_MILLI for place in places) and returning.wake_job(state, record):
            for place in places:
                idle[place] -= record.shape.compute_milli


def _lend(state: State, record: JobRecord, idle: NDArray[np.int64], why: str) -> bool:
    """Start a job where most is idle; of that it takes whatever there is, but counts as what it asks for."""
    place = _start(state, record, idle, "was measured idle", why)
    if place is not None:
        idle[place] -= record.shape.compute_milli
    return place is not None


def _start(state: State, record: JobRecord, idle: NDArray[np.int64], is_idle: str, why: str) -> tuple[int, int] | None:
    """Start a job where there is most, if its memory fits somewhere and no reservation minds; answers where."""
    books, n = state.books, len(state.books.names)
    number = next(number for role in record.waiting() for number in role.numbers)
    if record.shape_of(number) != record.shape:  # the member that waits is of a role without a slice
        return None
    kept = returning.keep(state, record) if state.parked else []
    free = replace(record.shape, compute_milli=0)
    host = (books.cpu_milli[:n] >= free.cpu_milli) & (books.ram_bytes[:n] >= free.ram_bytes)
    fits = books.cards_that_fit(free) & host[:, None] & (idle >= LEAST_IDLE_MILLI)
    returning.let_go(state, kept)
    if not fits.any():
        return None
    row, column = divmod(int(np.where(fits, idle, -1).argmax()), idle.shape[1])
    hold = books.hold_for(record.shape, row, (column,), compute_milli=0)
    books.take(hold)
    if state.reservation is not None and not state.reservation.lets_pass([hold], ends_ms(state, record)):
        books.give(hold)
        return None
    begin(state, record, {number: hold}, f"lent: {idle[row, column] / 10:g}% of its card {is_idle}{why}", lent=True)
    return row, column


def _grant_if_free(state: State, record: JobRecord, index: int) -> None:
    """A lent member whose card has its compute free, within its queue's limits, is granted it from now on."""
    member, milli = record.members[index], record.shape.compute_milli
    hold, queue, user = member.hold, record.job.queue, record.job.user
    if hold is None or member.evicting or queue not in state.queues or member.residence is not Residence.ON_CARD:
        return
    if any(state.books.free_milli[hold.row, column] < milli for column in hold.columns):
        return
    asked = milli * len(hold.columns)
    if state.reservation is not None or state.queues.room_milli(queue, user) < asked:
        return
    state.books.give(hold)
    state.unhold(record, member)
    del state.lent[record.job.id, index]
    member.lent = False
    granted = replace(hold, compute_milli=milli)
    state.books.take(granted)
    state.hold(record, member, granted)
    member.grants = state.grants_of(record, index, granted)
    state.out.append(Resize(record.job.id, index, member.grants, "granted: what it ran on was lent, and is free now"))


def idle_milli(state: State) -> NDArray[np.int64]:
    """Compute of each card that is measured idle: (nodes, cards). A tenant not measured yet counts as fully busy."""
    books = state.books
    n = len(books.names)
    ours = (books.free_milli + books.granted_milli)[:n]  # a whole card, less what programs outside the pool use
    idle = np.where(books.free_milli[:n] >= 0, ours, -1)
    for job_id in state.running:
        record = state.jobs[job_id]
        is_new = state.now_ms - record.started_at_ms < SETTLED_AFTER_MS
        for index, member in enumerate(record.members):
            if member.hold is None or member.residence is Residence.IN_HOST:
                continue
            for grant, column in zip(member.grants, member.hold.columns, strict=True):
                asked = grant.compute_milli or record.shape.compute_milli
                used = state.measured_milli.get((job_id, index, grant.device), asked)
                idle[member.hold.row, column] -= max(used, asked) if is_new and member.lent else used
    return idle
