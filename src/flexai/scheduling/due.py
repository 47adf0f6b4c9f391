"""Which of the large jobs that wait is next to be started, or to have the one reservation.

Small jobs of all queues go by fair share as what they need becomes free. A reservation takes it from all of them, so a
queue is not given one after another: while others wait it first makes up for what its large jobs had beyond its fair
share (docs/adr/0018).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.cluster import ALL_CARDS
from flexai.policy.advance import Advance
from flexai.scheduling import entitlement
from flexai.scheduling.commands import NoteAdvance

if TYPE_CHECKING:
    from flexai.scheduling.entitlement import Shares
    from flexai.scheduling.records import JobRecord, Line, LineKey
    from flexai.scheduling.state import State


def next_large(state: State) -> Line | None:
    """The line whose head, a large job that may start and has no place booked, is next.

    Inside a queue, one for which others were stopped before all; then by priority, and by the largest ratio of time
    waited to expected card time: short ones soon, long ones surely (highest response ratio next: Brinch Hansen 1971).
    Of several queues, those that are within their quota with it come first, then who saved the largest part of what it
    takes; then that ratio counts for the less the more of its share a queue would hold.
    """
    first: dict[str, tuple[tuple[float, ...], Line]] = {}
    for job_id in state.big:
        record = state.jobs[job_id]
        if job_id in state.booked:
            continue
        assert record.line is not None
        line = state.lines[record.line]
        if line.head is record and state.queues.over_limit(record.job.queue, record.needed_milli) is None:
            priority, cost, seq = rank_of(state, line)
            waited_ms = state.now_ms - record.job.submitted_at_ms
            rank = (job_id not in state.claims, priority, cost / max(waited_ms, 1), seq)
            before = first.get(record.job.queue)
            if before is None or rank < before[0]:
                first[record.job.queue] = (rank, line)
    if len(state.queues) == 1 or not first:
        return next((line for _, line in first.values()), None)
    shares = entitlement.shares_of(state, 0)
    due: list[tuple[tuple[float, ...], Line]] = []
    for (claims_not, _, slowness, seq), line in first.values():
        if line.key.queue in state.queues:
            record, milli = line.head, line.head.needed_milli
            state.advances[_counts_in(state, record)] = advance = advance_of(state, shares, record)
            if not claims_not or not must_make_up(state, shares, record):
                saved = advance.owed / max(advance.most_saved, 1)
                beyond = not entitlement.is_within_quota(state, line.key, milli)
                over = entitlement.use_over_share(state, shares, line.key, milli)
                due.append(((claims_not, beyond, saved, slowness * over, seq), line))
    return min(due, key=lambda each: each[0])[1] if due else None


def turn(state: State, shares: Shares, key: LineKey) -> tuple[float, ...]:
    """Order of queues in a round, by the first line of each: a large job of one that must make up for some is last."""
    line = state.lines.get(key)
    late = line is not None and line.head.n_cards >= state.big_from and must_make_up(state, shares, line.head)
    return (float(late), *entitlement.need_rank(state, shares, key))


def must_make_up(state: State, shares: Shares, record: JobRecord) -> bool:
    """Whether others wait, the queue's large jobs had more than its share, and its quota does not give it this one."""
    return (
        record.line is not None
        and record.job.queue in state.queues
        and advance_of(state, shares, record).owed > 0
        and not entitlement.is_within_quota(state, record.line, record.needed_milli)
        and bool(who_waits(state, record))
    )


def advance_of(state: State, shares: Shares, record: JobRecord) -> Advance:
    """What the queue of a large job that waits owes by now, or has saved for it. Nothing is noted."""
    at = _counts_in(state, record)
    now = replace(state.advances[at]) if at in state.advances else Advance(0, state.now_ms)
    now.settle(state.now_ms)
    now.share_milli = shares.get(at, 0)
    now.save_at_most(int(record.needed_milli * state.run_times.expected_ms(record.burst, state.now_ms)))
    return now


def note_large(state: State, record: JobRecord) -> None:
    """A job starts: of a large one it is noted what it holds and for how long, if there is more than one queue."""
    record.counts_in = None
    if len(state.queues) > 1 and record.n_cards >= state.big_from and record.job.queue in state.queues:
        at = record.counts_in = _counts_in(state, record)
        if at not in state.advances:  # it did not wait: until one does, nobody minds what it holds
            state.advances[at] = Advance(1000 * state.books.n_open(at[1]), state.now_ms)


def note_advances(state: State) -> None:
    """Say what queues' large jobs had, where that is not what follows from what was said before."""
    for at, now in state.advances.items():
        noted = state.advances_noted.get(at)
        if noted is not None:
            noted.settle(now.at_ms)
        if noted != now:
            state.advances_noted[at] = replace(now)
            state.out.append(NoteAdvance(*at, now.share_milli, now.at_ms, now.held_milli, now.owed, now.most_saved))


def _counts_in(state: State, record: JobRecord) -> tuple[str, str]:
    """Queue and resource against whose share a large job counts."""
    return record.job.queue, entitlement.resource_for(state, record.shapes)


def who_waits(state: State, record: JobRecord) -> list[str]:
    """Other queues, not at their limit, of which jobs wait that may use the cards that a job waits for."""
    mine = state.class_of(record.shapes)
    waiting: dict[str, int] = {}
    for (name, device_class), milli in state.waiting_milli.items():
        if device_class == ALL_CARDS:
            waiting[name] = waiting.get(name, 0) + milli
        elif mine not in (ALL_CARDS, device_class):  # these are of no use to them
            waiting[name] = waiting.get(name, 0) - milli
    return [
        name
        for name, milli in waiting.items()
        if milli > 0 and name != record.job.queue and name in state.queues and not state.queues.over_limit(name, 1)
    ]


def rank_of(state: State, line: Line) -> tuple[float, ...]:
    """Order inside a queue: priority, then least expected card time (ADR 3), then submission."""
    head = line.head
    if state.settings.order == "fifo":
        return (-line.key.priority, 0.0, head.job.seq)
    expected_ms = state.run_times.expected_ms(line.key.burst, state.now_ms)
    return (-line.key.priority, expected_ms * line.key.asked_milli, head.job.seq)
