"""Sees members end: by the end of their supervisor, or of the processes that were attached."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable

from flexai.adapters.local import processes
from flexai.adapters.local.starts import Starts
from flexai.node import Ended, Key, Phase, Tenant
from flexai.ports import Containment

_AGAIN_S = 0.05
_LONGEST_S = 1.0

OnEnded = Callable[[Ended], Awaitable[object]]


class Watch:
    """One task for each running member, asleep on a pidfd."""

    def __init__(self, containment: Containment, starts: Starts, on_ended: OnEnded) -> None:
        self._containment, self._starts, self._on_ended = containment, starts, on_ended
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def begin(self, tenant: Tenant) -> None:
        """See to it that the end of this member is noticed."""
        assert tenant.phase is Phase.RUNNING, tenant
        old = self._tasks.get(tenant.key)
        if old is None or old.done():
            if not tenant.attached and tenant.pid is not None:
                self._containment.follow(tenant.name, tenant.pid, tenant.start_ticks)
            see = self._see_attached if tenant.attached else self._see_supervised
            self._tasks[tenant.key] = asyncio.create_task(see(tenant))

    def forget(self, key: Key) -> None:
        """The member is not ours any more."""
        task = self._tasks.pop(key, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _see_supervised(self, tenant: Tenant) -> None:
        assert tenant.pid is not None
        await gone(tenant.pid, tenant.start_ticks)
        processes.reap_if_child(tenant.pid)
        ended = self._starts.ended(tenant)
        await self._empty(tenant, end_rest=True)
        lost = Ended(tenant.key, None, signal.SIGKILL, "lost: its supervisor was killed")
        await self._on_ended(ended or lost)

    async def _see_attached(self, tenant: Tenant) -> None:
        assert tenant.pid is not None
        await gone(tenant.pid, tenant.start_ticks)
        await self._empty(tenant, end_rest=False)
        # Its owner waited for it and knows how it ended; we are not its parent.
        await self._on_ended(Ended(tenant.key, None, 0, "exited"))

    async def _empty(self, tenant: Tenant, end_rest: bool) -> None:
        delay_s = _AGAIN_S
        while pids := self._containment.pids(tenant.name):
            if end_rest:
                self._containment.signal(tenant.name, signal.SIGKILL)
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LONGEST_S)
            else:
                await gone(pids[0])


async def gone(pid: int, ticks: int = 0) -> None:
    """Return when the process has ended; at once when it is not there."""
    pidfd = processes.open_pidfd(pid, ticks)
    if pidfd is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        with contextlib.suppress(OSError):
            loop.remove_reader(pidfd)
            os.close(pidfd)
