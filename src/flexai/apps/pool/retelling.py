"""What a new scheduler is told of what went before it, as events, in the order that ``scheduling.events`` asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flexai.model import DeviceHealth, MemberState, Residence
from flexai.policy.advance import Advance
from flexai.scheduling.events import (
    AdvanceTold,
    DeviceChanged,
    GrantsFound,
    JobCancelled,
    JobSubmitted,
    PlaceBooked,
    QueuePut,
)

if TYPE_CHECKING:
    from flexai.apps.pool.book import Book, JobRecord
    from flexai.model import Queue
    from flexai.scheduling.commands import NoteAdvance
    from flexai.scheduling.events import Event


def retell(book: Book, now_ms: int, ended_at_ms: int) -> list[Event]:
    """All that the book knows but for the nodes, which come last and by which things are decided.

    From ``ended_at_ms`` to now there was no pool: that time counts for nobody.
    """
    told: list[Event] = [QueuePut(now_ms, queue) for queue in _parents_first(book.queues)]
    told += [_advance(now_ms, ended_at_ms, noted) for _, noted in sorted(book.advances.items())]
    told += [
        DeviceChanged(
            now_ms,
            uuid,
            DeviceHealth.UNHEALTHY if uuid in book.ill else DeviceHealth.HEALTHY,
            cordoned=uuid in book.cordoned,
        )
        for uuid in sorted(book.cordoned | book.ill)
    ]
    told += [replace(usage, at_ms=now_ms) for usage in book.foreign.values()]
    active = list(book.active.values())
    for record in active:
        if record.is_placed:
            told += _found(now_ms, record)
    told += [
        JobSubmitted(now_ms, replace(record.job, after=tuple(a for a in record.job.after if a in book.active)))
        for record in active
        if not record.is_placed
    ]
    booked = [
        (one.seq, record.id, one)
        for record in active
        if not record.is_placed
        for one in [record.members[0].booked]
        if one is not None
    ]
    for _, job_id, one in sorted(booked, key=lambda each: each[:2]):
        told.append(PlaceBooked(now_ms, job_id, one.grants, one.hosts, one.claimed))
    return told


def _advance(now_ms: int, ended_at_ms: int, noted: NoteAdvance) -> AdvanceTold:
    """What a queue's large jobs had beyond its share when the pool ended."""
    one = Advance(noted.share_milli, noted.at_ms, noted.held_milli, noted.owed, noted.most_saved)
    one.settle(max(noted.at_ms, min(ended_at_ms, now_ms)))
    return AdvanceTold(now_ms, noted.queue, noted.resource, one.share_milli, one.owed, one.most_saved)


def _found(now_ms: int, record: JobRecord) -> list[Event]:
    """What a new scheduler is told of a job that has its place, and was perhaps being stopped."""
    grants = tuple(grant for member in record.members for grant in member.grants)
    stops = {number: member.stop for number, member in enumerate(record.members) if member.is_placed and member.stop}
    evicted = tuple(number for number, stop in stops.items() if stop.requeue)
    waiting = tuple(number for number, member in enumerate(record.members) if member.state is MemberState.WAITING)
    away = tuple(
        (number, member.residence)
        for number, member in enumerate(record.members)
        if member.is_placed and member.residence is not Residence.ON_CARD
    )
    hosts = tuple(
        (number, member.node) for number, member in enumerate(record.members) if member.is_placed and not member.grants
    )
    claimed = tuple(
        (number, claimant)
        for number, member in enumerate(record.members)
        if member.is_placed
        for claimant in [member.stop.claimant if member.stop else member.claimant]
        if claimant and (member.stop or member.residence is Residence.LEAVING)
    )
    kept_away = any(member.parked for member in record.members if member.is_placed)
    left = tuple(grant for member in record.members if member.is_placed for grant in member.left)
    for_others = [member for member in record.members if member.residence is Residence.IN_HOST and member.claimant]
    away_at_ms = max((member.away_at_ms or 0 for member in for_others), default=-1)
    host_bytes = tuple(
        (number, member.host_bytes)
        for number, member in enumerate(record.members)
        if member.is_placed and member.host_bytes is not None
    )
    found = GrantsFound(
        now_ms, record.job, grants, evicted, waiting, away, hosts, claimed, kept_away, left, away_at_ms, host_bytes
    )
    given_up = any(not stop.requeue and stop.cause.startswith("cancelled") for stop in stops.values())
    return [found, JobCancelled(now_ms, record.id)] if given_up else [found]


def _parents_first(queues: dict[str, Queue]) -> list[Queue]:
    """Queues in an order in which every parent comes before its children."""
    ordered: dict[str, Queue] = {}

    def place(queue: Queue) -> None:
        parent = queues.get(queue.parent)
        if parent is not None and parent.name not in ordered and parent.name != queue.name:
            place(parent)
        ordered.setdefault(queue.name, queue)

    for name in sorted(queues):
        place(queues[name])
    return list(ordered.values())
