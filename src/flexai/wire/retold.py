"""What a pool's new scheduler was told of what went before it: part of the log, so that a replay can tell it again.

Jobs are in the log already, as they were submitted. Here they are named, with what can have changed since.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from flexai.scheduling.events import Event, GrantsFound, JobSubmitted
from flexai.wire.errors import BadInput
from flexai.wire.store import PoolStarted, decode_event, dumps, encode_event, to_plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flexai.model import Job


def encode_told(events: Sequence[Event]) -> tuple[tuple[str, str], ...]:
    """Events as (kind, JSON), with jobs by name."""
    out = []
    for event in events:
        if isinstance(event, JobSubmitted | GrantsFound):
            fields = {name: to_plain(getattr(event, name)) for name in event.__slots__ if name != "job"}
            out.append((type(event).__name__, dumps(fields | {"job": _changeable(event.job)})))
        else:
            out.append(encode_event(event))
    return tuple(out)


def decode_told(started: PoolStarted, jobs: Mapping[str, Job]) -> list[Event]:
    """Inverse of :func:`encode_told`; ``jobs`` as they were submitted, by id.

    Raises:
        BadInput: an event that cannot be read, or of a job that is not there.
    """
    out: list[Event] = []
    for kind, body in started.told:
        names_job = kind in {JobSubmitted.__name__, GrantsFound.__name__}
        event = decode_event(kind, _with_job(body, jobs) if names_job else body)
        assert isinstance(event, get_args(Event))
        out.append(event)
    return out


def _with_job(body: str, jobs: Mapping[str, Job]) -> str:
    try:
        fields = json.loads(body)
        changed: dict[str, Any] = fields["job"]
        job = jobs[changed["id"]]
        after = tuple(str(name) for name in changed["after"])
        job = replace(job, held=bool(changed["held"]), after=after)
        parts = changed.get("parts") or [[changed["compute_milli"], changed["limit_milli"], 0]]
        for index, (compute_milli, limit_milli, most) in enumerate(parts if len(parts) == len(job.parts) else ()):
            part = job.parts[index]
            request = replace(part.request, compute_milli=int(compute_milli), limit_milli=int(limit_milli))
            job = job.with_part(index, replace(part, request=request, most_at_once=int(most)))
        fields["job"] = to_plain(job)
    except (ValueError, TypeError, KeyError) as error:
        remedy = "Keep the log longer, and record and replay with one release"
        raise BadInput("event log", body[:80], f"names a job that it does not have ({error!r})", remedy) from None
    return dumps(fields)


def _changeable(job: Job) -> dict[str, Any]:
    parts = [[part.request.compute_milli, part.request.limit_milli, part.most_at_once] for part in job.parts]
    return {"id": job.id, "held": job.held, "after": list(job.after), "parts": parts}
