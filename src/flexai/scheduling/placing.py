"""A round: what waits and could start now is tried, the most deserving first.

Lines of like jobs stand for their jobs. A line is tried only if something changed that could help it: it is new, or a
node that its shape fits gained something, or the reservation that it waited behind moved. What cannot start leaves no
trace (``Plan``), and its shape is blocked until a node it fits gains again, so that 5,000 waiting jobs cost nothing.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

import numpy as np

from flexai.cluster import Hold, Plan, group_sums
from flexai.model import JobState
from flexai.policy.reservation import NEVER_MS, reserve
from flexai.policy.roles import fits
from flexai.scheduling import booking, due, entitlement, parking, returning
from flexai.scheduling.gangs import place_members
from flexai.scheduling.predicting import ends_at, ends_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from flexai.cluster import Shape
    from flexai.policy.gang import Need
    from flexai.scheduling.records import JobRecord, Line, LineKey
    from flexai.scheduling.state import State

FEW_NODES = 512
MANY_RUNNING = 1_000
"""With so many running, ends are not predicted for each of a row of nodes that come back, but once, after them."""
FEW_GROUPS = 16
PREDICTED_FOR_MS = 10_000
"""Ends of what runs are predicted again after so long; in between a reservation follows what ends."""


def run_round(state: State) -> None:
    """Start what can start."""
    if state.booked:
        _serve_booked(state)
    _unblock(state)
    state.refused.clear()
    if not _start_big(state):
        return
    back: dict[LineKey, list[JobRecord]] = {}
    for record in sorted(returning.due(state), key=lambda each: each.job.seq) if state.parked else ():
        back.setdefault(returning.key_of(record), []).append(record)
    if not state.ready and not back:
        return
    if len(state.ready) == 1 and not back:  # by far the commonest: there is nothing to order
        (key,) = state.ready
        state.ready.clear()
        while (line := state.lines.get(key)) is not None and key.need not in state.blocked and _try_line(state, line):
            pass
        return
    heaps: dict[str, list[tuple[tuple[float, ...], LineKey]]] = {}
    for key in state.ready:
        if _has_place(state, key):
            heaps.setdefault(key.queue, []).append((due.rank_of(state, state.lines[key]), key))
    state.ready.clear()
    for key, some in back.items():  # before others of their priority: they were there already
        heaps.setdefault(key.queue, []).extend(((-key.priority, -1.0, record.job.seq), key) for record in some)
    for heap in heaps.values():
        heap.sort(key=lambda entry: entry[0])
    shares = entitlement.shares_of(state, 0) if len(heaps) > 1 else {}
    rank = due.turn if state.advances else entitlement.need_rank
    while heaps:
        queue = next(iter(heaps))
        if len(heaps) > 1:
            queue = min(heaps, key=lambda name: rank(state, shares, heaps[name][0][1]))
        heap = heaps[queue]
        _, key = heap.pop(0)
        if key in back:
            returning.wake_job(state, back[key].pop(0))
        line = state.lines.get(key)
        if line is not None and key.need not in state.blocked and _try_line(state, line) and key in state.lines:
            bisect.insort(heap, (due.rank_of(state, line), key), key=lambda entry: entry[0])
        while heap and heap[0][1].need in state.blocked:
            heap.pop(0)
        if not heap:
            del heaps[queue]


def _serve_booked(state: State) -> None:
    """Claimants start whose place is free, or who fit elsewhere by now; what became free of the others' is kept."""
    for job_id in [name for name in state.booked if booking.is_void(state, name)]:
        booking.drop(state, job_id)
    rows = np.array(sorted(state.books.gained), dtype=np.int64)
    if not len(rows):
        return
    for one in state.booked.values():
        if one.keep(state.books):
            state.reservation = None
    for job_id in list(state.booked):
        if job_id in state.booked:
            _serve(state, state.jobs[job_id], rows)


