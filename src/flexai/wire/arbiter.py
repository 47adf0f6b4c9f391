"""Bytes between agent and arbiter, and of the arbiter's published figures, as ``api/flexai_arbiter.h`` defines them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from flexai.model import Grant
from flexai.wire.errors import BadInput
from flexai.wire.region import CLASSES, MAX_DEVICES

MAGIC = 0x42524146
VERSION = 3
MAX_TENANTS = 256
MAX_ENTRIES = MAX_TENANTS * 2

_HEAD = struct.Struct("<IIIIQ64s64s256s256sII")
_GRANT = struct.Struct("<64sQIIIIII")
_REPLY = struct.Struct("<IIIIQ232s")
_USAGE_HEAD = struct.Struct("<QIIIIQII24x")
_USAGE_DEVICE = struct.Struct("<64sIIQQQQ128sQQ16x")
_USAGE_ENTRY = struct.Struct("<64s64sQQQQQQIIIIIIQIII20x")

MESSAGE_BYTES = 672 + 96 * MAX_DEVICES
REPLY_BYTES = _REPLY.size
USAGE_BYTES = _USAGE_HEAD.size + _USAGE_DEVICE.size * MAX_DEVICES + _USAGE_ENTRY.size * MAX_ENTRIES
USAGE_SEQ_AT = 16
OUTSIDE = "outside"
"""Name of the usage entries of programs that are not ours."""

BACKEND_NAME = {0: "none", 1: "lease", 2: "hwslice"}
_SOURCE_NAME = {0: "none", 1: "gate", 2: "log"}
FROZEN_BY = {0: "", 1: "signal", 2: "group"}
"""``enum fx_frozen``."""
assert _HEAD.size == 672, _HEAD.size
assert _GRANT.size == 96
assert REPLY_BYTES == 256
assert (_USAGE_HEAD.size, _USAGE_DEVICE.size, _USAGE_ENTRY.size) == (64, 264, 240)


class Op(IntEnum):
    """``enum fx_arb_op``."""

    HELLO = 1
    TENANT_PUT = 2
    TENANT_GONE = 3
    SYNC = 4
    SUSPEND = 5
    RESUME = 6
    DEVICE_PUT = 7


def message(
    op: Op,
    seq: int,
    *,
    tenant: str = "",
    directory: str = "",
    cgroup: str = "",
    root_pid: int = 0,
    grants: Sequence[Grant] = (),
    device: tuple[str, int] | None = None,
) -> bytes:
    """One request.

    Args:
        op: what to do.
        seq: answered with the reply.
        tenant: its name.
        directory: of its region.
        cgroup: whose processes it is; as in ``/proc/<pid>/cgroup``.
        root_pid: where there is no cgroup.
        grants: what it holds, in the order of its cards; all of one job, whose tenants have their turns together.
        device: for ``DEVICE_PUT``: uuid and preferred ``enum fx_backend``.

    Raises:
        BadInput: a name is too long, or there are too many cards.
    """
    if len(grants) > MAX_DEVICES:
        raise BadInput("grants", len(grants), f"are more than {MAX_DEVICES} cards", "Ask for fewer cards")
    rows = [
        _GRANT.pack(
            _text(grant.device, 64), grant.memory_bytes, grant.compute_milli, grant.limit_milli,
            CLASSES[grant.tenant_class], 0, grant.borrow_weight, 0,
        )
        for grant in grants
    ]  # fmt: skip
    if device is not None:
        rows = [_GRANT.pack(_text(device[0], 64), 0, 0, 0, 0, device[1], 0, 0)]
    job = grants[0].job_id if grants else ""
    head = _HEAD.pack(
        MAGIC, VERSION, MESSAGE_BYTES, op, seq, _text(tenant, 64), _text(job, 64), _text(directory, 256),
        _text(cgroup, 256), root_pid, len(rows),
    )  # fmt: skip
    return (head + b"".join(rows)).ljust(MESSAGE_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; ``code`` is empty when it was done."""

    seq: int
    code: str
    message: str


