"""What a member of a job asks for and runs: the fields that a job and each of its roles have in common, checked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flexai.model import MILLI_PER_DEVICE, SliceRequest, TenantClass
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, choice, integer, short, text, texts

REQUEST_FIELDS = ("compute_milli", "limit_milli", "memory_bytes", "n_devices", "partition")
"""Those of a request that are numbers and text."""
MAX_MEMBERS = 1024
_MAX_WORDS = 4096
_MAX_ENV = 8192


NO_CARD = SliceRequest(MILLI_PER_DEVICE, MILLI_PER_DEVICE, 0, n_devices=0)
"""What a member asks for that wants only CPUs and main memory."""


def decode_role_request(fields: Mapping[str, Any]) -> SliceRequest:
    """What a member of a role asks of its cards, which may be none; raises BadInput."""
    if fields.get("n_devices") != 0:
        return decode_request(fields)
    for name in (*REQUEST_FIELDS, "models"):
        value = fields.get(name)
        if value not in (None, 0, "", []) and value != getattr(NO_CARD, name):
            raise BadInput(name, short(value), "is asked of no card", "Leave it out, or ask for n_devices: 1")
    return replace(NO_CARD, tenant_class=_tenant_class(fields))


def _tenant_class(fields: Mapping[str, Any]) -> TenantClass:
    return TenantClass(choice(fields, "tenant_class", tuple(TenantClass), TenantClass.GUARANTEED))


def decode_request(fields: Mapping[str, Any]) -> SliceRequest:
    """What a member asks of its cards; raises BadInput."""
    partition = text(fields, "partition", "", 100)
    compute = integer(fields, "compute_milli", 1, MILLI_PER_DEVICE, MILLI_PER_DEVICE if partition else None)
    memory = integer(fields, "memory_bytes", 0, MAX_INT, 0 if compute == MILLI_PER_DEVICE else None)
    if memory == 0 and compute < MILLI_PER_DEVICE:
        raise BadInput(
            "memory_bytes",
            0,
            "means all of a card's memory, which only a whole card has",
            "Give --memory 16Gi, or ask for --share 100%",
        )
    models = texts(fields, "models", 100)
    return SliceRequest(
        compute_milli=compute,
        limit_milli=integer(fields, "limit_milli", compute, MILLI_PER_DEVICE, MILLI_PER_DEVICE),
        memory_bytes=memory,
        tenant_class=_tenant_class(fields),
        n_devices=integer(fields, "n_devices", 1, 1024, 1),
        models=tuple(models),
        partition=partition,
    )


def decode_command(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """An argument vector; raises BadInput."""
    command = fields.get("command")
    if not isinstance(command, list) or not command:
        raise BadInput("command", short(command), "is not a list of words", "Put the command after --")
    if len(command) > _MAX_WORDS:
        raise BadInput(
            "command", f"{len(command)} words", "is too long", f"Use at most {_MAX_WORDS} words; put the rest in a file"
        )
    for word in command:
        if not isinstance(word, str) or "\0" in word:
            raise BadInput("command", short(word), "is not a word of text", "Use words without NUL bytes")
    if not command[0]:
        raise BadInput("command", "", "is empty", "Name a program")
    return tuple(command)


def decode_cwd(fields: Mapping[str, Any]) -> str:
    """The directory to run in; raises BadInput."""
    cwd = text(fields, "cwd", "/", 4096)
    if not cwd.startswith("/"):
        raise BadInput("cwd", cwd, "is not an absolute path", "Send the full path of the directory to run in")
    return cwd


def decode_env(fields: Mapping[str, Any]) -> dict[str, str]:
    """A whole environment; raises BadInput."""
    env = fields.get("env") or {}
    if not isinstance(env, dict) or len(env) > _MAX_ENV:
        raise BadInput(
            "env", short(env), "is not a table of variables", f"Send an object of at most {_MAX_ENV} strings"
        )
    for name, value in env.items():
        if not isinstance(value, str) or not name or "=" in name or "\0" in name or "\0" in value:
            raise BadInput(
                f"env.{short(name)}",
                short(value),
                "is not an environment variable",
                "Use NAME=text without NUL bytes",
            )
    return env


def decode_subgroups(fields: Mapping[str, Any], n_members: int, min_member: int) -> tuple[int, str]:
    """Members of a subgroup, and the level that they must share."""
    size, level = integer(fields, "subgroup_size", 0, n_members, 0), text(fields, "subgroup_level", "", 100)
    if size and (n_members % size or min_member % size):
        problem = f"does not divide its {n_members} members and the {min_member} that must start together"
        raise BadInput("subgroup_size", size, problem, "Choose a size that divides both")
    if bool(size) != bool(level):
        raise BadInput("subgroup_level", level, "and subgroup_size go together", "Give both, or neither")
    return size, level


def decode_most_at_once(fields: Mapping[str, Any], n_members: int, min_member: int, size: int) -> int:
    """How many of so many members run at once at most, in subgroups of ``size`` (0: alone); 0 for all of them."""
    most = integer(fields, "most_at_once", 0, n_members, 0)
    if most and (most < min_member or most % max(1, size)):
        problem = f"is below the {min_member} that must start together"
        if most >= min_member:
            problem = f"is no whole number of subgroups of {size}"
        raise BadInput("most_at_once", most, problem, f"Use a number from {max(1, min_member)} to {n_members}")
    return 0 if most == n_members else most
