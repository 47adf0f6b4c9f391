"""Checked readers of the fields of a decoded object; each failure names the field, the value and the remedy."""

from collections.abc import Mapping
from typing import Any

from flexai.wire.errors import BadInput

MAX_INT = 2**63 - 1

_RANGE_REMEDY = {
    "compute_milli": "Ask for 0.1% to 100% of a card, or for more cards with --devices",
    "limit_milli": "The limit lies between the share and 100%",
    "min_member": "Ask for at most as many as there are members",
}


def integer(fields: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number within ``low``..``high``; missing means ``default``, or is an error if there is none.

    Raises:
        BadInput: anything else.
    """
    value = fields.get(name)
    if value is None:
        if default is None:
            raise BadInput(name, None, "is missing", f"Give a whole number from {low} to {high}")
        return default
    if type(value) is not int:
        raise BadInput(name, short(value), "is not a whole number", f"Give a whole number from {low} to {high}")
    if not low <= value <= high:
        raise BadInput(
            name, value, f"is not within {low} to {high}", _RANGE_REMEDY.get(name, "Give a number in that range")
        )
    return value


def text(fields: Mapping[str, Any], name: str, default: str, max_length: int) -> str:
    """Printable text of at most ``max_length`` characters.

    Raises:
        BadInput: anything else.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > max_length or not value.isprintable():
        raise BadInput(name, short(value), "is not printable text", f"Use at most {max_length} printable characters")
    return value


def texts(fields: Mapping[str, Any], name: str, max_items: int) -> list[str]:
    """A list of printable texts of at most 200 characters each.

    Raises:
        BadInput: anything else.
    """
    values = fields.get(name)
    if values is None:
        return []
    if not isinstance(values, list) or len(values) > max_items:
        raise BadInput(name, short(values), "is not a list of text", f"Send a list of at most {max_items} strings")
    for value in values:
        if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
            raise BadInput(name, short(value), "is not printable text", "Use at most 200 printable characters")
    return values


def flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """``true`` or ``false``.

    Raises:
        BadInput: anything else.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise BadInput(name, short(value), "is neither true nor false", "Send true or false")
    return value


def choice(fields: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    """One of the words in ``choices``.

    Raises:
        BadInput: anything else.
    """
    value = fields.get(name)
    if value is None:
        return default
    if value not in choices:
        raise BadInput(name, short(value), "is unknown", one_of(choices))
    return str(value)


def only(fields: Mapping[str, Any], known: set[str]) -> None:
    """Refuse fields that are not ``known``.

    Raises:
        BadInput: anything else.
    """
    for name in sorted(fields.keys() - known):
        raise BadInput(name, short(fields[name]), "is not a field of this request", one_of(known))


def one_of(choices: tuple[str, ...] | set[str] | frozenset[str]) -> str:
    """The remedy that lists what is allowed."""
    return "Use one of: " + ", ".join(choices if isinstance(choices, tuple) else sorted(choices))


def short(value: object) -> str:
    """What was given, cut to what an error message can show."""
    text = value[:100].decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
