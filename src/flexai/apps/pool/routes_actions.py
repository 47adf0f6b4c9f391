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
from flexai.model import MILLI_PER_DEVICE, JobState, MemberState
from flexai.scheduling.events import (
    JobCancelled,
    JobHeld,
    JobMembersAsked,
    JobReleased,
    JobResizeAsked,
    ParkAsked,
)
from flexai.wire import api
from flexai.wire.errors import BadInput
from flexai.wire.fields import one_of
from flexai.wire.store import ClientFinished, PauseAsked


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/jobs")
    _add_runs(pool, routes)
    for name, (act, doc) in _actions(pool).items():
        _add_action(pool, routes, name, act, doc)

    @routes.post("/{job_id}/resize", openapi_extra=body(RESIZE))
    async def resize(request: Request, job_id: str) -> Response:
        """Other shares, of what is asked for while it waits and of what it holds while it runs; or other members."""
        record = await job_of(pool, request, job_id)
        asked = api.decode_resize(await fields_of(request))
        if record.state.is_final:
            raise conflict(record, "JobEnded", record.stands, "Submit it again")
        if record.state is JobState.PARKED:
            raise conflict(record, "IsParked", "is in host memory, and comes back with what it held", "Resize it then")
        index = _role_meant(record, asked.role)
        if asked.n_members:
            _check_members(record, index, asked.n_members)
            wish = JobMembersAsked(pool.core.clock(), record.id, asked.n_members, asked.role)
            await pool.core.post(wish, _said(asked, "n_members"))
            return answer(view(pool, record))
        _check_share(record, index, asked.compute_milli)
        event = JobResizeAsked(pool.core.clock(), record.id, asked.compute_milli, asked.limit_milli, asked.role)
        why = pool.core.scheduler.why_not_resize(event)
        await pool.core.post(event, _said(asked, "compute_milli"))
        if not record.has_shares(index, asked.compute_milli):
            told = why.message if why else "What its cards have left has just changed."
            raise Refusal(
                409, why.code.value if why else "NotEnoughCompute", f"Job {record.id} keeps what it has. {told}", "job",
                record.id, "See `flexai devices` for what its card has left",
            )  # fmt: skip
        return answer(view(pool, record))

    return routes


def _role_meant(record: JobRecord, name: str) -> int:
    """Place of the role that is to be resized among the job's.

    Raises:
        BadInput: it has none of that name, or several and none is named.
    """
    index = record.job.role_named(name)
    if index < 0:
        remedy = "Leave it out" if not record.job.roles else one_of({role.name for role in record.job.roles})
        problem = f"is no role of job {record.id}" if name else f"is needed: job {record.id} has several"
        raise BadInput("role", name or None, problem, remedy)
    return index


def _check_members(record: JobRecord, index: int, n_members: int) -> None:
    """Raises BadInput for a number of members that a role cannot run with."""
    role = record.job.parts[index]
    least, size = max(1, role.min_member), max(1, role.subgroup_size)
    if not least <= n_members <= role.n_members or n_members % size:
        steps = f" in steps of {size}" if size > 1 else ""
        can = f"{least} to {role.n_members}{steps}" if least < role.n_members else f"{least} and no other number"
        raise BadInput("n_members", n_members, "is no number of members that it can run with", f"Use {can}")


def _check_share(record: JobRecord, index: int, compute_milli: int) -> None:
    """Raises Refusal for members whose share is no matter of thousandths of a card."""
    request = record.job.parts[index].request
    if request.n_devices == 0:
        raise conflict(record, "NoCard", "asks for no card there", "Name a role that has cards")
    if request.partition:
        what = f"asks for partitions {request.partition}, whose size is fixed"
        raise conflict(record, "IsPartition", what, "Cancel it and submit it again")
    if request.is_whole and compute_milli < MILLI_PER_DEVICE:
        what = "has all of its cards' memory, so no other job could use the rest of them"
        raise conflict(record, "IsWhole", what, "Cancel it and submit it again with --memory")


def _said(asked: api.ResizeBody, what: str) -> dict[str, Any]:
    """What its history says of a wish."""
    return {what: getattr(asked, what)} | ({"role": asked.role} if asked.role else {})


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
        if name == "park":  # host memory is booked for what it holds now
            await pool.held_memory.tell(records)
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
