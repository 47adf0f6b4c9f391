"""PodGroups: members that start together, alike or in subgroups, to the fields of one submission.

The shape of a group is KAI Scheduler's: ``minMember``, ``queue``, ``topologyConstraint`` and ``subGroups``, each with a
name, a ``minMember`` and a ``topologyConstraint`` of its own; pods name their subgroup. Every subgroup is a role.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flexai.wire.errors import BadInput
from flexai.wire.fields import one_of, short
from flexai.wire.member_fields import MAX_MEMBERS, REQUEST_FIELDS
from flexai.wire.pod_shape import SUBGROUP, Notes, asks_for_a_card, section

_LEVELS = {"requiredTopologyLevel": "required_level", "preferredTopologyLevel": "preferred_level"}
_OF_A_ROLE = {
    *REQUEST_FIELDS, "models", "cpu_milli", "ram_bytes", "required_level", "preferred_level", "subgroup_size",
    "subgroup_level", "most_at_once", "command", "cwd", "env",
}  # fmt: skip
"""Fields of a pod in which the subgroups of a group may differ."""


_COUNTED = {"name", "n_members", "most_at_once"}
"""Fields in which members that are alike may differ: they are put together."""


@dataclass(slots=True)
class Subgroup:
    """One of a group's subgroups: members without which the group does not run, and where they must be."""

    min_member: int
    levels: dict[str, str]


@dataclass(slots=True)
class PodGroup:
    """A PodGroup, and the fields of the pods that name it."""

    where: str
    min_member: int | None
    queue: str | None
    levels: dict[str, str]
    subgroups: dict[str, Subgroup]
    members: list[dict[str, Any]] = field(default_factory=list)


def pod_group(spec: Mapping[str, Any], where: str, notes: Notes) -> PodGroup:
    """The spec of a PodGroup.

    Raises:
        BadInput: a number or name that it cannot have, or subgroups of subgroups.
    """
    notes.unused(spec, {"minMember", "queue", "subGroups", "topologyConstraint"}, "spec.")
    given = spec.get("subGroups") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadInput(f"{where}: spec.subGroups", short(given), "is not a list", "Write - name: leader, minMember: 1")
    subgroups: dict[str, Subgroup] = {}
    for at, one in enumerate(given):
        thing = f"{where}: spec.subGroups[{at}]"
        notes.unused(one, {"name", "minMember", "topologyConstraint", "parent"}, f"spec.subGroups[{at}].")
        name = one.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= 63 or not name.isprintable() or name in subgroups:
            problem = "is there twice" if name in subgroups else "is not a name"
            raise BadInput(f"{thing}.name", short(name), problem, "Give each subgroup a name of its own")
        if one.get("parent"):
            remedy = "Write subgroups side by side, and the level that all share under spec.topologyConstraint"
            raise BadInput(f"{thing}.parent", short(one["parent"]), "makes a subgroup of a subgroup", remedy)
        subgroups[name] = Subgroup(_min_member(one, 0, thing) or 0, _levels(one, thing, notes))
        if "minMember" not in one:
            subgroups[name].min_member = 1
    return PodGroup(
        where,
        _min_member(spec, 1, f"{where}: spec"),
        spec.get("queue"),
        _levels(spec, f"{where}: spec", notes),
        subgroups,
    )


def _min_member(spec: Mapping[str, Any], least: int, where: str) -> int | None:
    value = spec.get("minMember")
    if value is not None and (type(value) is not int or not least <= value <= MAX_MEMBERS):
        remedy = f"Write a number from {least} to {MAX_MEMBERS}"
        raise BadInput(f"{where}.minMember", short(value), "is not a number of members", remedy)
    return value


def _levels(spec: Mapping[str, Any], where: str, notes: Notes) -> dict[str, str]:
    constraint = section(spec, "topologyConstraint", where)
    notes.unused(constraint, set(_LEVELS), "topologyConstraint.")
    for name in _LEVELS:
        if name in constraint and not isinstance(constraint[name], str):
            raise BadInput(f"{where}.topologyConstraint.{name}", short(constraint[name]), "is not text", "Write rack")
    return {ours: constraint[theirs] for theirs, ours in _LEVELS.items() if constraint.get(theirs)}


