"""What every ``ports.DeviceBackend`` must do: one suite for fake, simulated and real cards of any vendor.

``run`` answers a row per check: ``yes``, ``no: why`` (a capability that the backend honestly says it lacks), or raises
AssertionError where it breaks its word. The support matrix in the README is made of these rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flexai.model import DeviceHealth

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flexai.ports import DeviceBackend

YES = "yes"
NOT_RUN = "not yet run"


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds memory on a card: started by the caller, seen by the backend."""

    pid: int
    uuid: str
    least_bytes: int


def lists_cards(backend: DeviceBackend, _holder: Holder | None) -> str:
    """The same cards each time, by UUID, with their memory."""
    devices = backend.devices()
    assert devices, "no cards"
    assert backend.devices() == devices
    assert [device.index for device in devices] == sorted(device.index for device in devices)
    assert len({device.uuid for device in devices}) == len(devices)
    assert all(device.memory_bytes > 0 and device.model and device.vendor for device in devices)
    return YES


def reads_cards(backend: DeviceBackend, _holder: Holder | None) -> str:
    """Health, memory in use and how busy it is, one reading for each card, in order."""
    readings = backend.readings()
    assert [reading.uuid for reading in readings] == [device.uuid for device in backend.devices()]
    for reading in readings:
        assert 0 <= reading.used_bytes <= reading.total_bytes
        assert -1 <= reading.busy_milli <= 1000
        assert (reading.health is DeviceHealth.HEALTHY) == (reading.note == "")
    return YES


def sees_processes(backend: DeviceBackend, holder: Holder | None) -> str:
    """Who holds memory on which card, a process once for each card."""
    found = backend.processes()
    assert len({(one.uuid, one.pid) for one in found}) == len(found)
    assert {one.uuid for one in found} <= {device.uuid for device in backend.devices()}
    if holder is None:
        return "no: nothing to see was given"
    used = {(one.uuid, one.pid): one.used_bytes for one in found}
    assert (holder.uuid, holder.pid) in used, f"process {holder.pid} is not seen"
    assert used[holder.uuid, holder.pid] >= holder.least_bytes or used[holder.uuid, holder.pid] == -1
    return YES


def shows_only_granted_cards(backend: DeviceBackend, _holder: Holder | None) -> str:
    """The environment of a tenant names the cards that it was granted, in its order, and no other."""
    uuids = [device.uuid for device in backend.devices()]
    text = ",".join(backend.tenant_env(uuids[:1]).values())
    if not text:
        return "no: cards are told by other means"
    assert uuids[0] in text
    assert not any(uuid in text for uuid in uuids[1:])
    return YES


def guards_device_files(backend: DeviceBackend, _holder: Holder | None) -> str:
    """Device nodes that only a card's holders may open."""
    files = [backend.device_files(device.uuid) for device in backend.devices()]
    if not any(files):
        return "no: its cards have no device files"
    flat = [path for paths in files for path in paths]
    assert len(set(flat)) == len(flat), "two cards share a device file"
    return YES


def parks(backend: DeviceBackend, holder: Holder | None) -> str:
    """Device memory to the host and back, or why not; who is parked is found among processes that never were."""
    can, why = backend.can_park()
    assert can == (why == "")
    if not can or holder is None:
        return f"no: {why or 'nothing to park was given'}"
    backend.park(holder.pid)
    assert holder.pid not in {one.pid for one in backend.processes()}
    backend.wake([os.getpid(), holder.pid])
    return sees_processes(backend, holder)


def moves(backend: DeviceBackend, holder: Holder | None) -> str:
    """What was parked comes back to another card of its model, is seen there and nowhere else, and back again."""
    can, why = backend.can_move()
    assert can == (why == "")
    assert can <= backend.can_park()[0]
    if not can or holder is None:
        return f"no: {why or 'nothing to move was given'}"
    here = next(device for device in backend.devices() if device.uuid == holder.uuid)
    others = [one.uuid for one in backend.devices() if one.model == here.model and one.uuid != here.uuid]
    if not others:
        return "no: it has one card of a model"
    for left, comes in ((here.uuid, others[0]), (others[0], here.uuid)):
        backend.park(holder.pid)
        backend.wake([os.getpid(), holder.pid], {left: comes})
        assert {one.uuid for one in backend.processes() if one.pid == holder.pid} == {comes}
        sees_processes(backend, replace(holder, uuid=comes))
    return YES


CHECKS: dict[str, Callable[[DeviceBackend, Holder | None], str]] = {
    "lists cards": lists_cards,
    "reads health, memory, use": reads_cards,
    "sees processes and their memory": sees_processes,
    "shows tenants only their cards": shows_only_granted_cards,
    "keeps others from the device files": guards_device_files,
    "parks memory on the host": parks,
    "wakes on another card": moves,
}


def run(backend: DeviceBackend, holder: Holder | None) -> dict[str, str]:
    """All checks on one backend.

    Raises:
        AssertionError: it breaks the contract.
    """
    return {name: check(backend, holder) for name, check in CHECKS.items()}


def matrix(results: Mapping[str, Mapping[str, str] | None]) -> str:
    """The support matrix as a Markdown table, one column for each backend; None is a backend that was not run."""
    lines = ["| | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for check in CHECKS:
        cells = (NOT_RUN if found is None else _cell(found.get(check, NOT_RUN)) for found in results.values())
        lines.append(f"| {check} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: str) -> str:
    return YES if result == YES else result.partition(":")[0]
