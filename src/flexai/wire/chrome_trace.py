"""Who had which card, as a trace that Perfetto and ``chrome://tracing`` open.

Format: "Trace Event Format" (Google), JSON object form; ``ts`` and ``dur`` in microseconds. A card is a process with
one track for who has it, one for whose turn it is, and two for each tenant: when it ran and when it was held back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.wire.timeline import Span

NOBODY = "nobody"
"""Name of the time in which no context had the card: it idled, or changed from one to the next."""

_CARD_TRACK, _TURN_TRACK, _FIRST_TENANT_TRACK = 1, 2, 10


def chrome_trace(
    spans: Iterable[Span], begin_ns: int, cards: Sequence[tuple[str, str]], names: Mapping[str, str]
) -> dict[str, Any]:
    """The whole document.

    Args:
        spans: of ``flexai.wire.timeline.spans``.
        begin_ns: becomes 0.
        cards: (uuid, title) in the order in which they are to be shown.
        names: what to call a tenant; its own name where it has none.
    """
    numbers = {uuid: number for number, (uuid, _) in enumerate(cards, start=1)}
    events = []
    for uuid, title in cards:
        events.append(_named("process_name", numbers[uuid], 0, title))
        events.append(_sorted_at("process_sort_index", numbers[uuid], 0, numbers[uuid]))
        events.append(_named("thread_name", numbers[uuid], _CARD_TRACK, "who has the card"))
        events.append(_named("thread_name", numbers[uuid], _TURN_TRACK, "whose turn"))
    tracks: dict[tuple[str, str], int] = {}
    for span in spans:
        card = numbers[span.device]
        title = names.get(span.tenant, span.tenant) or NOBODY
        if span.what in {"runs", "idle"}:
            events.append(_slice(card, _CARD_TRACK, title, span, begin_ns))
        if span.what == "turn":
            events.append(_slice(card, _TURN_TRACK, title, span, begin_ns))
        if span.what in {"runs", "stopped"}:
            place = (span.device, span.tenant)
            if place not in tracks:
                tracks[place] = _FIRST_TENANT_TRACK + 2 * len(tracks)
                for offset, what in enumerate(("runs", "stopped")):
                    events.append(_named("thread_name", card, tracks[place] + offset, f"{title}: {what}"))
            track = tracks[place] + (span.what == "stopped")
            events.append(_slice(card, track, span.what, span, begin_ns))
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _slice(card: int, track: int, name: str, span: Span, begin_ns: int) -> dict[str, Any]:
    return {
        "ph": "X", "pid": card, "tid": track, "name": name, "cat": span.what, "ts": (span.begin_ns - begin_ns) / 1000,
        "dur": (span.end_ns - span.begin_ns) / 1000,
    }  # fmt: skip


def _named(kind: str, card: int, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": card, "tid": track, "args": {"name": name}}


def _sorted_at(kind: str, card: int, track: int, place: int) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": card, "tid": track, "args": {"sort_index": place}}
