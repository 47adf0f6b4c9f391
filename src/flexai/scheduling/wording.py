"""How reasons speak of compute, memory, cards, and of what a job asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import PendingReason

if TYPE_CHECKING:
    from flexai.cluster import Books
    from flexai.model import Reason
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State

GIB = 2**30


def say(state: State, code: Reason, message: str, **numbers: int) -> PendingReason:
    """A reason as the books are now."""
    return PendingReason(code, message, numbers, state.books.version)


def n_cards(milli: int) -> str:
    """Compute in words: ``2.5 cards``."""
    return "1 card" if milli == 1000 else f"{milli / 1000:g} cards"


def card_time(milli_ms: int) -> str:
    """Compute times time: ``2.5 card-hours``."""
    hours = milli_ms / 3_600_000_000
    return f"{hours:.3g} card-hours" if hours >= 1 else f"{60 * hours:.3g} card-minutes"


def lasting(ms: int) -> str:
    """A time ahead, rounded up: ``40 s``, ``25 min``, ``7 h``."""
    for unit_ms, name, n_most in ((1000, "s", 120), (60_000, "min", 180)):
        if ms <= n_most * unit_ms:
            return f"{-(-ms // unit_ms)} {name}"
    return f"{-(-ms // 3_600_000)} h"


def part(milli: int) -> str:
    """Of one card: ``30 %``."""
    return f"{milli / 10:g} %"


def size(n_bytes: int) -> str:
    """In GiB."""
    return f"{n_bytes / GIB:.3g} GiB"


def want(record: JobRecord) -> str:
    """Memory that each card must have."""
    return "all of their memory" if record.shape.whole else size(record.shape.memory_bytes)


def free_part(record: JobRecord) -> str:
    """What each card must have free."""
    if record.shape.partition:
        return f"room for one more partition {record.shape.partition} (a card that is shared is not cut)"
    return f"{part(record.shape.compute_milli)} and {want(record)} free"


def asked_for(record: JobRecord) -> str:
    """All that one member asks for, leaving out what it does not."""
    shape = record.shape
    cards = f"{shape.n_devices} cards of {part(shape.compute_milli)} and {want(record)} each"
    one_card = f"a card with {part(shape.compute_milli)} and {want(record)}"
    parts = [cards if shape.n_devices > 1 else one_card] if shape.n_devices else []
    parts += [f"{shape.cpu_milli / 1000:g} CPUs"] if shape.cpu_milli else []
    parts += [f"{size(shape.ram_bytes)} of host memory"] if shape.ram_bytes else []
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def card_name(books: Books, row: int, column: int) -> str:
    """As people call it: ``card 0``, and of which node where there are several."""
    node, uuid = books.names[row], books.uuids[row][column]
    index = next((device.index for device in books.nodes[node].devices if device.uuid == uuid), None)
    name = uuid if index is None else f"card {index}"
    return name if len(books.names) == 1 else f"{name} of {node}"


def lack_of(milli: int, memory_bytes: int) -> str:
    """Compute and memory that a card lacks."""
    parts = [part(milli)] if milli else []
    return " and ".join([*parts, *([size(memory_bytes)] if memory_bytes else [])]) or "nothing"


def host_lack(cpu_milli: int, ram_bytes: int) -> str:
    """What its node lacks besides; empty for nothing."""
    parts = [f"{cpu_milli / 1000:g} CPUs"] if cpu_milli else []
    parts += [f"{size(ram_bytes)} of host memory"] if ram_bytes else []
    return f"; its node lacks {' and '.join(parts)}" if parts else ""
