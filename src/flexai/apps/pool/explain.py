"""Why a job is where it is: its reason, its line, and what every card says to it."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.devices import HEALTHY, promised_bytes
from flexai.apps.pool.identity import Peer
from flexai.apps.pool.service import Pool
from flexai.apps.pool.views import queue_view, reason_view
from flexai.cluster import Shape
from flexai.model import MILLI_PER_DEVICE, Device, Grant, JobState, Node, Role
from flexai.policy.filters import FILTERS, Cards, Filter
from flexai.wire.store import to_plain


def explain(pool: Pool, peer: Peer, record: JobRecord) -> dict[str, Any]:
    """All that bears on a job now; numbers, and a sentence for each card."""
    queue = pool.book.queues.get(record.job.queue)
    return {
        "state": record.state.value,
        "reason": reason_view(pool.core.reason_for(record)),
        "position": pool.book.position(record),
        "queue": queue_view(queue, pool.book) if queue else None,
        "waits_for": [job_id for job_id in record.job.after if job_id in pool.book.active],
        "would_start_if_ended": _blockers(pool, peer, record),
        "agent_connected": pool.link.is_connected,
        "over_cap": over_caps(pool, record),
        "borrows": _borrows(pool, record),
        "cards": _cards(pool, record),
    }


def _blockers(pool: Pool, peer: Peer, record: JobRecord) -> list[dict[str, Any]]:
    """Jobs whose end, all together, would let this one start; of other users' jobs not which."""
    if record.state is not JobState.QUEUED or not pool.link.is_connected:
        return []
    found = []
    for blocker in pool.core.scheduler.what_must_end(record.id):
        holder = pool.book.active.get(blocker.job_id)
        view = to_plain(blocker)
        if holder is None or not peer.owns(holder.uid):
            view["job_id"] = None
        found.append(view)
    return found


def _borrows(pool: Pool, record: JobRecord) -> list[dict[str, Any]]:
    """What its members that run on lent compute are due of what is idle on their cards, and why."""
    return [
        {"member": number, **to_plain(due), "says": says}
        for number, (due, says) in pool.core.scheduler.due_of(record.id).items()
    ]


def over_caps(pool: Pool, record: JobRecord) -> list[dict[str, Any]]:
    """Cards of which the job holds more memory than its cap now, and by which path."""
    found = []
    for number, member in enumerate(record.members):
        for grant in member.grants:
            seen = pool.link.measured(record.id, number, grant.device)
            if seen.get("over_cap_bytes"):
                shown = {name: seen[name] for name in ("used_bytes", "over_cap_bytes", "leak", "leak_says")}
                found.append({"member": number, "uuid": grant.device, "cap_bytes": grant.memory_bytes, **shown})
    return found


@dataclass(slots=True)
class _Held:
    """What members hold of one machine, and of its cards by UUID: the grants, each with whose it is."""

    cpu_milli: int = 0
    ram_bytes: int = 0
    on_card: dict[str, list[tuple[JobRecord, Grant]]] = field(default_factory=dict)


def _cards(pool: Pool, record: JobRecord) -> list[dict[str, Any]]:
    """What every card says to a job."""
    held: defaultdict[str, _Held] = defaultdict(_Held)
    for holder, number, member in pool.book.holders():
        role, host = holder.job.role_of(number), held[member.grants[0].node if member.grants else member.node]
        host.cpu_milli += role.cpu_milli
        host.ram_bytes += role.ram_bytes
        for grant in member.on_card:
            held[grant.node].on_card.setdefault(grant.device, []).append((holder, grant))
    said = {
        node.name: {role: _on_host(role, node, held[node.name]) for role in record.job.parts if role.request.n_devices}
        for node in pool.book.nodes.values()
    }
    return [
        _card(pool, record, device, held[node.name].on_card.get(device.uuid, []), said[node.name])
        for node, device in pool.book.devices()
    ]


def _card(
    pool: Pool,
    record: JobRecord,
    device: Device,
    held: list[tuple[JobRecord, Grant]],
    of_host: dict[Role, list[str]],
) -> dict[str, Any]:
    free_milli = MILLI_PER_DEVICE - sum(grant.compute_milli for _, grant in held)
    foreign = int(pool.link.foreign.get(device.uuid, {}).get("memory_bytes", 0))
    taken = promised_bytes(device, [grant for _, grant in held])
    free_bytes = max(0, device.memory_bytes - taken - foreign)
    said = {
        role: lacks + _problems(pool, role, device, free_milli, free_bytes, is_held=taken > 0)
        for role, lacks in of_host.items()
    }
    is_here = any(holder is record for holder, _ in held)
    says = "; ".join(
        (f"{role.name}: " if role.name else "") + ("; ".join(problems) or "has room for one member")
        for role, problems in said.items()
    )
    return {
        "uuid": device.uuid,
        "index": device.index,
        "free_milli": free_milli,
        "free_bytes": free_bytes,
        "fits": not all(said.values()) and not is_here,
        "says": "the job is on it" if is_here else says,
    }


def _on_host(role: Role, node: Node, held: _Held) -> list[str]:
    """What the machine of a card lacks for one member."""
    free_milli = max(0, node.cpu_milli - held.cpu_milli)
    free_bytes = max(0, node.ram_bytes - held.ram_bytes)
    problems = []
    if free_milli < role.cpu_milli:
        problems.append(f"its machine has {free_milli / 1000:g} CPUs free, not {role.cpu_milli / 1000:g}")
    if free_bytes < role.ram_bytes:
        problems.append(f"its machine has {free_bytes / 2**30:.4g} GiB free, not {role.ram_bytes / 2**30:.4g} GiB")
    return problems


def _problems(pool: Pool, role: Role, device: Device, free_milli: int, free_bytes: int, *, is_held: bool) -> list[str]:
    """What keeps a member of a role off a card."""
    request = role.request
    wanted_bytes = request.memory_bytes or device.memory_bytes
    problems = []
    if pool.link.health.get(device.uuid, HEALTHY) is not HEALTHY:
        problems.append("is not healthy")
    if device.uuid in pool.book.cordoned:
        problems.append("is cordoned")
    if request.models and device.model not in request.models:
        problems.append(f"is a {device.model}, not one of {', '.join(request.models)}")
    if free_milli < request.compute_milli:
        problems.append(f"has {free_milli / 10:g}% of its compute free, not {request.compute_milli / 10:g}%")
    if free_bytes < wanted_bytes:
        problems.append(f"has {free_bytes / 2**30:.4g} GiB of its memory free, not {wanted_bytes / 2**30:.4g} GiB")
    return problems or [
        f"has room for one member, but filter {name} keeps it off"
        for name in pool.settings.scheduler.filters
        if not _lets_pass(FILTERS[name], role, free_milli, free_bytes, is_held=is_held)
    ]


def _lets_pass(filter_: Filter, role: Role, free_milli: int, free_bytes: int, *, is_held: bool) -> bool:
    """Whether a filter lets one member onto a card in this state."""
    ask = role.request
    shape = Shape(role.cpu_milli, role.ram_bytes, ask.n_devices, ask.compute_milli, ask.memory_bytes, ask.is_whole)
    return bool(filter_(Cards(np.array([[free_milli]]), np.array([[free_bytes]]), np.array([[is_held]])), shape)[0, 0])
