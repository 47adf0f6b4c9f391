"""Work beside requests: begun, never lost sight of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger("flexai.pool")

_spawned: set[asyncio.Task[None]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run something to its end without anybody waiting for it; a failure is logged."""
    task = asyncio.create_task(work)
    _spawned.add(task)
    task.add_done_callback(_ended)
    return task


async def forever(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Run something that should never end; when it does, say so and begin it again."""
    while True:
        try:
            await work()
            log.error("%s ended by itself", name)
        except Exception:
            log.exception("%s failed and begins again", name)
        await asyncio.sleep(1.0)


def _ended(task: asyncio.Task[None]) -> None:
    _spawned.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("unexpected failure", exc_info=error)