def group_fields(group: PodGroup) -> dict[str, Any]:
    """The fields of the one submission that a group and its members make.

    Raises:
        BadInput: members that are not alike, or not of its subgroups; a subgroup that can never be complete.
    """
    own = ({} if group.queue is None else {"queue": group.queue}) | group.levels
    if not group.subgroups:
        for fields in group.members:
            if SUBGROUP in fields:
                raise BadInput(group.where, short(fields[SUBGROUP]), "is no subgroup of it", "Write it under subGroups")
        first, n_members = _alike(group.members, group.where)
        asks_for_a_card(first, group.where)
        least = 1 if group.min_member is None else group.min_member
        if least > n_members:
            problem = f"is more than its {n_members} members: it would never start"
            raise BadInput(f"{group.where}: spec.minMember", least, problem, "Write more pods, or ask for fewer")
        _check_parallelism(first, least, group.where)
        return first | own | {"n_members": n_members, "min_member": least}
    by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in group.subgroups}
    for fields in group.members:
        name = fields.get(SUBGROUP)
        if name not in by_name:
            remedy = f"Annotate each of its pods with {SUBGROUP}: {one_of(set(by_name))}"
            raise BadInput(f"{group.where}: {fields['name']}", short(name), "is none of its subgroups", remedy)
        by_name[name].append({key: value for key, value in fields.items() if key != SUBGROUP})
    roles = [_role(name, by_name[name], group.subgroups[name], group.where) for name in by_name]
    total = sum(role["min_member"] for role in roles)
    if group.min_member not in (None, total):
        problem = f"is not the sum over its subgroups, {total}"
        raise BadInput(f"{group.where}: spec.minMember", group.min_member, problem, "Leave it out")
    shared = [{key: value for key, value in role.items() if key not in _OF_A_ROLE} for role in roles]
    for role in shared:
        for key in ("n_members", "min_member", "name"):
            role.pop(key)
    job, _ = _alike(shared, group.where, "subgroups")
    if not any(role["n_devices"] for role in roles):
        asks_for_a_card(roles[0], group.where)
    if len(roles) == 1:
        return roles[0] | own
    return job | own | {"roles": [_of_role(role) for role in roles]}


def _of_role(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key in {*_OF_A_ROLE, "name", "n_members", "min_member"}}


def _role(name: str, members: list[dict[str, Any]], subgroup: Subgroup, where: str) -> dict[str, Any]:
    thing = f"{where}: subgroup {name}"
    if not members:
        raise BadInput(thing, name, "has no members", f"Annotate its pods with {SUBGROUP}: {name}")
    first, n_members = _alike(members, thing)
    if subgroup.min_member > n_members:
        problem = f"is more than its {n_members} members: it would never start"
        raise BadInput(f"{thing}: minMember", subgroup.min_member, problem, "Write more pods, or ask for fewer")
    _check_parallelism(first, subgroup.min_member, thing)
    return first | subgroup.levels | {"name": name, "n_members": n_members, "min_member": subgroup.min_member}


def _check_parallelism(fields: Mapping[str, Any], least: int, where: str) -> None:
    """Members that may run at once are no fewer than must, and whole subgroups."""
    most, size = fields.get("most_at_once", 0), fields.get("subgroup_size") or 1
    if 0 < most < least or most % size:
        must = f"is below its minMember {least}" if most < least else f"is no whole number of subgroups of {size}"
        raise BadInput(f"{where}: spec.parallelism", most, f"{must}: it would never start", "Leave it out, or raise it")


def _alike(members: list[dict[str, Any]], where: str, which: str = "members") -> tuple[dict[str, Any], int]:
    """What members say alike, how many may run at once if not all, and how many they are."""
    first = members[0]
    for fields in members[1:]:
        differs = {key for key in fields.keys() | first.keys() if fields.get(key) != first.get(key)}
        if differs - _COUNTED:
            raise BadInput(
                where, ", ".join(sorted(differs - _COUNTED)[:5]), f"differs between its {which}",
                "FLEXAI_MEMBER tells members that are alike apart; give those that are not subgroups (spec.subGroups)",
            )  # fmt: skip
    if any("most_at_once" in fields for fields in members):
        first = first | {
            "most_at_once": sum(fields.get("most_at_once", fields.get("n_members", 1)) for fields in members)
        }
    return first, sum(fields.get("n_members", 1) for fields in members)
