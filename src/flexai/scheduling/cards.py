"""Nodes and cards come, change and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import DeviceHealth
from flexai.scheduling import evicting, restart

if TYPE_CHECKING:
    from flexai.scheduling.events import DeviceChanged, NodePut
    from flexai.scheduling.state import State

SMALL_POOL = 64
"""Nodes below which a job of a quarter of the pool is big, whatever ``reserve_cards`` says."""


def put_node(state: State, event: NodePut) -> None:
    """A node appeared or changed; what was found on it after a restart is booked now."""
    known = len(state.books.models), _n_profiles(state)
    row = state.books.row_of.get(event.node.name)
    before = set() if row is None else set(state.books.uuids[row])
    state.books.put_node(event.node)
    evict_from(state, before - {device.uuid for device in event.node.devices}, "card is gone")
    if (len(state.books.models), _n_profiles(state)) != known:
        _reshape(state)
    _set_big(state)  # which of those that are found are large is noted as they are booked
    for job_id in state.found_on.pop(event.node.name, ()):
        found = state.found.get(job_id)
        if found is not None and restart.is_back(state, found):
            del state.found[job_id]
            restart.take_found(state, state.jobs[job_id], found)


def drop_node(state: State, name: str) -> None:
    """A node is gone, and what ran on it, with a card or without."""
    row = state.books.row_of.get(name)
    state.books.drop_node(name)
    for record in list(state.jobs.values()):
        if any(member.hold is not None and member.hold.row == row for member in record.members):
            evicting.evict_job(state, record, "node is gone")


def _n_profiles(state: State) -> int:
    return sum(map(len, state.books.profiles.values()))


def _set_big(state: State) -> None:
    """What counts as a big job depends on the size of a small pool."""
    books = state.books
    n_cards = sum(len(node.devices) for node in books.nodes.values()) if len(books.nodes) < SMALL_POOL else 10**6
    big_from = min(state.settings.reserve_cards, max(2, n_cards // 4))
    if big_from != state.big_from:
        state.big_from = big_from
        for record in [each for each in state.jobs.values() if not each.is_placed]:
            state.mark_big(record)


def change_device(state: State, event: DeviceChanged) -> None:
    """A card fell ill or recovered, was cordoned or let go, or is to be emptied."""
    books = state.books
    for why, closed in (("ill", event.health is not DeviceHealth.HEALTHY), ("cordoned", event.cordoned)):
        (books.close if closed else books.open)(event.uuid, why)
    if event.drain:
        evict_from(state, {event.uuid}, "card is drained")


def evict_from(state: State, uuids: set[str], cause: str) -> None:
    """Stop everything that holds one of these cards; it is requeued."""
    if not uuids:
        return
    for record in list(state.jobs.values()):
        if any(grant.device in uuids for member in record.members for grant in member.grants):
            evicting.evict_job(state, record, cause)


def _reshape(state: State) -> None:
    """Models or ways to cut them became known: shapes that name them mean something else now."""
    for record in state.jobs.values():
        asked = [role.request for role in record.job.parts]
        if any(each.models or each.partition for each in asked) and not record.is_placed:
            waits = record.line is not None
            if waits:
                state.leave(record)
            record.shapes = state.shapes_of(record.job)
            if waits:
                state.wait(record)
