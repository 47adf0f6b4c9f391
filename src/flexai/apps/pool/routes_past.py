"""What happened and why: explanations, history, events, output, usage."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from flexai.apps.pool.described import PAGE, query
from flexai.apps.pool.explain import explain
from flexai.apps.pool.http import Refusal, answer, number, page_limit, peer_of_request
from flexai.apps.pool.identity import Peer
from flexai.apps.pool.output import read_output
from flexai.apps.pool.routes_jobs import job_of, jobs_of, view
from flexai.apps.pool.service import Pool
from flexai.wire.errors import BadInput

_MAX = 2**62
_DEFAULT_LIMIT, _MAX_LIMIT = 200, 1000
_BEAT_S = 10.0
_LATEST = "1 for the last lines instead of the first ones"
_GROUPS = ("user", "queue", "device", "job")
_USAGE = """
    SELECT {columns}, sum(compute_milli * (min(ifnull(to_ms, :now), :now) - max(from_ms, :since))),
        sum(memory_bytes / 1048576 * (min(ifnull(to_ms, :now), :now) - max(from_ms, :since))),
        count(DISTINCT job_id)
    FROM usage WHERE ifnull(to_ms, :now) > :since AND from_ms < :now AND (:uid IS NULL OR uid = :uid)
    GROUP BY {columns} ORDER BY 1, 2 LIMIT 10000
