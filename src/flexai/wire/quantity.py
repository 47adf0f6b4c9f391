"""Shares, sizes and durations as people write them (Kubernetes quantities, Slurm-like times)."""

import re

from flexai.wire.errors import BadInput

_SIZE_UNITS = {
    "": 1,
    "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_DURATION_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def parse_share(text: str, thing: str = "--share") -> int:
    """Parse ``30%``, ``0.3`` or ``300m`` into thousandths of a card, 1..1000.

    Raises:
        BadInput: not a share, or not above 0 and at most one card.
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(%|m?)", text.strip())
    if match is None:
        raise BadInput(thing, text, "is not a share", "Write 30% or 0.3 (of one card)")
    scale = {"%": 10.0, "m": 1.0, "": 1000.0}[match[2]]
    milli = float(match[1]) * scale
    if not milli.is_integer():
        if abs(milli - round(milli)) > 1e-6:
            raise BadInput(thing, text, "is finer than a thousandth of a card", "Use steps of 0.1%")
        milli = round(milli)
    if not 1 <= milli <= 1000:
        raise BadInput(thing, text, "is not above 0 and at most 100%", "Ask for 0.1% to 100% of a card, or --devices N")
    return int(milli)


def parse_size(text: str, thing: str = "--memory") -> int:
    """Parse ``16Gi``, ``500M`` or plain bytes into bytes, above 0.

    Raises:
        BadInput: not a size, or zero.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)([KMGT]i?|)B?", text.strip())
    if match is None:
        raise BadInput(thing, text, "is not a size", "Write 16Gi, 500M or a number of bytes")
    size = int(float(match[1]) * _SIZE_UNITS[match[2]]) if "." in match[1] else int(match[1]) * _SIZE_UNITS[match[2]]
    if size <= 0:
        raise BadInput(thing, text, "is zero", "Ask for at least 1 byte, or leave the option out")
    if size >= 2**63:
        raise BadInput(thing, text, "is beyond 8 EiB", "Ask for less")
    return size


def parse_duration_ms(text: str, thing: str = "--time") -> int:
    """Parse ``90s``, ``2h30m`` or ``1d`` into milliseconds, above 0.

    Raises:
        BadInput: not a duration, or zero.
    """
    parts = re.findall(r"(\d{1,9})(ms|[smhd])", text.strip())
    if not parts or "".join(n + u for n, u in parts) != text.strip():
        raise BadInput(thing, text, "is not a duration", "Write 90s, 30m or 2h30m")
    total = sum(int(n) * _DURATION_UNITS_MS[u] for n, u in parts)
    if total <= 0:
        raise BadInput(thing, text, "is zero", "Give at least 1ms, or leave the option out")
    return total


def format_share(milli: int) -> str:
    """300 -> ``30%``, 125 -> ``12.5%``."""
    return f"{milli / 10:g}%"


def format_size(n_bytes: int) -> str:
    """Write bytes with the largest binary unit that leaves at most one decimal: ``16 GiB``."""
    size = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def format_duration(ms: int) -> str:
    """4500 -> ``4.5s``, 3 723 000 -> ``1h02m``."""
    if ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:.3g}s"
    minutes, seconds = divmod(ms // 1000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"
