"""``/v1/queues`` and ``/v1/manifests``: the tree of queues, and files that make queues and jobs."""

from fastapi import APIRouter, Request, Response

from flexai.apps.pool.described import DECIDED, MANIFEST, QUEUE, body, query
from flexai.apps.pool.http import Refusal, answer, fields_of, operator_only, peer_of_request
from flexai.apps.pool.intake import admit
from flexai.apps.pool.routes_jobs import admitted
from flexai.apps.pool.service import Pool
from flexai.apps.pool.views import queue_view
from flexai.model import Queue
from flexai.scheduling.events import QueueGone, QueuePut
from flexai.wire import api
from flexai.wire.manifest import decode_manifest
from flexai.wire.queue import DEFAULT_QUEUE, decode_queue


def router(pool: Pool) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/queues")
    async def queues() -> Response:
        """All queues with what they hold."""
        items = [queue_view(pool.book.queues[name], pool.book) for name in sorted(pool.book.queues)]
        return answer({"items": items, "cursor": None})

    @routes.put("/queues/{name}", openapi_extra=body(QUEUE))
    async def put_queue(request: Request, name: str) -> Response:
        """Create or change a queue."""
        operator_only(request, "change queues")
        queue = decode_queue(name, await fields_of(request))
        check_queue(pool, queue)
        await pool.core.post(QueuePut(pool.core.clock(), queue))
        return answer(queue_view(queue, pool.book))

    @routes.delete("/queues/{name}")
    async def delete_queue(request: Request, name: str) -> Response:
        """Remove a queue; jobs that wait in it go on waiting, and say why."""
        operator_only(request, "remove queues")
        if name not in pool.book.queues:
            raise Refusal(
                404, "UnknownQueue", f"There is no queue {name[:80]}.", "queue", name[:80],
                "Use one of: " + ", ".join(sorted(pool.book.queues)[:20]),
            )  # fmt: skip
        if name == DEFAULT_QUEUE:
            raise Refusal(409, "DefaultQueue", "The default queue stays.", "queue", name, "Give it a limit instead")
        if children := [queue.name for queue in pool.book.queues.values() if queue.parent == name]:
            remedy = "Remove or move them first: " + ", ".join(sorted(children)[:20])
            raise Refusal(409, "QueueHasChildren", f"Queue {name} holds other queues.", "queue", name, remedy)
        await pool.core.post(QueueGone(pool.core.clock(), name))
        return answer({"name": name, "removed": True})

    @routes.post("/manifests", status_code=201, openapi_extra=body(MANIFEST, "yaml") | query(**DECIDED))
    async def manifests(request: Request) -> Response:
        """Jobs and queues out of YAML in the shape of Kubernetes; the queues first, then all jobs or none."""
        manifest = decode_manifest(*api.decode_manifest_body(await fields_of(request)))
        if manifest.queues:
            operator_only(request, "change queues")
        for queue in manifest.queues:
            check_queue(pool, queue)
            await pool.core.post(QueuePut(pool.core.clock(), queue))
        peer = peer_of_request(request)
        records = await admit(pool, peer, manifest.submissions) if manifest.submissions else []
        made = {"queues": [queue.name for queue in manifest.queues], "notes": list(manifest.notes)}
        return answer(await admitted(pool, request, records) | made, 201)

    return routes


def check_queue(pool: Pool, queue: Queue) -> None:
    """Whether the tree of queues stays a tree.

    Raises:
        Refusal: no such parent, a circle, or the parent has jobs of its own.
    """
    seen, parent = {queue.name}, queue.parent
    while parent:
        if parent in seen:
            raise Refusal(
                409, "QueueCircle", f"Queue {queue.name} would be inside itself.", "parent", queue.parent,
                "Choose a parent that is not under it",
            )  # fmt: skip
        if parent not in pool.book.queues:
            raise Refusal(
                404, "UnknownQueue", f"There is no queue {parent}.", "parent", parent, "Create the parent first"
            )
        seen.add(parent)
        parent = pool.book.queues[parent].parent
    if queue.parent == DEFAULT_QUEUE or any(r.job.queue == queue.parent for r in pool.book.active.values()):
        raise Refusal(
            409, "QueueHasJobs", f"Queue {queue.parent} takes jobs, so it cannot hold queues.", "parent", queue.parent,
            "Choose a parent without jobs",
        )  # fmt: skip
