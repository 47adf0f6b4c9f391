"""``/v1/jobs``: submit, look at, change."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.described import DECIDED, JOB, PAGE, body, query
from flexai.apps.pool.http import Refusal, answer, body_of, number, peer_of_request
from flexai.apps.pool.intake import admit
from flexai.apps.pool.listing import list_jobs
from flexai.apps.pool.service import Pool
from flexai.apps.pool.views import job_view
from flexai.model import JobState
from flexai.wire import api

_WAIT_DEFAULT_MS, _WAIT_MAX_MS = 60_000, 3_600_000
_BATCH = 20


async def job_of(pool: Pool, request: Request, job_id: str) -> JobRecord:
    """The job that a path names, if its caller may know of it.

    Raises:
        Refusal: there is none, or it is another user's (which looks the same).
    """
    record = await pool.record(api.check_job_id(job_id))
    if record is not None and peer_of_request(request).owns(record.uid):
        return record
    if record is None and "_" not in job_id:
        elements = await jobs_of(pool, request, job_id)
        raise Refusal(
            409, "IsArray", f"Job {job_id} is an array of {len(elements)}.", "job", job_id,
            f"Name one of its elements, as {elements[0].id}",
        )  # fmt: skip
    raise unknown(job_id)


async def jobs_of(pool: Pool, request: Request, job_id: str) -> list[JobRecord]:
    """The job, or all elements of the array, that a path names.

    Raises:
        Refusal: there is none that its caller may know of.
    """
    if "_" in api.check_job_id(job_id):
        return [await job_of(pool, request, job_id)]
    peer = peer_of_request(request)
    one = pool.book.find(job_id)
    records = [one] if one is not None else await pool.records(int(job_id))
    records = [record for record in records if peer.owns(record.uid)]
    if not records:
        raise unknown(job_id)
    return records


def unknown(job_id: str) -> Refusal:
    """There is no such job."""
    return Refusal(404, "UnknownJob", f"There is no job {job_id}.", "job", job_id, "See `flexai jobs`")


def view(pool: Pool, record: JobRecord) -> dict[str, Any]:
    """A job as the API shows it."""
    return job_view(record, pool.core.reason_for(record), pool.book.position(record))


async def views(pool: Pool, records: list[JobRecord]) -> list[dict[str, Any]]:
    """Jobs as the API shows them; decisions go on in between."""
    items = []
    for at in range(0, len(records), _BATCH):
        items += [view(pool, record) for record in records[at : at + _BATCH]]
        await asyncio.sleep(0)
    return items


async def admitted(pool: Pool, request: Request, records: list[JobRecord]) -> dict[str, Any]:
    """What is answered to who submitted: the ids, and the first jobs; with their reasons, if he waits for these."""
    if request.query_params.get("decided") == "1":
        await pool.core.decided()
    return {"ids": [record.id for record in records], "items": await views(pool, records[:100])}


async def job_or_array(pool: Pool, records: list[JobRecord], job_id: str) -> dict[str, Any]:
    """What the id names: one job, or an array's summary with its first elements."""
    if records[0].id == job_id:
        return view(pool, records[0])
    return array_view(records, await views(pool, records[:100]), job_id)


def array_view(records: list[JobRecord], items: list[dict[str, Any]], job_id: str) -> dict[str, Any]:
    """An array as one thing: how many of its elements stand where."""
    counts: dict[str, int] = {}
    for record in records:
        counts[record.state.value] = counts.get(record.state.value, 0) + 1
    codes = [record.exit_code for record in records if record.exit_code]
    return {
        "id": job_id, "array": True, "state": array_state(records), "exit_code": codes[0] if codes else None,
        "n_elements": len(records), "counts": counts, "items": items,
    }  # fmt: skip


def array_state(records: list[JobRecord]) -> str:
    """The state of the element that is furthest from having succeeded."""
    order = list(JobState)  # as jobs go through them; failed and cancelled come last
    active = [record.state for record in records if not record.state.is_final]
    return min(active, key=order.index) if active else max((record.state for record in records), key=order.index)


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/jobs")

    @routes.post("", status_code=201, openapi_extra=body(JOB, "command", "compute_milli") | query(**DECIDED))
    async def submit(request: Request) -> Response:
        """Submit a job; durable when answered."""
        submission = api.decode_submission(api.decode_json(await body_of(request)))
        records = await admit(pool, peer_of_request(request), [submission])
        return answer(await admitted(pool, request, records), 201)

    @routes.get("", openapi_extra=query(state="states, with commas; active, final", user="", queue="", **PAGE))
    async def jobs(request: Request) -> Response:
        """Jobs, active ones first, page by page."""
        records, cursor = await list_jobs(pool, peer_of_request(request), request)
        return answer({"items": await views(pool, records), "cursor": cursor})

    @routes.get("/{job_id}")
    async def job(request: Request, job_id: str) -> Response:
        """One job, or an array's summary."""
        return answer(await job_or_array(pool, await jobs_of(pool, request, job_id), job_id))

    @routes.get("/{job_id}/wait", openapi_extra=query(timeout_ms="answer after this long anyway"))
    async def wait(request: Request, job_id: str) -> Response:
        """The job once it is final (an array once all elements are), or as it is when the time is up."""
        records = await jobs_of(pool, request, job_id)
        timeout_s = min(number(request, "timeout_ms", 0, 2**62, _WAIT_DEFAULT_MS), _WAIT_MAX_MS) / 1e3
        try:
            async with asyncio.timeout(timeout_s):
                for record in records:
                    while not record.state.is_final:
                        await pool.core.changed(record.id)
        except TimeoutError:
            pass
        return answer(await job_or_array(pool, records, job_id))

    return routes
