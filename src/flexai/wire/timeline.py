"""Bytes of the arbiter's ring of who had which card when (``api/flexai_timeline.h``), and the spans they tell."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass
from enum import IntEnum
from statistics import median_low
from typing import TYPE_CHECKING

from flexai.wire.arbiter import MAX_TENANTS, OUTSIDE
from flexai.wire.errors import BadInput
from flexai.wire.region import MAX_DEVICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAGIC = 0x454C5458
VERSION = 1
N_RECORDS = 65536

_HEAD = struct.Struct("<IIQQI36x")
_DEVICE = struct.Struct("<64s")
_TENANT = struct.Struct("<II64s")
_RECORD = struct.Struct("<QQIIIHBB")
_NOBODY = 0xFFFF
assert (_HEAD.size, _TENANT.size, _RECORD.size) == (64, 72, 32)

TABLES_BYTES = _HEAD.size + _DEVICE.size * MAX_DEVICES + _TENANT.size * MAX_TENANTS
RECORD_BYTES = _RECORD.size
TIMELINE_BYTES = TABLES_BYTES + RECORD_BYTES * N_RECORDS


class Kind(IntEnum):
    """``enum fx_timeline_kind``."""

    RUNS = 1
    LEFT = 2
    STOPPED = 3
    RESUMED = 4
    TURN = 5
    LOST = 6
    BEGAN = 7
    SLICED = 8
    FOUND = 9


@dataclass(frozen=True, slots=True)
class Record:
    """``struct fx_timeline_record`` with its names.

    Attributes:
        device: uuid; empty for ``BEGAN``, which is about all cards.
        tenant: its name; ``outside`` for programs that are not ours, and for turns that are nobody's.
        context: of ``LOST``: how many records of the card's log; of ``SLICED``: microseconds; of
            ``FOUND``: channels.
    """

    at_ns: int
    card_ns: int
    pid: int
    context: int
    device: str
    tenant: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Tables:
    """Head of the ring: how far it is written, and whose the numbers in its records are."""

    n_written: int
    arbiter_pid: int
    devices: tuple[str, ...]
    tenants: tuple[tuple[int, str], ...]


def tables(data: bytes | memoryview) -> Tables:
    """Decode what comes before the records.

    Raises:
        BadInput: not a ring of this version.
    """
    if len(data) < TABLES_BYTES:
        raise BadInput("timeline", len(data), f"is shorter than {TABLES_BYTES} bytes", "Use one version of FlexAI")
    magic, version, size, n_written, pid = _HEAD.unpack_from(data)
    if (magic, version, size) != (MAGIC, VERSION, TIMELINE_BYTES):
        raise BadInput("timeline", f"version {version}, {size} bytes", f"is not version {VERSION}", "Use one version")
    at = _HEAD.size
    devices = tuple(_text(raw) for (raw,) in _DEVICE.iter_unpack(data[at : at + _DEVICE.size * MAX_DEVICES]))
    at += _DEVICE.size * MAX_DEVICES
    rows = _TENANT.iter_unpack(data[at : at + _TENANT.size * MAX_TENANTS])
    return Tables(n_written, pid, devices, tuple((use, _text(name)) for use, _, name in rows))


def records(data: bytes, names: Tables) -> list[Record]:
    """Decode whole records; one of a kind that is not known is left out, as a later version may write it."""
    found = []
    for at_ns, card_ns, pid, context, use, place, device, kind in _RECORD.iter_unpack(data):
        if kind not in Kind.__members__.values() or device >= MAX_DEVICES:
            continue
        tenant = OUTSIDE
        if place < MAX_TENANTS:
            now_use, name = names.tenants[place]
            tenant = name if now_use == use else f"gone-{place}.{use}"
        elif place != _NOBODY:
            continue
        uuid = "" if kind == Kind.BEGAN else names.devices[device]
        found.append(Record(at_ns, card_ns, pid, context, uuid, tenant, Kind(kind)))
    return found


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, ``CLOCK_MONOTONIC``.

    Attributes:
        what: ``runs``: had the card; ``turn``: its turn; ``stopped``: held back; ``idle``: nobody had the card.
        tenant: empty for ``idle``.
    """

    device: str
    what: str
    tenant: str
    begin_ns: int
    end_ns: int


