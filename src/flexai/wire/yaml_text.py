"""YAML of strangers to plain values, within bounds: size, depth, aliases, number of values."""

from typing import Any

import yaml

from flexai.wire.errors import BadInput
from flexai.wire.fields import short

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_ALIASES = 100
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load_documents(text: str, thing: str) -> list[Any]:
    """All documents of a text as objects, lists, strings, numbers, booleans and None; each value is its own copy.

    Raises:
        BadInput: not YAML, beyond a bound, or with values that JSON does not have.
    """
    if len(text) > MAX_BYTES:
        raise BadInput(thing, f"{len(text)} characters", "is too large", f"Send at most {MAX_BYTES}, or several files")
    try:
        _check_shape(text, thing)
        loaded = list(yaml.load_all(text, Loader=_LOADER))  # it is a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else short(text)
        problem = getattr(error, "problem", None) or str(error)
        raise BadInput(thing, where, f"is not YAML ({short(problem)})", "Correct it there") from None
    except (ValueError, OverflowError, RecursionError, TypeError) as error:
        raise BadInput(thing, short(text), f"cannot be read ({short(str(error))})", "Use plain YAML") from None
    budget = [MAX_VALUES]
    return [_plain(document, thing, 0, budget) for document in loaded if document is not None]


def _check_shape(text: str, thing: str) -> None:
    """Look at depth and aliases before anything is built; merge keys can grow without bound while building."""
    depth = n_aliases = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.AliasEvent):
            n_aliases += 1
        elif isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise BadInput(thing, "<<", "is a merge key, which is not supported", "Write the fields out")
        if depth > MAX_DEPTH:
            raise BadInput(thing, f"{depth} levels", "is nested too deeply", f"Use at most {MAX_DEPTH} levels")
        if n_aliases > MAX_ALIASES:
            raise BadInput(thing, f"{n_aliases} aliases", "has too many aliases", f"Use at most {MAX_ALIASES}")


def _plain(value: Any, thing: str, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise BadInput(thing, f"{MAX_VALUES} values", "grows beyond bounds through its aliases", "Write less")
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise BadInput(thing, short(key), "is a key that is not text", "Put it in quotes")
        return {key: _plain(item, thing, depth + 1, budget) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, thing, depth + 1, budget) for item in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise BadInput(thing, short(value), "is a kind of value that is not used here", "Put it in quotes")
