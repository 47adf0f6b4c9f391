"""Our own trace of jobs, as CSV or as YAML: the same names in both.

``submit_s``, ``duration_s`` and ``devices`` (cards per member) must be given. The others may: ``name``, ``queue``,
``user``, ``share`` of a card (0.25), ``members``, ``cpus`` and ``ram_gib`` per member, ``priority``, ``preemptible``,
``checkpointable`` (an eviction then costs only the work since the last checkpoint), ``min_members`` (the job starts
with so many, and grows to ``members``), ``gang`` and ``role``: rows with the same gang, one after the other, are the
roles of one job, which starts when the least of each fits. A name not among these is an error, since a misspelt one
would change the answer in silence. The clock may not run back.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from flexai.wire.errors import BadInput
from flexai.wire.trace import TraceJob
from flexai.wire.trace_rows import BadRows, Row, made_of, read_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GIB = 2**30
NEEDED = ("submit_s", "duration_s", "devices")
KNOWN = (
    *NEEDED, "name", "queue", "user", "share", "members", "cpus", "ram_gib", "priority", "preemptible",
    "checkpointable", "min_members", "gang", "role",
)  # fmt: skip


def read_own(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read the CSV form: a header line, then a job a line.

    Raises:
        BadInput: see ``read_rows``; an unknown column; a clock that runs back.
    """
    return _joined(read_rows(lines, source, NEEDED, _maker(source), bad), source)


def read_own_yaml(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read the YAML form: a list of jobs, or ``jobs:`` with such a list.

    Raises:
        BadInput: no such YAML; a bad job (unless skipped), named by the line it begins on.
    """
    return _joined(made_of(_jobs("".join(lines), source), _maker(source), bad), source)


def _maker(source: str) -> Callable[[Row], TraceJob]:
    latest_ms = -1

    def make(row: Row) -> TraceJob:
        nonlocal latest_ms
        unknown = sorted(row.names - set(KNOWN))
        if unknown:
            raise BadInput(f"{source}: {unknown[0]}", "", "is no column known here", f"Known are {', '.join(KNOWN)}")
        submit_ms = row.ms("submit_s")
        if submit_ms < latest_ms:
            raise row.wrong("submit_s", f"runs back from {latest_ms / 1000:g} s")

        def number(name: str, default: int, scale: int, *, least: int = 0) -> int:
            return row.scaled(name, scale, least) if name in row.names and row.text(name) else default

        def text(name: str, default: str) -> str:
            return row.text(name) or default if name in row.names else default

        def flag(name: str, *, default: bool) -> bool:
            return row.flag(name) if name in row.names and row.text(name) else default

        job = TraceJob(
            name=text("name", f"{source}-{row.number}"), queue=text("queue", "default"), user=text("user", ""),
            submit_ms=submit_ms, duration_ms=row.ms("duration_s"), n_members=number("members", 1, 1, least=1),
            n_devices=row.integer("devices", most=100_000), compute_milli=_share_milli(row),
            cpu_milli=number("cpus", 0, 1000), ram_bytes=number("ram_gib", 0, GIB),
            priority=number("priority", 0, 1), preemptible=flag("preemptible", default=True),
            checkpointable=flag("checkpointable", default=False), min_member=number("min_members", -1, 1),
            gang=text("gang", ""), role=text("role", ""),
        )  # fmt: skip
        if job.min_member > job.n_members or (job.min_member == 0 and not job.gang):
            raise row.wrong("min_members", f"is not within 1 to its {job.n_members} members")
        if bool(job.gang) != bool(job.role):
            raise row.wrong("role" if job.role else "gang", "is given without the other of gang and role")
        latest_ms = submit_ms
        return job

    return make


def _joined(jobs: list[TraceJob], source: str) -> list[TraceJob]:
    """The jobs, with those of one gang as roles of one job."""
    out: list[TraceJob] = []
    seen: set[str] = set()
    for gang, some in itertools.groupby(jobs, key=lambda job: job.gang):
        roles = tuple(some)
        if not gang:
            out += roles
            continue
        thing = f"{source}: gang {gang}"
        if gang in seen:
            raise BadInput(thing, gang, "is there again further down", "Write its roles one after the other")
        seen.add(gang)
        if len({role.role for role in roles}) < max(2, len(roles)):
            raise BadInput(thing, roles[0].role, "is not two or more roles with names of their own", "Name each role")
        if all(role.min_member == 0 for role in roles):
            raise BadInput(thing, 0, "is the least of each of its roles", "Let one role need at least one member")
        for name in _OF_A_GANG:
            if len({getattr(role, name) for role in roles}) > 1:
                raise BadInput(thing, name, "differs between its roles", "Roles of a gang come and go together")
        out.append(replace(roles[0], name=gang, n_members=sum(role.n_members for role in roles), roles=roles))
    return out


_OF_A_GANG = ("submit_ms", "duration_ms", "queue", "user", "priority", "preemptible", "checkpointable")


def _share_milli(row: Row) -> int:
    if "share" not in row.names or not row.text("share"):
        return 1000
    milli = row.scaled("share", 1000, 1)
    if milli > 1000:
        raise row.wrong("share", "is more than a whole card")
    return milli


def _jobs(text: str, source: str) -> Iterator[Row]:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise BadInput(where, "", f"is no YAML ({getattr(error, 'problem', error)})", "Mend the file") from error
    if isinstance(root, yaml.MappingNode):
        root = next((value for key, value in root.value if key.value == "jobs"), root)
    if not isinstance(root, yaml.SequenceNode):
        raise BadInput(source, "", "is no list of jobs", "Write `- {submit_s: 0, duration_s: 60, devices: 1}` a line")
    for node in root.value:
        number = node.start_mark.line + 1
        if not isinstance(node, yaml.MappingNode):
            yield Row(source, number, NEEDED, ())
            continue
        plain = all(isinstance(part, yaml.ScalarNode) for pair in node.value for part in pair)
        names = [str(key.value) for key, _ in node.value]
        yield Row(source, number, names, [str(value.value) for _, value in node.value] if plain else ())