"""
_MILLI_MS_PER_CARD_HOUR = 1000 * 3_600_000
_MIB_MS_PER_GIB_HOUR = 1024 * 3_600_000


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/jobs/{job_id}/explain")
    async def why(request: Request, job_id: str) -> Response:
        """Why a job is where it is, card by card, with its latest history."""
        record = await job_of(pool, request, job_id)
        lines = await history_lines(pool, peer_of_request(request), after=0, limit=20, job_ids=[job_id], latest=True)
        return answer(explain(pool, peer_of_request(request), record) | {"job": view(pool, record), "history": lines})

    @routes.get("/jobs/{job_id}/history", openapi_extra=query(**PAGE, latest=_LATEST))
    async def job_history(request: Request, job_id: str) -> Response:
        """What happened to a job, or to the elements of an array, oldest first."""
        records = await jobs_of(pool, request, job_id)
        return answer(await _page(pool, request, [record.id for record in records]))

    @routes.get("/history", openapi_extra=query(**PAGE, latest=_LATEST))
    async def history(request: Request) -> Response:
        """What happened in the pool, oldest first."""
        return answer(await _page(pool, request, None))

    @routes.get("/events", openapi_extra=query(from_seq="first line of history wanted"))
    async def events(request: Request) -> Response:
        """The history as it happens (server-sent events), from where the caller left it."""
        last = request.headers.get("last-event-id", "")
        start = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 19 else pool.last_history + 1
        after = number(request, "from_seq", 0, _MAX, start) - 1
        return StreamingResponse(_events(pool, peer_of_request(request), after), media_type="text/event-stream")

    @routes.get(
        "/jobs/{job_id}/logs",
        openapi_extra=query(
            offset="bytes to skip, or from the end if negative", follow="1 to go on", member="of a gang"
        ),
    )
    async def logs(request: Request, job_id: str) -> Response:
        """The output of a member; with ``follow=1`` until it has ended."""
        record = await job_of(pool, request, job_id)
        member = number(request, "member", 0, max(len(record.members) - 1, 0), 0)
        if record.is_run:
            remedy = "It is on the terminal, or wherever its caller sent it"
            raise Refusal(409, "NoOutput", f"The output of job {job_id} is its caller's.", "job", job_id, remedy)
        offset = number(request, "offset", -_MAX, _MAX, 0)
        follow = number(request, "follow", 0, 1, 0) == 1

        def is_over() -> bool:
            return record.state.is_final or pool.quit.is_set()

        stream = read_output(pool.log_path(record.id, member), offset, follow=follow, is_over=is_over)
        return StreamingResponse(stream, media_type="text/plain; charset=utf-8")

    @routes.get("/usage", openapi_extra=query(since_ms="", by="some of user, queue, device, job, with commas"))
    async def usage(request: Request) -> Response:
        """Card-hours granted since ``since_ms``, by user and queue or as asked."""
        peer, now_ms = peer_of_request(request), pool.core.clock()
        since_ms = number(request, "since_ms", 0, _MAX, 0)
        by = [word for word in request.query_params.get("by", "user,queue").split(",") if word]
        if not by or len(set(by)) != len(by) or not set(by) <= set(_GROUPS):
            raise BadInput("by", ",".join(by)[:80], "is not a grouping", "Use some of: " + ", ".join(_GROUPS))
        columns = ["job_id" if word == "job" else word for word in by]
        sql = _USAGE.format(columns=", ".join(columns))
        uid = None if peer.is_operator else peer.uid
        await pool.core.stored()
        rows = await pool.reader.fetch(sql, {"now": now_ms, "since": since_ms, "uid": uid})
        items = [
            dict(zip(by, row, strict=False))
            | {
                "card_hours": round(row[-3] / _MILLI_MS_PER_CARD_HOUR, 6),
                "card_milli_ms": row[-3],
                "memory_gib_hours": round(row[-2] / _MIB_MS_PER_GIB_HOUR, 6),
                "n_jobs": row[-1],
            }
            for row in rows
        ]
        return answer({"items": items, "since_ms": since_ms, "until_ms": now_ms, "cursor": None})

    return routes


async def history_lines(
    pool: Pool, peer: Peer, *, after: int, limit: int, job_ids: list[str] | None, latest: bool = False
) -> list[dict[str, Any]]:
    """Lines of history that a caller may see: its own jobs', and the pool's."""
    await pool.core.stored()
    where = "id > :after AND (:uid IS NULL OR uid IN (:uid, -1))"
    if job_ids is not None:
        where += " AND job_id IN (SELECT value FROM json_each(:jobs))"
    order = "DESC" if latest else "ASC"
    sql = f"SELECT id, at_ms, job_id, kind, body FROM history WHERE {where} ORDER BY id {order} LIMIT :limit"  # noqa: S608
    parameters = {"after": after, "uid": None if peer.is_operator else peer.uid, "jobs": json.dumps(job_ids or [])}
    rows = await pool.reader.fetch(sql, parameters | {"limit": limit})
    lines = [
        {"seq": row[0], "at_ms": row[1], "job_id": row[2] or None, "kind": row[3], **json.loads(row[4])} for row in rows
    ]
    return lines[::-1] if latest else lines


async def _page(pool: Pool, request: Request, job_ids: list[str] | None) -> dict[str, Any]:
    limit = page_limit(request, _DEFAULT_LIMIT, _MAX_LIMIT)
    if number(request, "latest", 0, 1, 0):
        peer = peer_of_request(request)
        return {
            "items": await history_lines(pool, peer, after=0, limit=limit, job_ids=job_ids, latest=True),
            "cursor": None,
        }
    after = number(request, "cursor", 0, _MAX, 0)
    lines = await history_lines(pool, peer_of_request(request), after=after, limit=limit + 1, job_ids=job_ids)
    more = len(lines) > limit
    return {"items": lines[:limit], "cursor": str(lines[limit - 1]["seq"]) if more else None}


async def _events(pool: Pool, peer: Peer, after: int) -> AsyncIterator[bytes]:
    yield b": the pool's history\n\n"
    while not pool.quit.is_set():
        complete_to = pool.last_history
        lines = await history_lines(pool, peer, after=after, limit=_DEFAULT_LIMIT, job_ids=None)
        for line in lines:
            after = line["seq"]
            data = json.dumps(line, separators=(",", ":"))
            yield f"id: {after}\nevent: {line['kind']}\ndata: {data}\n\n".encode()
        if len(lines) < _DEFAULT_LIMIT:
            after = max(after, complete_to)  # what lies between was not for this caller
            if not await _later_than(pool, after):
                yield b": still here\n\n"


async def _later_than(pool: Pool, seen: int) -> bool:
    try:
        async with asyncio.timeout(_BEAT_S), pool.history_tail:
            await pool.history_tail.wait_for(lambda: pool.last_history > seen or pool.quit.is_set())
    except TimeoutError:
        return False
    return True
