"""``/v1``: the pool itself, its queues and its cards."""

import os
from typing import Any

from fastapi import APIRouter, Request, Response

from flexai.apps.pool import devices, doctor
from flexai.apps.pool.described import SHUTDOWN, body
from flexai.apps.pool.http import answer, body_of, fields_of, operator_only, peer_of_request
from flexai.apps.pool.routes_jobs import views
from flexai.apps.pool.service import Pool
from flexai.apps.pool.tasks import spawn
from flexai.apps.pool.views import queue_view
from flexai.model import JobState
from flexai.scheduling.events import DeviceChanged, JobCancelled
from flexai.wire import api

_TOP_JOBS = 500


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/status")
    async def status() -> Response:
        """Whether all is well, and the counts."""
        return answer(status_view(pool))

    @routes.get("/devices")
    async def cards(request: Request) -> Response:
        """All cards with their slices."""
        return answer({"items": devices.views(pool, peer_of_request(request)), "cursor": None})

    for verb in ("cordon", "uncordon", "drain"):
        _device_action(pool, routes, verb)

    @routes.get("/top")
    async def top(request: Request) -> Response:
        """Everything that a screen of the pool shows, in one call."""
        peer = peer_of_request(request)
        active = [record for record in pool.book.active.values() if peer.owns(record.uid)]
        active.sort(key=lambda record: not record.is_placed)
        return answer(
            {
                "status": status_view(pool),
                "devices": devices.views(pool, peer),
                "queues": [queue_view(pool.book.queues[name], pool.book) for name in sorted(pool.book.queues)],
                "jobs": await views(pool, active[:_TOP_JOBS]),
                "n_jobs": len(active),
            }
        )

    @routes.get("/doctor")
    async def all_checks() -> Response:
        """What is wrong with the pool, and what the agent finds wrong on this machine."""
        return answer({"checks": await doctor.checks(pool)})

    @routes.post("/shutdown", openapi_extra=body(SHUTDOWN))
    async def shutdown(request: Request) -> Response:
        """End the pool; jobs go on (``keep``) or are cancelled first."""
        operator_only(request, "shut the pool down")
        jobs = api.decode_shutdown(await fields_of(request))
        pool.is_leaving = True
        n_cancelled = 0
        if jobs == "cancel":
            for record in list(pool.book.active.values()):
                await pool.core.post(JobCancelled(pool.core.clock(), record.id), {"by": peer_of_request(request).user})
                n_cancelled += 1
        spawn(pool.leave(wait_for_jobs=jobs == "cancel"))
        return answer({"jobs": jobs, "n_cancelled": n_cancelled}, 202)

    return routes


def status_view(pool: Pool) -> dict[str, Any]:
    """The pool at a glance."""
    counts = dict.fromkeys((state.value for state in JobState if not state.is_final), 0)
    for record in pool.book.active.values():
        counts[record.state.value] += 1
    decisions = sorted(pool.core.decision_us)
    hello = pool.link.hello
    return {
        "pool": {
            "pid": os.getpid(),
            "user": os.geteuid(),
            "started_at_ms": pool.started_at_ms,
            "leaving": pool.is_leaving,
            "log_seq": pool.core.applied_seq,
            "n_commits": pool.journal.n_commits,
            "store_error": pool.journal.last_error,
            "decision_us": {
                "n": len(decisions),
                "p50": decisions[len(decisions) // 2] if decisions else None,
                "p99": decisions[len(decisions) * 99 // 100] if decisions else None,
            },
        },
        "agent": {
            "connected": pool.link.is_connected,
            "message": None if pool.link.is_connected else "The agent is not running; jobs wait until it is back.",
            "privileged": hello.get("privileged"),
            "hostile_frozen_by": hello.get("hostile_frozen_by"),
            "notes": hello.get("notes", []),
        },
        "nodes": sorted(pool.book.nodes),
        "n_devices": sum(1 for _ in pool.book.devices()),
        "jobs": counts,
        "n_queues": len(pool.book.queues),
    }


def _device_action(pool: Pool, routes: APIRouter, verb: str) -> None:
    async def handler(request: Request, device: str) -> Response:
        operator_only(request, f"{verb} cards")
        await body_of(request)
        uuid = devices.find(pool, device)
        health = pool.link.health.get(uuid, devices.HEALTHY)
        event = DeviceChanged(pool.core.clock(), uuid, health, cordoned=verb != "uncordon", drain=verb == "drain")
        await pool.core.post(event)
        (found,) = [view for view in devices.views(pool, peer_of_request(request)) if view["uuid"] == uuid]
        return answer(found)

    handler.__doc__ = {
        "cordon": "Keep new work off a card.",
        "uncordon": "Let new work onto a card again.",
        "drain": "Keep new work off a card and end what runs there; it goes back to its queue where it can.",
    }[verb]
    routes.post(f"/devices/{{device}}/{verb}", name=verb)(handler)
