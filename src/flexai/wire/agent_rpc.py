"""Pool <-> agent: JSON lines on the agent's Unix stream socket (``<run>/agent.sock``, owner only).

The pool sends ``{"v": 1, "id": n, "op": ..., ...}``; the agent answers ``{"v": 1, "id": n, "ok": true, ...}`` or
``{"ok": false, "code": "...", "message": "...", "remedy": "..."}``. After ``subscribe`` the agent also sends events,
``{"v": 1, "event": ..., ...}``, with a sequence number so that a reader that comes back asks for what it missed.

Operations (all idempotent by ``(job_id, member)``):

========== =============================================================== ==========================================
op          request                                                         answer
========== =============================================================== ==========================================
hello       --                                                              node (name, cpu_milli, ram_bytes, devices),
                                                                            privileged, backend per device, notes,
                                                                            hostile_frozen_by (group or signal)
prepare     job_id, member, token, uid, gid, grants, cpu_milli, ram_bytes,  env, cgroup (or null), tenant_dir
            over_cap
start       job_id, member, argv, cwd, env, uid, gid, log_path,             pid, start_ticks
            time_limit_ms, idle_timeout_ms, token
attach      job_id, member, pid                                             -- (a `run` child, before exec)
signal      job_id, member, signal, grace_ms (0: only the signal)           --
pause       job_id, member / unpause                                        --
park        job_id, member, host_bytes (booked there)                       seconds
wake        job_id, member, grants (if on other cards than its own)         seconds
resize      job_id, member, grants                                          --
unprepare   job_id, member                                                  --
tenants     --                                                              prepared members: job_id, member, token,
                                                                            state, pid, exit_code, cause
usage       --                                                              per tenant and device, in ns
doctor      --                                                              list of checks (name, ok, detail, remedy)
subscribe   from_seq                                                        --
========== =============================================================== ==========================================

``token`` names one start of one member (``<job_id>.<member>.<n>``, n counts from 1): a start with a token that was used
does nothing, and ``tenants`` and the events about a member carry the token of the start they speak of, so that news of
an earlier start is not taken for news of this one. ``state`` of a tenant: ``prepared``, ``running``, ``finished`` (its
processes are gone; it stays listed, with exit_code and cause, until ``unprepare``).

Events: ``started``, ``finished`` (exit_code, signal, cause), ``shim`` (alive or lost), ``device`` (health),
``foreign`` (outside use of a card), ``no_shim`` (a member's process uses a card without the shim: pid),
``over_cap`` (a member holds more device memory than its cap: used_bytes, cap_bytes, by which leaks, and the action
taken), ``hostile`` (a member acted against control: how often, what freezes it, and the action taken), ``rescued``
(what somebody else did to a member's channels was undone: how often), ``adrift`` (bytes on a card that belong to no
process: suspects), ``arbiter`` (connected or not), ``usage`` (twice a second while subscribed). Those of memory are
told once, to who listens or to the first who does; those of use only to who listens.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flexai.model import OVER_CAP, Grant
from flexai.node import Key, LaunchSpec, Tenant
from flexai.wire.checkpoint import grant_of
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, choice, integer, text

VERSION = 1
MAX_LINE_BYTES = 1 << 20
_MAX_ID = 2**32 - 2
_MAX_ARGUMENTS = 10_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,47}")
_NAME_REMEDY = "Use at most 48 letters, digits, dots, dashes and underscores"


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the pool."""

    id: int
    op: str
    fields: Mapping[str, Any]


def request(line: bytes) -> Request:
    """Decode a line.

    Raises:
        BadInput: not a request of this version.
    """
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput("line", line[:40], f"is not JSON ({error})", "Send one JSON object a line") from None
    if not isinstance(plain, dict):
        raise BadInput("line", line[:40], "is not an object", "Send one JSON object a line")
    if plain.get("v") != VERSION:
        raise BadInput("v", plain.get("v"), f"is not {VERSION}", "Run pool and agent of one version of FlexAI")
    return Request(integer(plain, "id", 0, MAX_INT), text(plain, "op", "", 40), plain)


