"""Cards as the API shows them: what is known, granted and measured of each."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.http import Refusal
from flexai.apps.pool.identity import Peer
from flexai.apps.pool.service import Pool
from flexai.model import Device, DeviceHealth, Grant, TenantClass
from flexai.wire.quantity import format_share, format_size

HEALTHY = DeviceHealth.HEALTHY
_WHOLE_MILLI = 1000


def views(pool: Pool, peer: Peer) -> list[dict[str, Any]]:
    """All cards; of other users' slices only what they take."""
    slices: defaultdict[str, list[tuple[JobRecord, int, Grant]]] = defaultdict(list)
    for record, member, held in pool.book.holders():
        for grant in held.on_card:
            slices[grant.device].append((record, member, grant))
    items = []
    for node, device in pool.book.devices():
        held_here = slices[device.uuid]
        foreign = pool.link.foreign.get(device.uuid, {})
        shared = pool.link.card(device.uuid)
        over = over_commit(device, [grant for _, _, grant in held_here])
        items.append(
            {
                "uuid": device.uuid,
                "node": node.name,
                "model": device.model,
                "vendor": device.vendor,
                "index": device.index,
                "memory_bytes": device.memory_bytes,
                "health": pool.link.health.get(device.uuid, HEALTHY).value,
                "cordoned": device.uuid in pool.book.cordoned,
                "backend": shared.get("backend"),
                "note": _note(shared, over),
                "source": "simulated" if device.vendor == "simulated" else "real",
                "accounting": shared.get("source"),
                "round_ms": (shared.get("round_ns") or 0) / 1e6,
                "compute_granted_milli": sum(grant.compute_milli for _, _, grant in held_here),
                "memory_granted_bytes": promised_bytes(device, [grant for _, _, grant in held_here]),
                "over_committed": over or None,
                "foreign_memory_bytes": foreign.get("memory_bytes", 0),
                "foreign_compute_milli": foreign.get("compute_milli", 0),
                "slices": [
                    _slice(pool, peer, record, member, grant)
                    | {"due_milli": due_milli(grant, [g for _, _, g in held_here])}
                    for record, member, grant in held_here
                ],
            }
        )
    return items


def over_commit(device: Device, grants: Sequence[Grant]) -> str:
    """What is promised of a card beyond what it has, and what that means; empty where nothing is.

    No decision of ours leads there: a card that came back with less memory does, or grants that an older log tells of.
    """
    milli, n_bytes = sum(grant.compute_milli for grant in grants), promised_bytes(device, grants)
    said = []
    if milli > _WHOLE_MILLI:
        said.append(f"{format_share(milli)} of its compute is promised: each has its part in proportion")
    if n_bytes > device.memory_bytes:
        has, promised = format_size(device.memory_bytes), format_size(n_bytes)
        said.append(f"{promised} of its {has} of memory are promised: who comes last is refused some")
    return "; ".join(said)


def over_committed(pool: Pool) -> Iterator[tuple[Device, str]]:
    """Cards of which more is promised than they have, and what."""
    grants: defaultdict[str, list[Grant]] = defaultdict(list)
    for _, _, held in pool.book.holders():
        for grant in held.on_card:
            grants[grant.device].append(grant)
    for _, device in pool.book.devices():
        if told := over_commit(device, grants[device.uuid]):
            yield device, told


def promised_bytes(device: Device, grants: Sequence[Grant]) -> int:
    """Memory of a card that is promised; a grant that names none has all of it."""
    return sum(grant.memory_bytes or device.memory_bytes for grant in grants)


def due_milli(grant: Grant, beside: Sequence[Grant]) -> int | None:
    """Of what owners leave of a card, the part that one who holds none of its compute is due; of others None.

    As the arbiter divides it among those whose work waits: by what they hold, or else by their borrowing weights.
    """
    if grant.compute_milli or grant.tenant_class is not TenantClass.BEST_EFFORT:
        return None
    weights = [
        each.compute_milli or each.borrow_weight or 1 for each in beside if each.tenant_class is TenantClass.BEST_EFFORT
    ]
    return round(_WHOLE_MILLI * (grant.borrow_weight or 1) / sum(weights))


def _note(shared: dict[str, Any], over: str) -> str | None:
    adrift_bytes = shared.get("adrift_bytes") or 0
    adrift = f"{adrift_bytes >> 20} MiB belong to no process (managed pages or host memory)" if adrift_bytes else ""
    return "; ".join(filter(None, (over, shared.get("note"), adrift))) or None


def find(pool: Pool, name: str) -> str:
    """The uuid of the card that a uuid or an index names.

    Raises:
        Refusal: there is none.
    """
    for _, device in pool.book.devices():
        if name in (device.uuid, str(device.index)):
            return device.uuid
    known = ", ".join(f"{device.index} ({device.uuid})" for _, device in pool.book.devices())
    raise Refusal(
        404, "UnknownDevice", f"There is no card {name[:80]}.", "device", name[:80],
        f"Use one of: {known}" if known else "No card is known; see `flexai status`",
    )  # fmt: skip


def _slice(pool: Pool, peer: Peer, record: JobRecord, member: int, grant: Grant) -> dict[str, Any]:
    mine = peer.owns(record.uid)
    view: dict[str, Any] = {
        "job_id": record.id if mine else None,
        "member": member if mine else None,
        "user": record.job.user if mine else None,
        "name": record.submission.name or record.submission.command[0].rsplit("/", 1)[-1] if mine else None,
        "asked_milli": grant.compute_milli,
        "limit_milli": grant.limit_milli,
        "memory_bytes": grant.memory_bytes,
        "tenant_class": grant.tenant_class.value,
        "state": record.state.value,
    }
    return view | pool.link.measured(record.id, member, grant.device)