def _serve(state: State, record: JobRecord, rows: NDArray[np.int64]) -> None:
    """Start one claimant, if it can; the first of its line in its stead, which is like it and was there before."""
    line = state.lines[record.line] if record.line is not None else None
    one = state.booked[record.job.id]
    if line is None or not (one.is_complete or any(state.books.fits(shape, rows).any() for shape in one.need.shapes)):
        return
    if one.is_complete:
        if booking.may_begin(state, record):
            first = booking.first_like(state, record)
            begin(state, first, booking.take(state, first), "what was vacated for it is free")
        else:
            booking.drop(state, record.job.id)
        return
    returning.let_go(state, one.kept)
    held, one.kept = one.kept, []
    if fits(state.books, record.need) and line.head is record and _try_line(state, line):
        return
    for hold in held:
        state.books.take(hold)
    one.kept = held
    if not entitlement.is_claiming(state, record):
        booking.drop(state, record.job.id)


def _has_place(state: State, key: LineKey) -> bool:
    """Whether one member of such a job fits anywhere; if not, the need is blocked before its lines cost anything."""
    if key.need not in state.blocked and not _may_fit(key.need, state.placement.has_place):
        state.blocked[key.need] = None
    return key.need not in state.blocked


def _may_fit(need: Need, has_place: Callable[[Shape], bool]) -> bool:
    """Whether one member of every part has a place; of any, if the job grows."""
    return (any if need.grows else all)(map(has_place, need.shapes))


def _unblock(state: State) -> None:
    """Shapes that fit a node which gained something may be tried again."""
    gained = state.books.gained
    if not gained:
        return
    rows = np.array(sorted(gained), dtype=np.int64)
    gained.clear()
    fits: dict[Shape, bool] = {}
    for need in list(state.blocked):
        for shape in need.shapes:
            if shape not in fits:
                fits[shape] = bool(state.books.fits(shape, rows).any())
        if any(fits[shape] for shape in need.shapes):
            del state.blocked[need]
            state.ready.update(state.by_need[need])
    # What waited behind a reservation, or at a queue's limit, may pass now that something ended.
    state.ready.update(state.deferred)
    state.deferred.clear()
    held_for = state.reservation
    if held_for is not None:
        held_for.has_news = True
        if state.now_ms >= held_for.shadow_ms or state.now_ms - held_for.made_at_ms >= PREDICTED_FOR_MS:
            state.reservation = None


def _try_line(state: State, line: Line) -> bool:
    """Start the line's first job if it can; else note what would let it be tried again."""
    record = line.head
    job = record.job
    if job.queue not in state.queues or state.queues.over_limit(job.queue, record.needed_milli):
        state.deferred[line.key] = None
        return False
    if state.queues.over_user_limit(job.queue, job.user, record.needed_milli):
        state.deferred[line.key] = None
        return False
    held_for = state.reservation
    ends_at_ms = 0
    if held_for is not None and held_for.job_id != job.id:
        ends_at_ms = ends_ms(state, record)
        if ends_at_ms >= state.refused.get(line.key.need, NEVER_MS):
            state.deferred[line.key] = None
            return False
    kept = returning.keep(state, record) if state.parked else []
    plan = Plan(state.books)
    placed = place_members(state, record, plan)
    returning.let_go(state, kept)
    if placed is None:
        if not state.is_limited(record) and not kept:
            state.blocked[line.key.need] = None
        else:  # a limit of its queue, or who is parked, keeps it off some cards; another queue's may start
            state.deferred[line.key] = None
        return False
    if held_for is not None and held_for.job_id != job.id and not held_for.lets_pass(placed.values(), ends_at_ms):
        plan.undo()
        state.refused[line.key.need] = ends_at_ms
        state.deferred[line.key] = None
        return False
    plan.keep()
    begin(state, record, placed, "fits")
    return True


