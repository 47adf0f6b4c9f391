"""Which jobs live on when the pool is stopped: as the pool says, or, without one, as the files of the node say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.adapters.pool_client import PoolClient, PoolRefused, PoolUnreachable
from flexai.apps.cli.up.keeper import start_ticks
from flexai.node import Phase
from flexai.wire import checkpoint
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

    from flexai.adapters.settings import Settings


def running_jobs(pool: PoolClient) -> list[str]:
    """Ids of jobs whose processes live."""
    return [str(job["id"]) for job in pool.pages("/v1/jobs", state="running")]


def jobs_that_go_on(settings: Settings) -> list[str]:
    """Ids of jobs whose processes live."""
    try:
        return running_jobs(PoolClient(settings.run_dir, timeout_s=3.0))
    except (PoolUnreachable, PoolRefused):
        return sorted({*_supervised(settings.state_dir), *_attached(settings.state_dir)})


def _supervised(state_dir: Path) -> set[str]:
    """Submitted jobs: their supervisor wrote its pid and start into the token, and lives."""
    found = set()
    for token in state_dir.glob("jobs/*/*/*.token"):
        try:
            pid, ticks = (int(word) for word in token.read_text().split())
        except (OSError, ValueError):
            continue
        if pid and start_ticks(pid) == ticks:
            found.add(token.parent.parent.name)
    return found


def _attached(state_dir: Path) -> set[str]:
    """Members that their owners started, which the agent strikes from its checkpoint when they end."""
    try:
        tenants = checkpoint.decode((state_dir / "agent.json").read_bytes())
    except (OSError, BadInput):
        return set()
    return {tenant.job_id for tenant in tenants if tenant.attached and tenant.phase is Phase.RUNNING}
