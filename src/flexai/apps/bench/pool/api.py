"""The pool's socket under load: durable submissions, a long queue."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_least, at_most
from flexai.apps.bench.pool_load import QueueLoad, SubmitRate, loaded_pool, queue_load, submit_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run

_GOALS = {1: 300.0, 16: 1000.0}


def submissions(run: Run) -> Iterator[Row]:
    """Acknowledged, hence durable, submissions per second."""

    async def measure() -> list[SubmitRate]:
        async with loaded_pool() as (path, _):
            return [await submit_rate(path, n_clients, 1.0 if run.quick else 5.0) for n_clients in _GOALS]

    for rate in asyncio.run(measure()):
        clients = "1 client" if rate.n_clients == 1 else f"{rate.n_clients} clients"
        note = f"a request took {rate.p50_ms:.1f} ms (median), {rate.p99_ms:.1f} ms (p99)"
        yield Row("submissions acknowledged", clients, at_least(_GOALS[rate.n_clients]), rate.jobs_per_s, "/s", note)


def long_queue(run: Run) -> Iterator[Row]:
    """First page of the list, and decisions, while 10,000 jobs wait."""
    n_queued, n_ends = (1_000, 50) if run.quick else (10_000, 200)

    async def measure() -> QueueLoad:
        async with loaded_pool() as (path, agent):
            n_more = n_ends + len(agent.node["devices"])  # so many still wait when the last one has started
            return await queue_load(path, agent, n_queued + n_more, n_ends)

    load = asyncio.run(measure())
    conditions = f"{load.n_queued} queued jobs"
    yield Row(
        "jobs, first page", conditions, at_most(200.0), load.list_max_ms, "ms", f"median {load.list_p50_ms:.1f} ms"
    )
    yield Row("decision, p99", conditions, at_most(20.0), load.decision_p99_us / 1000, "ms",
              f"median {load.decision_p50_us / 1000:.2f} ms; from the end of a job to the next start "
              f"{load.end_to_start_p50_ms:.1f} ms (median), {load.end_to_start_p99_ms:.1f} ms (p99)")  # fmt: skip


CASES = (
    Case("submissions", "durable submissions per second, 1 and 16 clients", submissions, 12, 5),
    Case("queue", "a queue of 10,000 jobs: its list, and decisions meanwhile", long_queue, 6, 4),
)
