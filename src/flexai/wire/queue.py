"""Queues as the API and manifests have them: names, and what a queue may use, of all cards and of single classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from flexai.model import OVER_CAP, ClassTerms, Queue
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, choice, integer, one_of, only, short, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_QUEUE = "default"
MAX_WEIGHT_MILLI = 1_000_000_000
_MAX_CLASSES = 100
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
QUEUE_FIELDS = frozenset(Queue.__slots__) - {"name"}
_CLASS_FIELDS = set(ClassTerms.__slots__) - {"device_class"}


def decode_queue(name: str, fields: Mapping[str, Any]) -> Queue:
    """Check the body of ``PUT /v1/queues/{name}``. The caller checks the tree (parents, cycles).

    Raises:
        BadInput: a name or number that a queue cannot have.
    """
    unknown = fields.keys() - QUEUE_FIELDS
    if unknown:
        first = min(unknown)
        raise BadInput(f"queue {name}: {first}", fields[first], "is not a field of a queue", one_of(QUEUE_FIELDS))
    quota, limit = _quota_and_limit(fields)
    parent = fields.get("parent") or ""
    weight, priority = _weight_and_priority(fields, 1000, 0)
    return Queue(
        name=check_name(name, "queue"),
        parent=check_name(parent, "parent") if parent else "",
        quota_milli=quota,
        limit_milli=limit,
        weight=weight,
        priority=priority,
        classes=_class_terms(fields.get("classes"), weight, priority),
        users=tuple(texts(fields, "users", 100_000)),
        user_limit_milli=integer(fields, "user_limit_milli", -1, MAX_INT, -1),
        over_cap=choice(fields, "over_cap", ("", *OVER_CAP), ""),
    )


def check_name(text: Any, thing: str) -> str:
    """A queue's name: letters, digits, ``.``, ``_`` and ``-``, at most 63.

    Raises:
        BadInput: anything else.
    """
    if not isinstance(text, str) or _NAME.fullmatch(text) is None:
        remedy = "Use at most 63 letters, digits, dots, dashes and underscores"
        raise BadInput(thing, short(text), "is not a name", remedy)
    return text


def _quota_and_limit(fields: Mapping[str, Any]) -> tuple[int, int]:
    quota = integer(fields, "quota_milli", 0, MAX_INT, 0)
    limit = integer(fields, "limit_milli", -1, MAX_INT, -1)
    if 0 <= limit < quota:
        raise BadInput(
            "limit_milli", limit, f"is under the queue's quota of {quota}", "Raise the limit or lower the quota"
        )
    return quota, limit


def _weight_and_priority(fields: Mapping[str, Any], weight: int, priority: int) -> tuple[int, int]:
    return integer(fields, "weight", 0, MAX_WEIGHT_MILLI, weight), integer(
        fields, "priority", -1_000_000, 1_000_000, priority
    )


def _class_terms(classes: Any, weight: int, priority: int) -> tuple[ClassTerms, ...]:
    """The terms of a queue for single classes of cards; those that name no weight or priority have the queue's."""
    if classes is None:
        return ()
    if isinstance(classes, list):  # as a queue is shown and stored
        classes = {
            each.get("device_class"): {name: value for name, value in each.items() if name != "device_class"}
            for each in classes
            if isinstance(each, dict)
        }
    if not isinstance(classes, dict) or len(classes) > _MAX_CLASSES:
        remedy = "Write a table of product names, each with quota_milli, limit_milli, weight or priority"
        raise BadInput("classes", short(classes), "is not a table of classes of cards", remedy)
    out = []
    for name, fields in classes.items():
        thing = f"classes.{short(name)}"
        if not isinstance(name, str) or not 0 < len(name) <= 200 or not name.isprintable():
            raise BadInput("classes", short(name), "is not the name of a product", "See `flexai devices`")
        if not isinstance(fields, dict):
            raise BadInput(thing, short(fields), "is not a table", "Write its quota_milli and so on under it")
        try:
            only(fields, _CLASS_FIELDS)
            quota, limit = _quota_and_limit(fields)
            out.append(ClassTerms(name, quota, limit, *_weight_and_priority(fields, weight, priority)))
        except BadInput as error:
            raise BadInput(f"{thing}.{error.thing}", error.value, error.problem, error.remedy) from None
    return tuple(out)
