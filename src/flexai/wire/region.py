"""The shared region of a tenant: what ``api/flexai_region.h`` says, for Python.

Bytes and mapped memory only; the files are opened by ``flexai.adapters.shm``.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from flexai.wire.errors import BadInput

POLICY_MAGIC: Final = 0x4C4F5058464C4558
LEDGER_MAGIC: Final = 0x4447445858464C45
VERSION: Final = 1
MAX_DEVICES: Final = 16
MAX_SLOTS: Final = 256
ID_BYTES: Final = 64

CLASSES: Final = {"latency": 0, "guaranteed": 1, "best_effort": 2}
SLOT_DRAINS: Final = 1
SLOT_COLLECTIVE: Final = 2

# Layouts, little-endian. Offsets are checked against the C header by tests/native/shim/test_layout.py.
HEAD = struct.Struct("<QIIII64sQ32s")  # magic, version, size, seq, n_devices, tenant, heartbeat_ns
DEVICE = struct.Struct("<64sQIIIIIIIIQ16s")
SLOT = struct.Struct(f"<IIQQQII{MAX_DEVICES}Q{2 * MAX_DEVICES}IQ{MAX_DEVICES}Q{MAX_DEVICES}I4I{MAX_DEVICES}I")
LEDGER_HEAD = struct.Struct(f"<QII{MAX_DEVICES}Q{MAX_DEVICES}Q{MAX_DEVICES}QI{MAX_DEVICES}I44s")

POLICY_BYTES: Final = HEAD.size + DEVICE.size * MAX_DEVICES
LEDGER_BYTES: Final = LEDGER_HEAD.size + SLOT.size * MAX_SLOTS
_SEQ_AT: Final = 16
_N_DEVICES_AT: Final = 20
_GATE_IN_DEVICE: Final = 88
_CONTEXT_IN_DEVICE: Final = 104
_OPEN: Final = 1
_U32: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may have of one card.

    Attributes:
        uuid: the vendor's text form, ``GPU-…``.
        memory_bytes: cap, 0 = none.
        compute_milli: request in thousandths of the card.
        limit_milli: ceiling in thousandths.
        tenant_class: ``latency``, ``guaranteed`` or ``best_effort``.
        context_bytes: what a process's context takes on this card, 0 = unknown.
    """

    uuid: str
    memory_bytes: int
    compute_milli: int
    limit_milli: int
    tenant_class: str = "guaranteed"
    context_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """One process of a tenant, as it shows itself. Nothing here is to be trusted for more than display and reaping.

    Attributes:
        index: place in the ledger.
        pid: in the pid namespace ``pid_ns`` (inode number, 0 = not known).
        host_pid: as the agent wrote it after the handshake, 0 before.
        start_ticks: field 22 of ``/proc/<pid>/stat``, 0 = not known.
        heartbeat_ns: CLOCK_MONOTONIC of the last sign of life.
        charged_bytes: by card of the tenant.
        inflight: launches not known finished, by card.
        waiting: threads that wait at a gate.
        flags: SLOT_DRAINS, SLOT_COLLECTIVE.
        n_launches: since the process began.
    """

    index: int
    pid: int
    host_pid: int
    start_ticks: int
    heartbeat_ns: int
    charged_bytes: tuple[int, ...]
    inflight: tuple[int, ...]
    waiting: int
    flags: int
    n_launches: int
    pid_ns: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the processes of a tenant have charged, by card of the tenant (bytes, counts)."""

    charged_bytes: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    n_refused: tuple[int, ...]
    slots: tuple[Slot, ...]


def _text(value: str, thing: str) -> bytes:
    data = value.encode()
    if len(data) >= ID_BYTES or b"\0" in data:
        raise BadInput(thing, value, f"does not fit {ID_BYTES - 1} bytes", "use a shorter name")
    return data


def _pack(limits: Limits, place: int) -> tuple[bytes, bytes]:
    """The agent's words of one card: those before and behind the arbiter's."""
    if limits.tenant_class not in CLASSES:
        raise BadInput("tenant_class", limits.tenant_class, "is no class", f"use one of {', '.join(CLASSES)}")
    if not 0 <= limits.memory_bytes < 1 << 64 or not 0 <= limits.context_bytes < 1 << 64:
        raise BadInput(
            f"memory of card {place}", limits.memory_bytes, "is out of range", "use bytes from 0 to 2^64 - 1"
        )
    first = struct.pack(
        "<64sQIII",
        _text(limits.uuid, "uuid"),
        limits.memory_bytes,
        limits.compute_milli,
        limits.limit_milli,
        CLASSES[limits.tenant_class],
    )
    return first, struct.pack("<Q", limits.context_bytes)


class Buffer(Protocol):
    """Memory that can be changed in place: a bytearray, or a shared mapping."""

    def __getitem__(self, at: slice, /) -> bytes | bytearray:
        """Bytes of a range."""

    def __setitem__(self, at: slice, value: bytes, /) -> None:
        """Change a range of the same length."""

    def __len__(self) -> int:
        """Bytes in all."""


def policy_image(tenant: str) -> bytes:
    """A policy file without cards, gates open.

    Raises:
        BadInput: the tenant's name does not fit.
    """
    image = bytearray(POLICY_BYTES)
    HEAD.pack_into(image, 0, POLICY_MAGIC, VERSION, POLICY_BYTES, 0, 0, _text(tenant, "tenant"), 0, b"")
    for place in range(MAX_DEVICES):
        struct.pack_into("<I", image, HEAD.size + place * DEVICE.size + _GATE_IN_DEVICE, _OPEN)
    return bytes(image)


def write_limits(policy: Buffer, cards: Sequence[Limits]) -> None:
    """Change the tenant's limits in place, under the seqlock; the arbiter's words are left alone.

    Raises:
        BadInput: more cards than the region holds, or a value that does not fit.
    """
    if len(cards) > MAX_DEVICES:
        raise BadInput("cards of a tenant", len(cards), "are too many", f"at most {MAX_DEVICES}")
    packed = [_pack(card, place) for place, card in enumerate(cards)]
    (seq,) = _U32.unpack(policy[_SEQ_AT : _SEQ_AT + 4])
    seq |= 1  # odd already if a writer died inside: what it left is overwritten whole
    policy[_SEQ_AT : _SEQ_AT + 4] = _U32.pack(seq)
    for place, (first, context) in enumerate(packed):
        at = HEAD.size + place * DEVICE.size
        policy[at : at + len(first)] = first
        policy[at + _CONTEXT_IN_DEVICE : at + _CONTEXT_IN_DEVICE + 8] = context
    policy[_N_DEVICES_AT : _N_DEVICES_AT + 4] = _U32.pack(len(packed))
    policy[_SEQ_AT : _SEQ_AT + 4] = _U32.pack((seq + 1) & 0xFFFFFFFF)


def read_limits(policy: Buffer) -> tuple[str, list[Limits]]:
    """The tenant and its limits, as written.

    Raises:
        BadInput: another magic, version or size.
    """
    check_policy(policy[0 : HEAD.size], len(policy), "policy")
    head = HEAD.unpack(policy[0 : HEAD.size])
    names = {number: name for name, number in CLASSES.items()}
    cards = []
    for place in range(min(head[4], MAX_DEVICES)):
        at = HEAD.size + place * DEVICE.size
        device = DEVICE.unpack(policy[at : at + DEVICE.size])
        cards.append(
            Limits(
                uuid=_name(device[0]),
                memory_bytes=device[1],
                compute_milli=device[2],
                limit_milli=device[3],
                tenant_class=names.get(device[4], "guaranteed"),
                context_bytes=device[10],
            )
        )
    return _name(head[5]), cards


def _name(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode(errors="replace")


def check_policy(head: bytes | bytearray, size: int, name: str) -> None:
    """Refuse what is no policy file of ours.

    Args:
        head: its first bytes.
        size: bytes of the file.
        name: of the file, for the message.

    Raises:
        BadInput: another magic, version or size.
    """
    _check_head(name, head, size, POLICY_MAGIC, POLICY_BYTES)


def _check_head(name: str, head: bytes | bytearray, size: int, magic: int, want: int) -> None:
    if len(head) < 16:
        raise BadInput(name, f"{size} bytes", "is cut short", "remove the tenant's directory; the agent makes it anew")
    found, version, said = struct.unpack_from("<QII", head)
    if found != magic:
        raise BadInput(name, f"{found:016x}", "is not a region file", "remove it; the agent makes it anew")
    if version != VERSION or said != want:
        raise BadInput(
            name,
            f"version {version} of {said} bytes",
            f"was written by another FlexAI (this one speaks version {VERSION} of {want} bytes)",
            "end the jobs that use it, or run the version that wrote it",
        )
    if size != want:
        raise BadInput(name, f"{size} bytes", f"should have {want}", "its owner cut it; end the job")


def ledger_image() -> bytes:
    """A ledger in which nothing is charged and no process is."""
    head = LEDGER_HEAD.pack(LEDGER_MAGIC, VERSION, LEDGER_BYTES, *([0] * (4 * MAX_DEVICES + 1)), b"")
    return head + bytes(LEDGER_BYTES - len(head))


def decode_ledger(data: bytes, name: str = "ledger") -> Ledger:
    """Decode the bytes of a ledger; every value in it is the tenant's word.

    Raises:
        BadInput: another magic, version or size.
    """
    _check_head(name, data, len(data), LEDGER_MAGIC, LEDGER_BYTES)
    head = LEDGER_HEAD.unpack_from(data)
    n = MAX_DEVICES
    slots = []
    for index in range(MAX_SLOTS):
        raw = SLOT.unpack_from(data, LEDGER_HEAD.size + index * SLOT.size)
        if raw[0] == 0:
            continue
        slots.append(
            Slot(
                index=index,
                pid=raw[0],
                host_pid=raw[1],
                start_ticks=raw[2],
                heartbeat_ns=raw[3],
                waiting=raw[5],
                flags=raw[6],
                charged_bytes=raw[7 : 7 + n],
                inflight=raw[7 + n : 7 + 2 * n],
                n_launches=raw[7 + 3 * n],
                pid_ns=raw[8 + 5 * n],
            )
        )
    return Ledger(
        charged_bytes=head[3 : 3 + n],
        peak_bytes=head[3 + n : 3 + 2 * n],
        n_refused=head[3 + 2 * n : 3 + 3 * n],
        slots=tuple(slots),
    )


def charged(head: bytes) -> tuple[int, ...]:
    """Bytes charged by card of the tenant, out of the ledger's first bytes.

    Raises:
        BadInput: another magic, version or size.
    """
    if len(head) < LEDGER_HEAD.size:
        raise BadInput("ledger", f"{len(head)} bytes", "is cut short", "its owner cut it; end the job")
    _check_head("ledger", head, LEDGER_BYTES, LEDGER_MAGIC, LEDGER_BYTES)
    return LEDGER_HEAD.unpack_from(head)[3 : 3 + MAX_DEVICES]


def host_pid_at(slot: int) -> int:
    """Offset in the ledger of the word that tells a process its pid on the host.

    Raises:
        BadInput: no such slot.
    """
    if not 0 <= slot < MAX_SLOTS:
        raise BadInput("slot", slot, "does not exist", f"use 0 to {MAX_SLOTS - 1}")
    return LEDGER_HEAD.size + slot * SLOT.size + 4
