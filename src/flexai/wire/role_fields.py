"""The roles of a job, as requests carry them: name, how many members, what each asks for and runs.

``roles`` is a list of objects with the fields of a job that speak of its members. What a role does not say of command,
directory and environment is the job's; the tenant class is the job's for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexai.model import Role
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, integer, only, short, text
from flexai.wire.member_fields import (
    MAX_MEMBERS,
    REQUEST_FIELDS,
    decode_command,
    decode_cwd,
    decode_env,
    decode_most_at_once,
    decode_role_request,
    decode_subgroups,
)

MAX_ROLES = 32
_FIELDS = {
        *REQUEST_FIELDS, "models", "name", "n_members", "min_member", "cpu_milli", "ram_bytes", "required_level",
        "preferred_level", "subgroup_size", "subgroup_level", "most_at_once", "command", "cwd", "env",
}  # fmt: skip
_OF_ROLES = ("compute_milli", "limit_milli", "memory_bytes", "n_devices", "models", "partition")
_NOT_BESIDE = (*_OF_ROLES, "cpu_milli", "ram_bytes", "subgroup_size", "subgroup_level", "most_at_once")


@dataclass(frozen=True, slots=True)
class SubmittedRole:
    """A role, and what its members run: argument vector, absolute directory, whole environment."""

    role: Role
    command: tuple[str, ...]
    cwd: str
    env: Mapping[str, str] = field(default_factory=dict)


def decode_roles(fields: Mapping[str, Any]) -> tuple[SubmittedRole, ...]:
    """The roles in the body of a submission; none if it names none.

    Raises:
        BadInput: which role and field is wrong; one role alone; a name twice.
    """
    given = fields.get("roles")
    if not given:
        return ()
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadInput("roles", short(given), "is not a list of roles", "Write an object for each, with its name")
    if not 2 <= len(given) <= MAX_ROLES:
        remedy = f"Write 2 to {MAX_ROLES}; members that are alike need no role"
        raise BadInput("roles", f"{len(given)} roles", "is not a number of roles", remedy)
    out: list[SubmittedRole] = []
    for at, one in enumerate(given):
        thing = f"roles[{at}]"
        try:
            out.append(_decode_role(one, fields))
        except BadInput as error:
            raise BadInput(f"{thing}.{error.thing}", error.value, error.problem, error.remedy) from None
    names = [each.role.name for each in out]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadInput("roles", twice, "is there twice", "Give each role a name of its own")
    if not any(each.role.request.n_devices for each in out):
        raise BadInput("roles", "n_devices 0", "is all that each role asks for", "Let one role ask for a card")
    if not any(each.role.min_member for each in out):
        raise BadInput("roles", "min_member 0", "is all that each role needs", "Let one role need at least one member")
    return tuple(out)


def _decode_role(one: Mapping[str, Any], job: Mapping[str, Any]) -> SubmittedRole:
    only(one, _FIELDS)
    name = text(one, "name", "", 63)
    if not name or not name.isprintable():
        raise BadInput("name", short(name), "is not a name", "Give each role a name such as leader")
    n_members = integer(one, "n_members", 1, MAX_MEMBERS, 1)
    min_member = integer(one, "min_member", 0, n_members, n_members)
    size, level = decode_subgroups(one, n_members, min_member)
    runs = {key: one.get(key, job.get(key)) for key in ("command", "cwd", "env")}
    role = Role(
        name, decode_role_request({**one, "tenant_class": job.get("tenant_class")}), n_members, min_member,
        integer(one, "cpu_milli", 0, MAX_INT, 0), integer(one, "ram_bytes", 0, MAX_INT, 0),
        text(one, "required_level", "", 100), text(one, "preferred_level", "", 100), size, level,
        decode_most_at_once(one, n_members, min_member, size),
    )  # fmt: skip
    return SubmittedRole(role, decode_command(runs), decode_cwd(runs), decode_env(runs))


def as_of_roles(fields: Mapping[str, Any], roles: Sequence[SubmittedRole]) -> Mapping[str, Any]:
    """The body with what a job with roles says of itself.

    That is the sums of its members, what the first role runs, and what the first that wants cards asks for.

    Raises:
        BadInput: it says otherwise, or asks for something beside its roles.
    """
    first = roles[0]
    asks = next(each.role.request for each in roles if each.role.request.n_devices)
    request: dict[str, Any] = {name: getattr(asks, name) for name in _OF_ROLES}
    sums = {
        "n_members": sum(each.role.n_members for each in roles),
        "min_member": sum(each.role.min_member for each in roles),
    }
    for name, total in sums.items():
        if fields.get(name) not in (None, total):
            raise BadInput(name, fields[name], f"is not the sum over its roles, {total}", "Leave it out")
    request["models"] = list(asks.models)
    said = next((name for name in _NOT_BESIDE if fields.get(name) not in (None, 0, "", [], request.get(name))), None)
    if said is not None:
        raise BadInput(said, short(fields[said]), "is asked for beside its roles", "Write it under the role it is of")
    own = {"command": list(first.command), "cwd": first.cwd, "env": dict(first.env)}
    return {**own, **{name: value for name, value in fields.items() if value is not None}, **request, **sums}


def encode_role(each: SubmittedRole) -> dict[str, Any]:
    """The object that :func:`decode_roles` turns back into the same value."""
    role = each.role
    plain: dict[str, Any] = {name: getattr(role.request, name) for name in REQUEST_FIELDS}
    plain |= {name: getattr(role, name) for name in Role.__slots__ if name != "request"}
    return plain | {
        "models": list(role.request.models), "command": list(each.command), "cwd": each.cwd, "env": dict(each.env),
    }  # fmt: skip