def begin(state: State, record: JobRecord, placed: Mapping[int, Hold], cause: str, *, lent: bool = False) -> None:
    """Start every member for which there is a hold (already in the books)."""
    state.leave(record)
    booking.drop(state, record.job.id)
    grows = record.is_placed
    if not grows:
        due.note_large(state, record)
    n_waiting = record.n_to_start
    for number, hold in placed.items():
        state.start(record, number, hold, cause, lent=lent)
    if not grows:
        state.claims.pop(record.job.id, None)
        if state.places_told:
            state.places_told.pop(record.job.id, None)
        record.started_at_ms = state.now_ms
        state.note_running(record, runs=True)
        state.run_times.started(record.burst, record.job.id, state.now_ms)
        state.set_state(record, JobState.STARTING, cause)
    if len(placed) < n_waiting:
        state.wait(record)


def _start_big(state: State) -> bool:
    """The large job that is due starts or gets the reservation; False if that was put off: others wait."""
    while state.big:
        held_for = state.reservation
        if held_for is not None and held_for.job_id in state.big and not held_for.has_news:
            return True
        line = due.next_large(state)
        if line is None:
            state.reservation = None
            return True
        record = line.head
        if held_for is not None and held_for.job_id != record.job.id:  # another is due by now
            held_for = state.reservation = None
        if line.key.need not in state.blocked and _try_line(state, line):
            state.reservation = None
            continue
        if held_for is not None and held_for.job_id == record.job.id and state.reservation is not None:
            held_for.has_news = False
            return True
        if state.settling and len(state.running) > MANY_RUNNING:
            return False
        state.reservation = reserve(record.job.id, record.need, state.books, state.now_ms, _ends_for(state, record))
        return True
    return True


def _ends_for(state: State, claimant: JobRecord) -> Iterator[tuple[int, Hold]]:
    """When what runs where the claimant may go will likely be over, hold by hold.

    With a required level, on a large cluster, only the groups are looked at where most is free already.
    """
    books, level = state.books, claimant.job.required_level
    running: Iterable[str] = state.running
    if level in books.topology and len(books.names) > FEW_NODES:
        n = len(books.names)
        groups = books.topology.groups(level, n)
        able = np.logical_and.reduce(
            [group_sums(groups, books.n_fit_emptied(shape)) >= where.n_members for shape, where in claimant.need.parts]
        )
        granted = group_sums(groups, books.granted_milli[:n].sum(axis=1))
        best = np.argsort(np.where(able, granted, 2**62), kind="stable")[:FEW_GROUPS]
        holders = state.evictable_holds.holders
        rows = np.flatnonzero(np.isin(groups, best)).tolist()
        running = dict.fromkeys(job_id for row in rows for job_id in holders.get(row, ()))
    passes_on: dict[tuple[str, int], int] = {}  # what is vacated for a claimant is its own until it is over
    for job_id, one in state.booked.items():
        over_ms = ends_ms(state, state.jobs[job_id])
        passes_on |= dict.fromkeys(state.claims[job_id], over_ms)
        for kept in one.kept:
            yield over_ms, kept
    for job_id in running:
        record = state.jobs[job_id]
        end_ms = ends_at(state, record)
        for index, member in enumerate(record.members):
            hold = parking.leaves(member)
            if hold is not None and (job_id, index) in passes_on and (job_id, index) in state.stopping:
                yield passes_on[job_id, index], hold
            elif hold is not member.hold and hold is not None:
                yield state.now_ms, hold
            elif hold is not None:
                stops_ms = max(state.now_ms, member.stopped_at_ms + state.grace_ms(record.job))
                yield stops_ms if member.evicting else end_ms, hold


def hold_of(
    places: list[tuple[int, int]],
    compute_milli: int,
    memory_bytes: tuple[int, ...],
    cpu_milli: int,
    ram_bytes: int,
    cut: tuple[int, ...] = (),
) -> Hold:
    """A hold from cards by place (all of one node)."""
    return Hold(places[0][0], tuple(c for _, c in places), compute_milli, memory_bytes, cpu_milli, ram_bytes, cut)
