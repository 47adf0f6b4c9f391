"""When a job will likely be over: what reservations, backfill and whoever waits in host memory go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flexai.model import JobState

if TYPE_CHECKING:
    from flexai.scheduling.records import JobRecord
    from flexai.scheduling.state import State


def ends_at(state: State, record: JobRecord) -> int:
    """When a running job will likely be over (median of those that ran as long)."""
    if record.state is JobState.STOPPING:
        return max(state.now_ms, record.stops_at_ms)
    ran_ms = record.ran_ms(state.now_ms)
    left_ms = state.run_times.remaining_ms(record.burst, ran_ms, 0.5)
    if record.job.time_limit_ms:
        left_ms = min(left_ms, max(0, record.job.time_limit_ms - ran_ms))
    return state.now_ms + left_ms


def ends_ms(state: State, record: JobRecord) -> int:
    """When a job started now is over with the probability that backfill asks for."""
    lasts_ms = state.run_times.quantile_ms(record.burst, state.settings.backfill_quantile)
    if record.job.time_limit_ms:
        lasts_ms = min(lasts_ms, record.job.time_limit_ms)
    return state.now_ms + lasts_ms
