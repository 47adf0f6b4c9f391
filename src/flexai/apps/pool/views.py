"""What the API shows of jobs and queues: plain JSON values out of the pool's records."""

from typing import Any

from flexai.apps.pool.book import Book, JobRecord
from flexai.model import Job, JobState, PendingReason, Queue
from flexai.wire.store import to_plain

_REQUEST = ("n_members", "min_member", "cpu_milli", "ram_bytes", "priority", "preemptible", "time_limit_ms", "after")


def job_view(record: JobRecord, reason: PendingReason | None, position: int | None) -> dict[str, Any]:
    """One job."""
    job, submission = record.job, record.submission
    return {
        "id": record.id,
        "array_id": None if record.array_index is None else str(record.number),
        "array_index": record.array_index,
        "name": submission.name or submission.command[0].rsplit("/", 1)[-1],
        "kind": submission.kind,
        "user": job.user,
        "queue": job.queue,
        "state": shown_state(record),
        "reason": reason_view(reason),
        "position": position,
        "request": request_view(job) | {"idle_timeout_ms": submission.idle_timeout_ms},
        "grants": [to_plain(grant) for member in record.members for grant in member.grants],
        "members": [
            {
                "member": number,
                "state": member.state.value,
                "run": member.run,
                "exit_code": member.exit_code,
                "paused": member.paused,
                "parked": member.is_parked,
            }
            | ({"role": job.role_of(number).name} if job.roles else {})
            for number, member in enumerate(record.members)
        ],
        "submitted_at_ms": job.submitted_at_ms,
        "started_at_ms": record.started_at_ms,
        "finished_at_ms": record.finished_at_ms,
        "exit_code": record.exit_code if record.state.is_final else None,
        "cause": record.cause or None,
        "command": list(submission.command),
        "cwd": submission.cwd,
    }


def shown_state(record: JobRecord) -> str:
    """Its state as its user sees it: one that is being ended is stopping."""
    if record.state is JobState.RUNNING:
        holders = [member for member in record.members if member.is_placed]
        if holders and all(member.stop for member in holders):
            return JobState.STOPPING.value
    return record.state.value


def request_view(job: Job) -> dict[str, Any]:
    """What a job asked for."""
    plain: dict[str, Any] = to_plain(job.request)
    plain |= {name: to_plain(getattr(job, name)) for name in _REQUEST}
    if job.most_at_once:
        plain["most_at_once"] = job.most_at_once
    if job.roles:
        plain["roles"] = to_plain(job.roles)
    return plain


def reason_view(reason: PendingReason | None) -> dict[str, Any] | None:
    """Why a job waits."""
    if reason is None:
        return None
    return {"code": reason.code.value, "message": reason.message, "numbers": dict(reason.numbers)}


def queue_view(queue: Queue, book: Book) -> dict[str, Any]:
    """One queue with what it holds now."""
    in_queue = [record for record in book.active.values() if record.job.queue == queue.name]
    grants = [grant for record in in_queue for member in record.members for grant in member.on_card]
    view: dict[str, Any] = to_plain(queue)
    return view | {
        "n_running": sum(record.is_placed for record in in_queue),
        "n_waiting": sum(not record.is_placed for record in in_queue),
        "held_milli": sum(grant.compute_milli for grant in grants),
        "held_bytes": sum(grant.memory_bytes for grant in grants),
    }