def reply(data: bytes) -> Reply:
    """Decode an answer.

    Raises:
        BadInput: not one.
    """
    if len(data) != REPLY_BYTES:
        raise BadInput("arbiter reply", len(data), f"is not {REPLY_BYTES} bytes long", "Use one version of FlexAI")
    magic, version, _, status, seq, reason = _REPLY.unpack(data)
    if (magic, version) != (MAGIC, VERSION):
        raise BadInput("arbiter reply", version, f"is not version {VERSION}", "Use one version of FlexAI")
    if status == 0:
        return Reply(seq, "", "")
    code, _, words = _untext(reason).partition(":")
    return Reply(seq, code.strip() or "Refused", words.strip())


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """``struct fx_usage_entry``."""

    tenant: str
    uuid: str
    held_ns: int
    stopped_ns: int
    borrowed_ns: int
    wanted_ns: int
    n_turns: int
    n_stops: int
    compute_milli: int
    limit_milli: int
    tenant_class: int
    state: int
    n_processes: int
    n_groups: int
    hostile: int
    frozen: int
    rescued: int
    borrow_weight: int


@dataclass(frozen=True, slots=True)
class UsageDevice:
    """``struct fx_usage_device``."""

    uuid: str
    backend: str
    source: str
    busy_ns: int
    control_ns: int
    n_control: int
    log_dropped: int
    note: str
    round_ns: int
    known_ns: int


@dataclass(frozen=True, slots=True)
class UsageTable:
    """``struct fx_usage``, entries in use only."""

    seq: int
    arbiter_pid: int
    heartbeat_ns: int
    devices: tuple[UsageDevice, ...]
    entries: tuple[UsageEntry, ...]


def usage(data: bytes | memoryview) -> UsageTable:
    """Decode one copy of the figures.

    Raises:
        BadInput: not one.
    """
    if len(data) < USAGE_BYTES:
        raise BadInput("usage", len(data), f"is shorter than {USAGE_BYTES} bytes", "Use one version of FlexAI")
    magic, version, size, seq, pid, heartbeat_ns, n_devices, n_entries = _USAGE_HEAD.unpack_from(data)
    if (magic, version, size) != (MAGIC, VERSION, USAGE_BYTES):
        raise BadInput("usage", f"version {version}, {size} bytes", f"is not version {VERSION}", "Use one version")
    at = _USAGE_HEAD.size
    devices = []
    for i in range(min(n_devices, MAX_DEVICES)):
        row = _USAGE_DEVICE.unpack_from(data, at + i * _USAGE_DEVICE.size)
        backend, source = BACKEND_NAME.get(row[1], "none"), _SOURCE_NAME.get(row[2], "none")
        busy_ns, control_ns, n_control, log_dropped, note, round_ns, known_ns = row[3:]
        devices.append(
            UsageDevice(
                _untext(row[0]), backend, source, busy_ns, control_ns, n_control, log_dropped, _untext(note),
                round_ns, known_ns,
            )
        )  # fmt: skip
    at += _USAGE_DEVICE.size * MAX_DEVICES
    entries = []
    for i in range(min(n_entries, MAX_ENTRIES)):
        tenant, uuid, *numbers = _USAGE_ENTRY.unpack_from(data, at + i * _USAGE_ENTRY.size)
        if tenant[0]:
            entries.append(UsageEntry(_untext(tenant), _untext(uuid), *numbers))
    return UsageTable(seq, pid, heartbeat_ns, tuple(devices), tuple(entries))


def _text(text: str, size: int) -> bytes:
    encoded = text.encode()
    if len(encoded) >= size:
        raise BadInput("text", text, f"is longer than {size - 1} bytes", "Use a shorter name or directory")
    return encoded


def _untext(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
