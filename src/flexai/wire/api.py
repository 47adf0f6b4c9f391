"""Pool API v1, the requests: JSON bodies of HTTP and of the CLI to typed values, checked by hand.

Written without a validation library on purpose: a submission is decoded on the pool's hottest path, and the CLI's
``run`` must start within milliseconds. Every failure is a :class:`BadInput` that names the field.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexai.model import MILLI_PER_DEVICE, SliceRequest
from flexai.wire.errors import BadInput
from flexai.wire.fields import MAX_INT, choice, flag, integer, one_of, only, short, text, texts
from flexai.wire.member_fields import (
    MAX_MEMBERS,
    REQUEST_FIELDS,
    decode_command,
    decode_cwd,
    decode_env,
    decode_most_at_once,
    decode_request,
    decode_subgroups,
)
from flexai.wire.queue import DEFAULT_QUEUE, check_name
from flexai.wire.role_fields import SubmittedRole, as_of_roles, decode_roles, encode_role

MAX_BODY_BYTES = 4 << 20
MAX_ARRAY_ELEMENTS = 10_000
MAX_GRACE_MS = 86_400_000
_JOB_ID = re.compile(r"\d{1,18}(_\d{1,9})?")
_ARRAY_PART = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?")


@dataclass(frozen=True, slots=True)
class Submission:
    """What a user asked to run; shared by all elements of an array.

    Attributes:
        kind: ``submit`` (the pool runs it) or ``run`` (the caller runs it as its own child once granted).
        command: argument vector.
        cwd: directory to run in, absolute.
        env: the whole environment of the command.
        array: element numbers; empty for a job that is no array.
        idle_timeout_ms: ended after this long without using its card; 0 for never.
        roles: where its members are unlike, and what those of each role run; ``command``, ``cwd``, ``env`` and
            ``request`` are then those of the first role.
    The other attributes are those of :class:`flexai.model.Job`.
    """

    command: tuple[str, ...]
    cwd: str
    request: SliceRequest
    kind: str = "submit"
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    queue: str = DEFAULT_QUEUE
    n_members: int = 1
    min_member: int = 1
    cpu_milli: int = 0
    ram_bytes: int = 0
    priority: int = 0
    preemptible: bool = True
    time_limit_ms: int = 0
    idle_timeout_ms: int = 0
    after: tuple[str, ...] = ()
    array: tuple[int, ...] = ()
    held: bool = False
    checkpointable: bool = False
    parkable: bool = True
    required_level: str = ""
    preferred_level: str = ""
    subgroup_size: int = 0
    subgroup_level: str = ""
    most_at_once: int = 0
    roles: tuple[SubmittedRole, ...] = ()
    min_runtime_ms: int = 0
    grace_ms: int = 0

    def what_runs(self, role: int) -> "Submission | SubmittedRole":
        """Command, directory and environment of the members of a role (0 where there are none)."""
        return self.roles[role] if self.roles else self


def decode_json(body: bytes, thing: str = "request body") -> dict[str, Any]:
    """Parse one JSON object.

    Raises:
        BadInput: too large, not JSON, or not an object.
    """
    if len(body) > MAX_BODY_BYTES:
        raise BadInput(thing, f"{len(body)} bytes", "is too large", f"Send at most {MAX_BODY_BYTES} bytes")
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(thing, short(body), f"is not JSON ({short(str(error))})", "Send one JSON object") from None
    if not isinstance(decoded, dict):
        raise BadInput(thing, short(body), "is not a JSON object", "Send one JSON object")
    return decoded


def decode_submission(fields: Mapping[str, Any]) -> Submission:
    """Check and complete the body of ``POST /v1/jobs``.

    Raises:
        BadInput: a field is unknown, missing, of the wrong type or out of range.
    """
    unknown = fields.keys() - SUBMISSION_FIELDS
    if unknown:
        name = min(unknown)
        raise BadInput(name, fields[name], "is not a field of a job", "See the reference for the fields of a job")
    kind = choice(fields, "kind", ("submit", "run"), "submit")
    roles = decode_roles(fields)
    if roles:
        fields = as_of_roles(fields, roles)
    n_members = integer(fields, "n_members", 1, MAX_MEMBERS, 1)
    min_member = integer(fields, "min_member", 1, n_members, n_members)
    subgroup_size, subgroup_level = decode_subgroups(fields, n_members, min_member)
    array = parse_array(fields["array"]) if fields.get("array") else ()
    if kind == "run" and (array or n_members > 1):
        thing, value = ("array", fields.get("array")) if array else ("n_members", n_members)
        raise BadInput(
            thing, value, "needs a job that the pool starts", "Use `flexai submit` for more than one process"
        )
    return Submission(
        kind=kind,
        command=decode_command(fields),
        cwd=decode_cwd(fields),
        env=decode_env(fields),
        name=text(fields, "name", "", 200),
        queue=check_name(fields.get("queue") or DEFAULT_QUEUE, "queue"),
        request=decode_request(fields),
        n_members=n_members,
        min_member=min_member,
        cpu_milli=integer(fields, "cpu_milli", 0, MAX_INT, 0),
        ram_bytes=integer(fields, "ram_bytes", 0, MAX_INT, 0),
        priority=integer(fields, "priority", -1_000_000, 1_000_000, 0),
        preemptible=flag(fields, "preemptible", True),
        time_limit_ms=integer(fields, "time_limit_ms", 0, MAX_INT, 0),
        idle_timeout_ms=integer(fields, "idle_timeout_ms", 0, MAX_INT, 0),
        after=_job_ids(fields),
        array=array,
        held=flag(fields, "held", False),
        checkpointable=flag(fields, "checkpointable", False),
        parkable=flag(fields, "parkable", True),
        required_level=text(fields, "required_level", "", 100),
        preferred_level=text(fields, "preferred_level", "", 100),
        subgroup_size=subgroup_size,
        subgroup_level=subgroup_level,
        most_at_once=decode_most_at_once(fields, n_members, min_member, subgroup_size),
        roles=roles,
        min_runtime_ms=integer(fields, "min_runtime_ms", 0, MAX_INT, 0),
        grace_ms=integer(fields, "grace_ms", 0, MAX_GRACE_MS, 0),
    )


def encode_submission(submission: Submission) -> dict[str, Any]:
    """The body that :func:`decode_submission` turns back into the same value."""
    request = submission.request
    fields: dict[str, Any] = {name: getattr(submission, name) for name in _PLAIN_FIELDS}
    fields |= {name: getattr(request, name) for name in REQUEST_FIELDS}
    fields |= {
        "command": list(submission.command),
        "env": dict(submission.env),
        "after": list(submission.after),
        "array": ",".join(map(str, submission.array)) or None,
        "models": list(request.models),
        "roles": [encode_role(each) for each in submission.roles],
        "tenant_class": request.tenant_class.value,
    }
    return fields


def check_filters(names: Iterable[str], known: Collection[str]) -> None:
    """Check the names of filters that a pool shall use.

    Raises:
        BadInput: one of them is not known here.
    """
    for name in names:
        if name not in known:
            remedy = one_of(set(known)) if known else "None is known here; leave the setting out, or add the filter"
            raise BadInput("filters", name, "is not the name of a filter", remedy)


@dataclass(frozen=True, slots=True)
class ResizeBody:
    """What a user wants of a job that is in: other shares (thousandths), or ``n_members`` at once; 0 for unchanged."""

    role: str
    compute_milli: int = 0
    limit_milli: int = 0
    n_members: int = 0


def decode_resize(fields: Mapping[str, Any]) -> ResizeBody:
    """Body of ``POST /v1/jobs/{id}/resize``.

    Raises:
        BadInput: out of range; shares and members in one, or neither.
    """
    only(fields, {"compute_milli", "limit_milli", "n_members", "role"})
    role = text(fields, "role", "", 63)
    if fields.get("n_members") is None:
        compute = integer(fields, "compute_milli", 1, MILLI_PER_DEVICE)
        return ResizeBody(role, compute, integer(fields, "limit_milli", compute, MILLI_PER_DEVICE, MILLI_PER_DEVICE))
    n_members = integer(fields, "n_members", 1, MAX_MEMBERS)
    if said := next((name for name in ("compute_milli", "limit_milli") if fields.get(name) is not None), None):
        remedy = "Ask for the one, and then for the other"
        raise BadInput(said, short(fields[said]), "is asked for together with a number of members", remedy)
    return ResizeBody(role, n_members=n_members)


def decode_pid(fields: Mapping[str, Any]) -> int:
    """Body of ``POST /v1/jobs/{id}/attach``."""
    only(fields, {"pid"})
    return integer(fields, "pid", 1, 2**22)


def decode_exit_code(fields: Mapping[str, Any]) -> int:
    """Body of ``POST /v1/jobs/{id}/finish``; 128 + n for a command that signal n ended."""
    only(fields, {"exit_code"})
    return integer(fields, "exit_code", 0, 255)


def decode_shutdown(fields: Mapping[str, Any]) -> str:
    """Body of ``POST /v1/shutdown``: what becomes of running jobs, ``keep`` or ``cancel``."""
    only(fields, {"jobs"})
    return choice(fields, "jobs", ("keep", "cancel"), "keep")


def decode_manifest_body(fields: Mapping[str, Any]) -> tuple[str, dict[str, Any], str]:
    """Body of ``POST /v1/manifests``: the YAML text, ``cwd`` and ``env`` of jobs that name none, the file."""
    only(fields, {"yaml", "cwd", "env", "file"})
    yaml = fields.get("yaml")
    if not isinstance(yaml, str):
        raise BadInput("yaml", short(yaml), "is not text", "Send the manifest as one string")
    cwd = decode_cwd(fields)
    return yaml, {"cwd": cwd, "env": decode_env(fields)}, text(fields, "file", "", 4096) or "manifest"


def parse_array(text: Any, thing: str = "array") -> tuple[int, ...]:
    """``0-9``, ``1,4,7-9`` or ``0-20:5`` to element numbers, ascending, each once.

    Raises:
        BadInput: not a list of numbers and ranges, or more than 10,000 elements.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(",") if isinstance(text, str) else ():
        match = _ARRAY_PART.fullmatch(part)
        if match is None:
            raise BadInput(
                thing, short(text), "is not a list of numbers and ranges", "Write 0-9, or 1,4,7-9, or 0-20:5"
            )
        first = int(match[1])
        last, step = int(match[2] or first), int(match[3] or 1)
        if last < first or step == 0:
            raise BadInput(thing, short(text), "has a range without elements", "Write the smaller number first")
        if (last - first) // step + len(numbers) >= MAX_ARRAY_ELEMENTS:
            raise BadInput(thing, short(text), f"has more than {MAX_ARRAY_ELEMENTS} elements", "Split it into several")
        numbers.update(range(first, last + 1, step))
    if not numbers:
        raise BadInput(thing, short(text), "is not a list of numbers and ranges", "Write 0-9, or 1,4,7-9, or 0-20:5")
    return tuple(sorted(numbers))


def check_job_id(text: Any, thing: str = "job") -> str:
    """A job id such as ``17`` or ``17_3``.

    Raises:
        BadInput: anything else.
    """
    if not isinstance(text, str) or _JOB_ID.fullmatch(text) is None:
        raise BadInput(
            thing, short(text), "is not a job id", "Give a number as `flexai jobs` shows it, such as 17 or 17_3"
        )
    return text


def _job_ids(fields: Mapping[str, Any]) -> tuple[str, ...]:
    ids = texts(fields, "after", 1000)
    for job_id in ids:
        check_job_id(job_id, "after")
    return tuple(dict.fromkeys(ids))


_PLAIN_FIELDS = tuple(
    name for name in Submission.__slots__ if name not in {"command", "env", "after", "array", "request", "roles"}
)
SUBMISSION_FIELDS = frozenset(
    {*_PLAIN_FIELDS, *REQUEST_FIELDS, "command", "env", "after", "array", "models", "tenant_class", "roles"}
)
