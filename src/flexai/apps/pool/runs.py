"""Jobs of kind ``run``: their callers wait here for the grant, and are missed when they leave."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.core import Core
from flexai.apps.pool.views import job_view, reason_view
from flexai.model import MemberState
from flexai.scheduling.events import JobCancelled
from flexai.wire.store import StopAsked

if TYPE_CHECKING:
    from flexai.apps.pool.driver import Driver

_GONE_S = 30.0
_BEAT_S = 10.0
_SWEEP_S = 1.0
_GRACE_MS = 10_000


@dataclass(slots=True)
class Runs:
    """Who waits for what grant.

    A ``run`` whose caller is away for ``gone_s`` before its command began is cancelled: nobody is left to begin it. The
    time allows a pool that was restarted, and callers that come back to it.
    """

    core: Core
    gone_s: float = _GONE_S
    driver: "Driver | None" = None
    is_using: Callable[[JobRecord, int], bool] = lambda _record, _member: True
    _used_at_ms: dict[str, int] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)
    _left_at_s: dict[str, float] = field(default_factory=dict)
    _granted: asyncio.Condition = field(default_factory=asyncio.Condition)
    _wakeups: dict[str, list[asyncio.Event]] = field(default_factory=dict)

    def granted(self, job_id: str) -> None:
        """The agent prepared the slice of a ``run``: tell its caller."""
        for wakeup in self._wakeups.get(job_id, ()):
            wakeup.set()

    async def follow(self, record: JobRecord) -> AsyncIterator[dict[str, Any]]:
        """What happens to a job until its grant (or its end)."""
        wakeup = asyncio.Event()
        self._wakeups.setdefault(record.id, []).append(wakeup)
        self._waiting[record.id] += 1
        shown: dict[str, Any] | None = None
        try:
            while True:
                wakeup.clear()
                changed = self.core.changed(record.id)
                changed.add_done_callback(lambda _: wakeup.set())
                said = self._say(record)
                if said != shown:
                    shown = said
                    yield said
                if said["state"] in {"granted", "running"} or record.state.is_final:
                    return
                try:
                    async with asyncio.timeout(_BEAT_S):
                        await self._next(wakeup, record, said)
                except TimeoutError:
                    shown = None  # say it again: a caller sees that the pool lives, the pool whether the caller does
        finally:
            self._wakeups[record.id].remove(wakeup)
            if not self._wakeups[record.id]:
                del self._wakeups[record.id]
            self._waiting[record.id] -= 1
            if not self._waiting[record.id]:
                del self._waiting[record.id]
                self._left_at_s[record.id] = time.monotonic()

    async def _next(self, wakeup: asyncio.Event, record: JobRecord, said: dict[str, Any]) -> None:
        """Wait for a change, or for another reason to wait (which changes without the job changing)."""
        while not wakeup.is_set():
            try:
                async with asyncio.timeout(_SWEEP_S):
                    await wakeup.wait()
            except TimeoutError:
                if self._say(record) != said:
                    return

    def _say(self, record: JobRecord) -> dict[str, Any]:
        if record.state.is_final:
            return {"state": record.state.value, "cause": record.cause, "exit_code": record.exit_code}
        member = record.members[0]
        held = self.driver.held.get((record.id, 0)) if self.driver else None
        if member.state is MemberState.RUNNING:
            return {"state": "running", "job": job_view(record, None, None)}
        if member.state is MemberState.STARTING and held is not None and held.env is not None and not member.stop:
            return {"state": "granted", "env": held.env, "cgroup": held.cgroup, "job": job_view(record, None, None)}
        position = self.core.book.position(record)
        reason = reason_view(self.core.reason_for(record))
        return {"state": record.state.value, "reason": reason, "position": position}

    async def sweep(self) -> None:
        """Cancel what nobody waits for, and end what ran over its limit of time (the agent has no part in that)."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_s, now_ms = time.monotonic(), self.core.clock()
            for record in [r for r in self.core.book.active.values() if r.is_run]:
                member = record.members[0]
                if member.state is MemberState.RUNNING:
                    self._left_at_s.pop(record.id, None)
                    await self._limit(record, now_ms)
                elif record.id not in self._waiting:
                    if now_s - self._left_at_s.setdefault(record.id, now_s) > self.gone_s:
                        self._left_at_s.pop(record.id, None)
                        cause = {"cause": "its caller left before it began"}
                        await self.core.post_surely(JobCancelled(now_ms, record.id), cause)
                else:
                    self._left_at_s.pop(record.id, None)
            self._used_at_ms = {j: at for j, at in self._used_at_ms.items() if j in self.core.book.active}
            self._left_at_s = {job_id: at for job_id, at in self._left_at_s.items() if job_id in self.core.book.active}

    async def _limit(self, record: JobRecord, now_ms: int) -> None:
        limit_ms, member = record.job.time_limit_ms, record.members[0]
        started_at_ms = member.started_at_ms or now_ms
        if member.stop is not None:
            return
        if limit_ms and now_ms - started_at_ms > limit_ms:
            await self.core.post_surely(StopAsked(now_ms, record.id, _GRACE_MS, "time limit"))
            return
        idle_ms = record.submission.idle_timeout_ms
        if not idle_ms or member.paused or member.is_parked or self.is_using(record, 0):
            self._used_at_ms.pop(record.id, None)
        elif now_ms - self._used_at_ms.setdefault(record.id, now_ms) > idle_ms:
            await self.core.post_surely(StopAsked(now_ms, record.id, _GRACE_MS, f"idle for {idle_ms / 1000:g} s"))
