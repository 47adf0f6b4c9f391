"""What requests carry, for ``GET /openapi.json``: the decoders of ``wire.api`` check, this only tells."""

from typing import Any

from flexai.model import OVER_CAP, TenantClass
from flexai.wire.member_fields import MAX_MEMBERS
from flexai.wire.queue import DEFAULT_QUEUE

_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_MILLI: dict[str, Any] = {"type": "integer", "minimum": 1, "maximum": 1000, "description": "thousandths of one card"}
_TEXT: dict[str, Any] = {"type": "string"}
_TEXTS: dict[str, Any] = {"type": "array", "items": _TEXT}
_FLAG: dict[str, Any] = {"type": "boolean"}
_CARDS: dict[str, Any] = {"type": "integer", "minimum": -1, "description": "thousandths of cards; -1 for no limit"}

_MEMBER_FIELDS = (
    "compute_milli", "limit_milli", "memory_bytes", "n_devices", "models", "partition", "cpu_milli", "ram_bytes",
    "required_level", "preferred_level", "subgroup_size", "subgroup_level", "most_at_once", "command", "cwd", "env",
)  # fmt: skip
JOB: dict[str, dict[str, Any]] = {
    "kind": {"enum": ["submit", "run"], "default": "submit"},
    "command": {**_TEXTS, "minItems": 1},
    "cwd": {**_TEXT, "default": "/"},
    "env": {"type": "object", "additionalProperties": _TEXT},
    "name": _TEXT,
    "queue": {**_TEXT, "default": DEFAULT_QUEUE},
    "compute_milli": _MILLI,
    "limit_milli": _MILLI,
    "memory_bytes": {**_COUNT, "description": "cap on each card; only a whole card may leave it out"},
    "tenant_class": {"enum": list(TenantClass), "default": TenantClass.GUARANTEED},
    "n_devices": {"type": "integer", "minimum": 1, "default": 1},
    "models": _TEXTS,
    "partition": _TEXT,
    "cpu_milli": _COUNT,
    "ram_bytes": _COUNT,
    "time_limit_ms": _COUNT,
    "idle_timeout_ms": _COUNT,
    "min_runtime_ms": _COUNT,
    "grace_ms": {**_COUNT, "description": "between SIGTERM and SIGKILL when it is stopped; 0 for the pool's own"},
    "priority": {"type": "integer"},
    "preemptible": {**_FLAG, "default": True},
    "checkpointable": _FLAG,
    "parkable": {**_FLAG, "default": True},
    "held": _FLAG,
    "after": {**_TEXTS, "description": "ids of jobs that must succeed first; an array's id stands for its elements"},
    "array": {**_TEXT, "description": "element numbers: 0-9, 1,4,7-9 or 0-20:5"},
    "n_members": {"type": "integer", "minimum": 1, "maximum": MAX_MEMBERS, "default": 1},
    "min_member": {"type": "integer", "minimum": 1},
    "required_level": _TEXT,
    "preferred_level": _TEXT,
    "subgroup_size": {**_COUNT, "description": "members of a subgroup; 0 for none"},
    "subgroup_level": {**_TEXT, "description": "level of the topology that each subgroup must share"},
    "most_at_once": {**_COUNT, "description": "so many members run at the same time at most; 0 for all"},
}
JOB["roles"] = {
    "type": "array",
    "description": "where members are unlike: the members of each role, numbered role after role, start together",
    "items": {
        "type": "object",
        "properties": {
            "name": _TEXT,
            "n_members": JOB["n_members"],
            "min_member": {"type": "integer", "minimum": 0},
            **{name: JOB[name] for name in _MEMBER_FIELDS},
            "n_devices": {**JOB["n_devices"], "minimum": 0, "description": "0 for members that want no card"},
        },
        "required": ["name"],
        "additionalProperties": False,
    },
}
QUEUE: dict[str, dict[str, Any]] = {
    "parent": _TEXT,
    "quota_milli": _COUNT,
    "limit_milli": _CARDS,
    "weight": {**_COUNT, "default": 1000},
    "priority": {"type": "integer"},
    "classes": {
        "type": "object",
        "description": "terms for single classes of cards, by product name",
        "additionalProperties": {
            "type": "object",
            "properties": {
                "quota_milli": _COUNT,
                "limit_milli": _CARDS,
                "weight": _COUNT,
                "priority": {"type": "integer"},
            },
        },
    },
    "users": _TEXTS,
    "user_limit_milli": _CARDS,
    "over_cap": {"enum": ["", *OVER_CAP], "default": "", "description": "of jobs over their cap of device memory"},
}
RESIZE = {
    "compute_milli": {**_MILLI, "description": "of each card; or say n_members"},
    "limit_milli": _MILLI,
    "n_members": {"type": "integer", "minimum": 1, "description": "so many at once, from min_member to n_members"},
    "role": {**_TEXT, "description": "which role is meant, of a job that has any"},
}
ATTACH = {"pid": {"type": "integer", "minimum": 1}}
FINISH = {"exit_code": {"type": "integer", "minimum": 0, "maximum": 255}}
MANIFEST = {
    "yaml": _TEXT,
    "cwd": _TEXT,
    "env": {"type": "object", "additionalProperties": _TEXT},
    "file": {**_TEXT, "description": "what messages call it"},
}
SHUTDOWN = {"jobs": {"enum": ["keep", "cancel"], "default": "keep"}}


def body(properties: dict[str, dict[str, Any]], *required: str) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes this object."""
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": bool(required)}}


def query(**parameters: str) -> dict[str, Any]:
    """``openapi_extra`` of a route with these parameters in its query string: name and what it means."""
    described = [
        {"name": name, "in": "query", "required": False, "schema": _TEXT, "description": meaning}
        for name, meaning in parameters.items()
    ]
    return {"parameters": described}


DECIDED = {"decided": "1: answer when it is decided what becomes of them, half a second late at most"}
PAGE = {"limit": "items of a page", "cursor": "the one of the page before"}
