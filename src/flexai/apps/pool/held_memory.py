"""Tells the scheduler what running jobs hold of their cards, so that no more host memory is booked to park them.

The agent says it twice a second. It is told of a job that its user wants parked, and of all whom the scheduler might
park by itself, where the pool lets it; in steps, so that a program that allocates all the time does not fill the log.
"""

import asyncio
import contextlib
from collections.abc import Iterable

from flexai.adapters.agent_client import AgentAway, AgentRefused
from flexai.apps.pool.agent_link import AgentLink
from flexai.apps.pool.book import JobRecord, MemberKey
from flexai.apps.pool.core import Core
from flexai.model import JobState, MemberState
from flexai.scheduling.events import MemoryMeasured

EVERY_S = 1.0
_STEP_BYTES = 256 << 20


class HeldMemory:
    """What members hold of their cards, as the agent measured it last."""

    def __init__(self, core: Core, link: AgentLink) -> None:
        self._core, self._link = core, link
        self._told: dict[MemberKey, int] = {}

    async def run(self) -> None:
        """Tell of all running jobs, as long as the process lives."""
        while True:
            await asyncio.sleep(EVERY_S)
            running = [record for record in self._core.book.active.values() if record.state is JobState.RUNNING]
            await self._tell(running)
            placed = {record.id for record in running}
            self._told = {key: n_bytes for key, n_bytes in self._told.items() if key[0] in placed}

    async def tell(self, records: Iterable[JobRecord]) -> None:
        """Tell the scheduler what these hold at this moment."""
        with contextlib.suppress(AgentAway, AgentRefused):
            figures = await self._link.agent.call("usage")
            if "tenants" in figures:
                self._link.take_usage(figures)
        await self._tell(records)

    async def _tell(self, records: Iterable[JobRecord]) -> None:
        now = {key: n_bytes for record in records for key, n_bytes in self._held(record).items()}
        news = {key: n_bytes for key, n_bytes in now.items() if self._told.get(key) != n_bytes}
        if news:
            self._told |= news
            held = tuple((*key, n_bytes) for key, n_bytes in sorted(news.items()))
            await self._core.post_surely(MemoryMeasured(self._core.clock(), held))

    def _held(self, record: JobRecord) -> dict[MemberKey, int]:
        """What each member holds of all its cards, in whole steps; those that nobody measures are left out."""
        out: dict[MemberKey, int] = {}
        for number, member in enumerate(record.members):
            if not member.grants or member.state is not MemberState.RUNNING or member.is_parked:
                continue
            seen = [self._link.measured(record.id, number, grant.device).get("used_bytes") for grant in member.grants]
            if all(isinstance(n_bytes, int) for n_bytes in seen):
                steps = -(-sum(int(n_bytes or 0) for n_bytes in seen) // _STEP_BYTES)
                out[record.id, number] = steps * _STEP_BYTES
        return out
