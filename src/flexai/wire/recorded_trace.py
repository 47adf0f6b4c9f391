"""A live pool's event log (``flexai record``) as a trace: what its jobs asked for, when, and how long they ran.

How long a job ran is taken from its last run alone, from the start of its first member to the end of its last: what it
did before it was evicted it did over. Time in host memory counts, since the log does not tell work from waiting there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted
from flexai.wire.errors import BadInput
from flexai.wire.store import decode_event
from flexai.wire.trace import TraceJob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flexai.model import Job, Role
    from flexai.wire.trace_rows import BadRows

HEADER = "flexai_recording"
TOLD = {kind.__name__ for kind in (JobSubmitted, MemberStarted, MemberFinished)}


@dataclass(slots=True)
class _Run:
    job: Job
    where: str
    began_ms: int = -1
    ended_ms: int = -1
    running: set[int] = field(default_factory=set)

    def note(self, event: MemberStarted | MemberFinished) -> None:
        if isinstance(event, MemberStarted):
            if not self.running:
                self.began_ms, self.ended_ms = event.at_ms, -1
            self.running.add(event.member)
        else:
            self.running.discard(event.member)
            if not self.running and self.began_ms >= 0:
                self.ended_ms = event.at_ms


def read_recorded(lines: Iterable[str], source: str, bad: BadRows) -> list[TraceJob]:
    """Read what ``flexai record`` wrote.

    Raises:
        BadInput: a line or an event that does not parse; a job that had not ended (unless these are skipped).
    """
    runs: dict[str, _Run] = {}
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        try:
            row: dict[str, Any] = json.loads(line)
            kind = str(row.get("event", ""))
            event = decode_event(kind, str(row["body"])) if kind in TOLD else None
        except (ValueError, AttributeError, KeyError) as error:
            if not isinstance(error, BadInput):
                error = BadInput(where, line[:80].strip(), "is no line of a recording", "Make one with `flexai record`")
            bad.take(error)
            continue
        if isinstance(event, JobSubmitted):
            runs[event.job.id] = _Run(event.job, where)
        elif isinstance(event, MemberStarted | MemberFinished) and event.job_id in runs:
            runs[event.job_id].note(event)
    out = []
    for run in runs.values():
        if run.ended_ms < 0:
            problem = "had not ended" if run.began_ms >= 0 else "had not started"
            bad.take(BadInput(f"{run.where}: job", run.job.id, problem, "Use --skip-bad to leave such jobs out"))
        else:
            out.append(_job(run))
    return out


def _job(run: _Run) -> TraceJob:
    job = run.job
    parts = tuple(_role(run, role) for role in job.parts)
    return replace(parts[0], n_members=job.n_members, roles=parts) if job.roles else parts[0]


def _role(run: _Run, role: Role) -> TraceJob:
    job, ask = run.job, role.request
    return TraceJob(
        job.id, job.queue, job.user, job.submitted_at_ms, run.ended_ms - run.began_ms, role.n_members, ask.n_devices,
        ask.compute_milli if ask.n_devices else 0, role.cpu_milli, role.ram_bytes, ask.models, job.priority,
        job.preemptible, job.checkpointable, role.min_member, job.id if role.name else "", role.name,
    )  # fmt: skip
