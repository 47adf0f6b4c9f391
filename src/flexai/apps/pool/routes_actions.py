"""``/v1/jobs/{id}``: what its user asks of a job, and the talk with the caller of a ``run``."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.described import ATTACH, FINISH, RESIZE, body
from flexai.apps.pool.http import Refusal, answer, body_of, fields_of, peer_of_request
from flexai.apps.pool.routes_jobs import array_view, job_of, jobs_of, view, views
from flexai.apps.pool.service import Pool
from flexai.model import JobState, MemberState
from flexai.scheduling.events import JobCancelled, JobHeld, JobReleased, JobResizeAsked, ParkAsked
from flexai.wire import api
from flexai.wire.store import ClientFinished, PauseAsked


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/jobs")
    _add_runs(pool, routes)
    for name, (act, doc) in _actions(pool).items():
        _add_action(pool, routes, name, act, doc)

    @routes.post("/{job_id}/resize", openapi_extra=body(RESIZE, "compute_milli"))
    async def resize(request: Request, job_id: str) -> Response:
        """Other shares: of what is asked for while it waits, of what it holds while it runs."""
        record = await job_of(pool, request, job_id)
        compute, limit = api.decode_resize(await fields_of(request))
        if record.state.is_final:
            raise conflict(record, "JobEnded", record.stands, "Submit it again")
        if record.state is JobState.PARKED:
            raise conflict(record, "IsParked", "is in host memory, and comes back with what it held", "Resize it then")
        if record.job.roles:
            raise conflict(record, "HasRoles", "has roles, which are not resized", "Cancel it and submit it again")
        await pool.core.post(JobResizeAsked(pool.core.clock(), record.id, compute, limit), {"compute_milli": compute})
        if record.is_placed and any(g.compute_milli != compute for m in record.members for g in m.grants):
            reason = "does not fit on its card beside its neighbours at that share"
            raise conflict(record, "NotEnoughCompute", reason, "See `flexai devices` for what its card has left")
        return answer(view(pool, record))

    return routes


def _add_runs(pool: Pool, routes: APIRouter) -> None:
    @routes.get("/{job_id}/grant")
    async def grant(request: Request, job_id: str) -> Response:
        """For the caller of a ``run``: lines that say why it waits, then its grant."""
        record = await run_of(pool, request, job_id)

        async def lines() -> AsyncIterator[bytes]:
            async for said in pool.runs.follow(record):
                yield json.dumps(said, separators=(",", ":")).encode() + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @routes.post("/{job_id}/attach", openapi_extra=body(ATTACH, "pid"))
    async def attach(request: Request, job_id: str) -> Response:
        """The caller's child, before it executes its command."""
        record = await run_of(pool, request, job_id)
        pid = api.decode_pid(await fields_of(request))
        if record.members[0].state is not MemberState.STARTING:
            raise conflict(record, "NotGranted", "has no grant to attach to", "Wait for the grant first")
        await pool.driver.attach(record, pid)
        return answer(view(pool, record))

    @routes.post("/{job_id}/finish", openapi_extra=body(FINISH, "exit_code"))
    async def finish(request: Request, job_id: str) -> Response:
        """How the caller's child ended."""
        record = await run_of(pool, request, job_id)
        exit_code = api.decode_exit_code(await fields_of(request))
        if not record.state.is_final:
            await pool.core.post(ClientFinished(pool.core.clock(), record.id, exit_code))
        return answer(view(pool, record))


def _add_action(pool: Pool, routes: APIRouter, name: str, act: Callable[[JobRecord], Any], doc: str) -> None:
    async def handler(request: Request, job_id: str) -> Response:
        await body_of(request)
        records = await jobs_of(pool, request, job_id)
        errors: list[Refusal] = []
        n_done = 0
        for record in records:
            try:
                event = act(record)
            except Refusal as error:
                errors.append(error)
                continue
            n_done += 1
            if event is not None:
                await pool.core.post(event, {"by": peer_of_request(request).user})
        if errors and not n_done:
            raise errors[0]
        if records[0].id == job_id:
            return answer(view(pool, records[0]))
        return answer(array_view(records, await views(pool, records[:100]), job_id))

    handler.__doc__ = doc
    routes.post(f"/{{job_id}}/{name}", name=name)(handler)


async def run_of(pool: Pool, request: Request, job_id: str) -> JobRecord:
    """A job whose command is its caller's own child.

    Raises:
        Refusal: unknown, or the pool itself runs it.
    """
    record = await job_of(pool, request, job_id)
    if not record.is_run:
        raise conflict(record, "NotARun", "is run by the pool", "Use this for jobs of kind run")
    return record


def conflict(record: JobRecord, code: str, what: str, remedy: str) -> Refusal:
    """A job that is not in the state for it."""
    return Refusal(409, code, f"Job {record.id} {what}.", "job", record.id, remedy)


def _actions(pool: Pool) -> dict[str, tuple[Callable[[JobRecord], Any], str]]:
    """What can be asked of a job without saying more: the event it is, or None where nothing is left to do."""

    def now() -> int:
        return pool.core.clock()

    def queued(record: JobRecord, then: JobState, event: Any) -> Any:
        if record.state is then:
            return None
        if record.state not in {JobState.QUEUED, JobState.HELD}:
            raise conflict(record, "NotQueued", record.stands, "Only a job that waits can be held")
        return event(now(), record.id)

    def running(record: JobRecord, flag: str, wanted: bool, event: Any) -> Any:
        holders = [member for member in record.members if member.is_placed]
        if record.state.is_final or not holders or record.state is JobState.STARTING:
            raise conflict(record, "NotRunning", record.stands, "Only a running job can be asked that")
        if all(getattr(member, flag) is wanted for member in holders):
            return None
        if event is ParkAsked and wanted and (why := pool.core.scheduler.why_not_park(record.id)):
            raise conflict(record, "CannotPark", why, "Pause it instead: its memory then stays on its card")
        return event(now(), record.id, wanted)

    return {
        "cancel": (
            lambda record: None if record.state.is_final else JobCancelled(now(), record.id),
            "Give it up, queued or running.",
        ),
        "hold": (lambda record: queued(record, JobState.HELD, JobHeld), "Let it wait until released."),
        "release": (lambda record: queued(record, JobState.QUEUED, JobReleased), "Let a held job go on."),
        "pause": (lambda record: running(record, "paused", True, PauseAsked), "Freeze it where it runs."),
        "unpause": (lambda record: running(record, "paused", False, PauseAsked), "Let a frozen job go on."),
        "park": (
            lambda record: running(record, "parked", True, ParkAsked),
            "Move it to host memory; its place is free for others.",
        ),
        "wake": (
            lambda record: running(record, "parked", False, ParkAsked),
            "Bring it back from host memory, as soon as there is room for it.",
        ),
    }
