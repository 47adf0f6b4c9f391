"""Whether all is well: the pool's own checks, then the agent's."""

import asyncio
import shutil
from typing import Any

from flexai.adapters.agent_client import AgentAway, AgentRefused
from flexai.apps.pool.devices import over_committed
from flexai.apps.pool.service import Pool
from flexai.wire.quantity import format_size

_TIMEOUT_S = 30.0
_LEAST_FREE_BYTES = 1 << 30


async def checks(pool: Pool) -> list[dict[str, Any]]:
    """Checks in the order in which to mend what fails: name, ok, detail, remedy."""
    return [_database(pool), await asyncio.to_thread(_disk, pool), *await _agent(pool), *_over_committed(pool)]


def _database(pool: Pool) -> dict[str, Any]:
    error = pool.journal.last_error
    detail = error or f"{pool.journal.n_commits} commits since the pool started"
    remedy = "Free space, or check the disk; what has happened is kept and written when it can be"
    return {"name": "pool database", "ok": error is None, "detail": detail, "remedy": remedy if error else ""}


def _disk(pool: Pool) -> dict[str, Any]:
    free = shutil.disk_usage(pool.settings.state_dir).free
    ok = free >= _LEAST_FREE_BYTES
    remedy = f"Free space at {pool.settings.state_dir}: without it no job can be accepted"
    return {"name": "disk space", "ok": ok, "detail": f"{format_size(free)} free", "remedy": "" if ok else remedy}


def _over_committed(pool: Pool) -> list[dict[str, Any]]:
    remedy = "End, resize or park some of its jobs: `flexai devices`"
    return [
        {"name": f"promises of card {device.index}", "ok": False, "detail": told, "remedy": remedy}
        for device, told in over_committed(pool)
    ]


async def _agent(pool: Pool) -> list[dict[str, Any]]:
    try:
        reply = await pool.link.agent.call("doctor", _TIMEOUT_S)
    except (AgentAway, AgentRefused) as error:
        remedy = "Start it with `flexai up`; jobs wait until then"
        return [{"name": "agent", "ok": False, "detail": str(error), "remedy": remedy}]
    answered: dict[str, Any] = {"name": "agent", "ok": True, "detail": "answers", "remedy": ""}
    return [answered, *reply.get("checks", [])]
