"""The agent's checkpoint (``<state>/agent.json``): the members that hold slices on this node.

One JSON object, ``{"v": 1, "saved_at_ms": ..., "tenants": [...]}``. Fields added later have defaults; another version
is refused with both numbers.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from flexai.model import OVER_CAP, Grant, TenantClass
from flexai.node import Phase, Tenant
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, choice, flag, integer, text

VERSION = 1
_REMEDY = "Move the file away: running members are then found by their cgroups and ended"
_MAX_TEXT = 4096


def encode(tenants: Iterable[Tenant], saved_at_ms: int) -> bytes:
    """The file's bytes."""
    plain = {"v": VERSION, "saved_at_ms": saved_at_ms, "tenants": [asdict(tenant) for tenant in tenants]}
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def decode(data: bytes) -> list[Tenant]:
    """The members out of the file's bytes.

    Raises:
        BadInput: not such a file, or of another version.
    """
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput("agent.json", data[:40], f"is not JSON ({error})", _REMEDY) from None
    if not isinstance(plain, dict) or plain.get("v") != VERSION:
        version = plain.get("v") if isinstance(plain, dict) else None
        raise BadInput("agent.json", version, f"is not version {VERSION} of the checkpoint", _REMEDY)
    rows = plain.get("tenants")
    if not isinstance(rows, list):
        raise BadInput("agent.json: tenants", rows, "is not a list", _REMEDY)
    return [_tenant(row) for row in rows]


def _tenant(row: Any) -> Tenant:
    if not isinstance(row, dict):
        raise BadInput("agent.json: tenant", row, "is not an object", _REMEDY)
    grants = row.get("grants")
    if not isinstance(grants, list):
        raise BadInput("agent.json: grants", grants, "is not a list", _REMEDY)
    exit_code = row.get("exit_code")
    pid = row.get("pid")
    return Tenant(
        job_id=text(row, "job_id", "", 64),
        member=integer(row, "member", 0, MAX_INT),
        token=text(row, "token", "", 128),
        uid=integer(row, "uid", 0, 2**32 - 1),
        gid=integer(row, "gid", 0, 2**32 - 1),
        grants=tuple(grant_of(grant) for grant in grants),
        cpu_milli=integer(row, "cpu_milli", 0, MAX_INT, 0),
        ram_bytes=integer(row, "ram_bytes", 0, MAX_INT, 0),
        phase=Phase(choice(row, "phase", tuple(Phase), Phase.PREPARED)),
        pid=None if pid is None else integer(row, "pid", 1, MAX_INT),
        start_ticks=integer(row, "start_ticks", 0, MAX_INT, 0),
        attached=flag(row, "attached", default=False),
        exit_code=None if exit_code is None else integer(row, "exit_code", 0, 255),
        signal=integer(row, "signal", 0, 255, 0),
        cause=text(row, "cause", "", _MAX_TEXT),
        stopping=text(row, "stopping", "", _MAX_TEXT),
        paused=flag(row, "paused", default=False),
        paused_for=text(row, "paused_for", "", _MAX_TEXT),
        parked=flag(row, "parked", default=False),
        moving=flag(row, "moving", default=False),
        bound_for=tuple(grant_of(grant) for grant in _rows(row, "bound_for")),
        away=tuple(_away(one) for one in _rows(row, "away")),
        idle_timeout_ms=integer(row, "idle_timeout_ms", 0, MAX_INT, 0),
        over_cap=choice(row, "over_cap", ("", *OVER_CAP), ""),
    )


def _rows(row: dict[str, Any], name: str) -> list[Any]:
    rows = row.get(name, [])
    if not isinstance(rows, list):
        raise BadInput(f"agent.json: {name}", rows, "is not a list", _REMEDY)
    return rows


def _away(one: Any) -> tuple[int, tuple[str, ...]]:
    if not isinstance(one, list) or len(one) != 2 or not isinstance(one[1], list):
        raise BadInput("agent.json: away", one, "is not a pid and the cards that it left", _REMEDY)
    named = {"pid": one[0], **{str(at): card for at, card in enumerate(one[1])}}
    return integer(named, "pid", 1, MAX_INT), tuple(text(named, str(at), "", 63) for at in range(len(one[1])))


def grant_of(row: Any) -> Grant:
    """A grant out of its plain form.

    Raises:
        BadInput: it is not one.
    """
    if not isinstance(row, dict):
        raise BadInput("grant", row, "is not an object", "Send job_id, member, node, device and its numbers")
    compute_milli = integer(row, "compute_milli", 0, 1000)
    return Grant(
        job_id=text(row, "job_id", "", 64),
        member=integer(row, "member", 0, MAX_INT, 0),
        node=text(row, "node", "", 256),
        device=text(row, "device", "", 63),
        compute_milli=compute_milli,
        limit_milli=integer(row, "limit_milli", 0, 1000, 1000),
        memory_bytes=integer(row, "memory_bytes", 0, MAX_INT, 0),
        tenant_class=TenantClass(choice(row, "tenant_class", tuple(TenantClass), TenantClass.GUARANTEED)),
        borrow_weight=integer(row, "borrow_weight", 0, 1000, 0),
    )