def spans(told: Sequence[Record], begin_ns: int, end_ns: int) -> list[Span]:
    """Who had which card in a window.

    Args:
        told: records in order; those before the window say how things stood when it began.
        begin_ns: of the window, ``CLOCK_MONOTONIC``.
        end_ns: of the window.
    """
    found: list[Span] = []
    for device in dict.fromkeys(record.device for record in told if record.device):
        mine = [record for record in told if record.device in {device, ""}]
        here = [*_turns(device, mine, end_ns), *_stops(device, mine, end_ns)]
        runs = _runs(device, mine, end_ns)
        if not runs:  # no log of the card: it is whose turn it is, as far as its gates can say
            runs = [
                Span(device, "runs", span.tenant, span.begin_ns, span.end_ns) for span in here if span.what == "turn"
            ]
        clipped = [
            Span(device, span.what, span.tenant, max(span.begin_ns, begin_ns), min(span.end_ns, end_ns))
            for span in [*runs, *here]
            if span.end_ns > begin_ns and span.begin_ns < end_ns
        ]
        found += [*clipped, *_idle(device, clipped, begin_ns, end_ns)]
    return sorted(found, key=lambda span: (span.device, span.begin_ns, span.what))


def _runs(device: str, told: Iterable[Record], end_ns: int) -> list[Span]:
    """By the card's own clock, laid over ours by the usual distance of the two: each reading's own has its jitter."""
    log = [record for record in told if record.kind in {Kind.RUNS, Kind.LEFT, Kind.LOST}]
    distances = [record.at_ns - record.card_ns for record in log if record.kind is not Kind.LOST]
    if not distances:
        return []
    distance = median_low(distances)
    found, has, since, last = [], None, 0, None
    for record in log:
        if record.kind is Kind.LOST:
            has = None  # whoever had it may have left since
            continue
        at_ns = record.card_ns + distance
        if has is not None:
            found.append(Span(device, "runs", has.tenant, since, at_ns))
        has, since, last = (record, at_ns, record) if record.kind is Kind.RUNS else (None, at_ns, record)
    if has is not None and last is not None:
        found.append(Span(device, "runs", has.tenant, since, max(since, end_ns)))
    return found


def _turns(device: str, told: Iterable[Record], end_ns: int) -> list[Span]:
    found, has, since = [], OUTSIDE, 0
    for record in told:
        if record.kind not in {Kind.TURN, Kind.BEGAN}:
            continue
        if has != OUTSIDE:
            found.append(Span(device, "turn", has, since, record.at_ns))
        has, since = record.tenant, record.at_ns
    if has != OUTSIDE:
        found.append(Span(device, "turn", has, since, max(since, end_ns)))
    return found


def _stops(device: str, told: Iterable[Record], end_ns: int) -> list[Span]:
    """A tenant is stopped while any of its processes is."""
    found = []
    stopped: defaultdict[str, set[int]] = defaultdict(set)
    since: dict[str, int] = {}
    for record in told:
        match record.kind:
            case Kind.STOPPED:
                since.setdefault(record.tenant, record.at_ns)
                stopped[record.tenant].add(record.pid)
            case Kind.RESUMED:
                stopped[record.tenant].discard(record.pid)
            case Kind.BEGAN:
                stopped.clear()
            case _:
                continue
        over = [tenant for tenant in since if not stopped[tenant]]
        found += [Span(device, "stopped", tenant, since.pop(tenant), record.at_ns) for tenant in over]
    return [*found, *(Span(device, "stopped", tenant, at_ns, max(at_ns, end_ns)) for tenant, at_ns in since.items())]


def _idle(device: str, here: Iterable[Span], begin_ns: int, end_ns: int) -> list[Span]:
    found, at_ns = [], begin_ns
    for span in sorted((span for span in here if span.what == "runs"), key=lambda span: span.begin_ns):
        if span.begin_ns > at_ns:
            found.append(Span(device, "idle", "", at_ns, span.begin_ns))
        at_ns = max(at_ns, span.end_ns)
    return [*found, Span(device, "idle", "", at_ns, end_ns)] if at_ns < end_ns else found


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")