def key_of(fields: Mapping[str, Any]) -> Key:
    """The member that a request is about.

    Raises:
        BadInput: its name cannot be one.
    """
    return _word(fields, "job_id"), integer(fields, "member", 0, 1_000_000)


def tenant_of(fields: Mapping[str, Any]) -> Tenant:
    """What ``prepare`` asks for.

    Raises:
        BadInput: a field is missing or out of range.
    """
    job_id, member = key_of(fields)
    return Tenant(
        job_id, member, _word(fields, "token"), integer(fields, "uid", 0, _MAX_ID), integer(fields, "gid", 0, _MAX_ID),
        grants_of(fields), integer(fields, "cpu_milli", 0, MAX_INT, 0), integer(fields, "ram_bytes", 0, MAX_INT, 0),
        over_cap=choice(fields, "over_cap", ("", *OVER_CAP), ""),
    )  # fmt: skip


def grants_of(fields: Mapping[str, Any]) -> tuple[Grant, ...]:
    """The grants of ``prepare`` and ``resize``, a card each; none for a member that wants no card.

    Raises:
        BadInput: not a list of grants, or a card twice.
    """
    rows = fields.get("grants")
    if not isinstance(rows, list):
        raise BadInput("grants", rows, "is not a list of grants", "Send one for each card")
    grants = tuple(grant_of(row) for row in rows)
    if len({grant.device for grant in grants}) != len(grants):
        raise BadInput("grants", [grant.device for grant in grants], "name a card twice", "Send one for each card")
    return grants


def launch_of(fields: Mapping[str, Any]) -> LaunchSpec:
    """What ``start`` asks for.

    Raises:
        BadInput: a field is missing or cannot be given to a process.
    """
    argv = fields.get("argv")
    if not isinstance(argv, list) or not argv or len(argv) > _MAX_ARGUMENTS or not all(_plain(word) for word in argv):
        raise BadInput("argv", argv, "is not a command", "Send program and arguments as text without NUL")
    env = fields.get("env")
    if not isinstance(env, dict) or not all(_plain(name) and _plain(value) for name, value in env.items()):
        raise BadInput("env", None, "is not an object of text", "Send variables without NUL")
    cwd, log_path = fields.get("cwd"), fields.get("log_path")
    for name, path in (("cwd", cwd), ("log_path", log_path)):
        if not _plain(path) or not str(path).startswith("/"):
            raise BadInput(name, path, "is not an absolute path", "Send a path from the root")
    return LaunchSpec(
        tuple(argv), str(cwd), dict(env), str(log_path), integer(fields, "time_limit_ms", 0, 10**15, 0),
        integer(fields, "idle_timeout_ms", 0, 10**15, 0),
    )  # fmt: skip


def answer(number: int | None, fields: Mapping[str, Any]) -> bytes:
    """A line that says it was done."""
    return _line({"v": VERSION, "id": number, "ok": True, **fields})


def refusal(number: int | None, code: str, message: str, remedy: str = "") -> bytes:
    """A line that says it was not."""
    return _line({"v": VERSION, "id": number, "ok": False, "code": code, "message": message, "remedy": remedy})


def event(name: str, seq: int, fields: Mapping[str, Any]) -> bytes:
    """A line of news."""
    return _line({"v": VERSION, "event": name, "seq": seq, **fields})


def tenant_fields(tenant: Tenant) -> dict[str, Any]:
    """A member as ``tenants`` lists it and events tell of it."""
    # `starting` is ours: to the pool a member is prepared until it is seen running.
    state = "prepared" if tenant.phase.value == "starting" else tenant.phase.value
    return {
        "job_id": tenant.job_id, "member": tenant.member, "token": tenant.token, "state": state, "pid": tenant.pid,
        "exit_code": tenant.exit_code, "signal": tenant.signal, "cause": tenant.cause, "paused": tenant.paused,
        "paused_for": tenant.paused_for, "parked": tenant.parked,
    }  # fmt: skip


def _line(plain: Mapping[str, Any]) -> bytes:
    return json.dumps(plain, separators=(",", ":")).encode() + b"\n"


def _plain(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value


def _word(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise BadInput(name, value, "cannot be a name", _NAME_REMEDY)
    return value
