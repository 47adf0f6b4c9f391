"""The slower of the two loops on one ledger: what running jobs leave idle is measured, so that waiting work gets it.

The arbiter lends compute among those who are on a card already, and takes it back, by itself and within milliseconds.
What it cannot do is start somebody. So, while best-effort work waits or runs on what was lent to it, the agent is asked
every ``EVERY_S`` what each slice makes use of, and the scheduler is told when that changed. A pool in which nobody
would borrow is not measured, and its log does not grow.
"""

import asyncio
import logging

from flexai.adapters.agent_client import AgentAway, AgentRefused
from flexai.apps.pool.agent_link import AgentLink
from flexai.apps.pool.core import Core
from flexai.model import JobState
from flexai.scheduling.events import UsageMeasured

log = logging.getLogger("flexai.pool")

EVERY_S = 0.2
_WINDOW_MS = 400
_STEP_MILLI = 50
"""A smaller change of what a slice uses is no news."""
_TOLD_AGAIN_MS = 5_000

Place = tuple[str, int, str]


class Redistribution:
    """Tells the scheduler what is idle, while there is somebody who would have it."""

    def __init__(self, core: Core, link: AgentLink) -> None:
        self._core, self._link = core, link
        self._told: dict[Place, int] = {}
        self._told_at_ms = 0

    async def run(self) -> None:
        """Go round as long as the process lives."""
        while True:
            await asyncio.sleep(EVERY_S)
            if self._link.is_connected and self._is_wanted():
                await self.once()
            else:
                self._told = {}

    async def once(self) -> None:
        """Measure, and tell what is news."""
        try:
            figures = await self._link.agent.call("usage")
        except (AgentAway, AgentRefused) as error:
            log.info("not measured: %s", error)
            return
        if "tenants" in figures:
            self._link.take_usage(figures)
        used, now_ms = self._link.used(), self._core.clock()
        now = {(job, member, device): milli for job, member, device, milli in used}
        is_news = now.keys() != self._told.keys() or any(
            abs(milli - self._told[place]) >= _STEP_MILLI for place, milli in now.items()
        )
        if is_news or now_ms - self._told_at_ms >= _TOLD_AGAIN_MS:
            self._told, self._told_at_ms = now, now_ms
            await self._core.post_surely(UsageMeasured(now_ms, _WINDOW_MS, used))

    def _is_wanted(self) -> bool:
        """Whether best-effort work waits, or runs on lent compute (which may have become free, or full)."""
        return any(
            record.state is JobState.QUEUED
            or any(not grant.compute_milli for member in record.members for grant in member.grants)
            for record in self._core.book.borrowers.values()
        )
