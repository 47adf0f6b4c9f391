"""Playing a phase through the pool's socket, as any user would, and watching it."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flexai_native import program

from flexai.apps.demo.morning import DUTY_OF_SHARE, MEMORY_PART, QUEUES, WHOLE_MILLI
from flexai.apps.demo.outcome import JobOutcome, PhaseOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flexai.adapters.pool_client import PoolClient
    from flexai.apps.demo.morning import MorningJob

POLL_S = 0.25
_FINAL = frozenset({"succeeded", "failed", "cancelled"})
_MIB = 1 << 20


@dataclass(slots=True)
class Watched:
    """What was seen of one job while the phase went on."""

    job: MorningJob
    seen: dict[str, Any] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    over_cap_bytes: int = 0

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.seen.get("state") in _FINAL


def make_queues(pool: PoolClient, n_cards: int) -> None:
    """Three queues; their quotas add up to the cards, in the proportion of their jobs."""
    parts = sum(QUEUES.values())
    for name, part in QUEUES.items():
        pool.call(
            "PUT", f"/v1/queues/{name}", {"quota_milli": 1000 * n_cards * part // parts, "weight": 1000 * part}, {}
        )


def play(
    pool: PoolClient, name: str, jobs: Sequence[MorningJob], sliced: bool, show: Callable[[dict[str, Any]], None]
) -> PhaseOutcome:
    """Submit all jobs, follow them to their ends; ``show`` gets ``/v1/top`` as it comes.

    Raises:
        PoolUnreachable, PoolRefused: the pool is gone, or does not take a job.
    """
    cards = pool.pages("/v1/devices")
    watched = {}
    for job in jobs:
        body = _submission(job, sliced, int(cards[0]["memory_bytes"]))
        watched[str(pool.post("/v1/jobs", body)["ids"][0])] = Watched(job)
    while not all(one.is_final for one in watched.values()):
        began_s = time.monotonic()
        for item in pool.pages("/v1/jobs", limit=2 * len(watched)):
            if item["id"] in watched:
                _note(watched[item["id"]], item)
        top = pool.get("/v1/top")
        for card in top["devices"]:
            for piece in card["slices"]:
                if piece.get("job_id") in watched and piece.get("memory_bytes"):
                    one = watched[piece["job_id"]]
                    excess = int(piece.get("used_bytes") or 0) - int(piece["memory_bytes"])
                    one.over_cap_bytes = max(one.over_cap_bytes, excess)
        show(top)
        time.sleep(max(0.0, POLL_S - (time.monotonic() - began_s)))
    return _phase(pool, name, cards, watched, sliced)


def _submission(job: MorningJob, sliced: bool, card_bytes: int) -> dict[str, Any]:
    part = job.share_milli if sliced else WHOLE_MILLI
    memory_bytes = 0 if part == WHOLE_MILLI else int(MEMORY_PART * card_bytes * part / 1000) // _MIB * _MIB
    # What it holds is the same in both phases: what it needs.
    holds_bytes = int(0.5 * MEMORY_PART * card_bytes * job.share_milli / 1000)
    return {
        "kind": "submit",
        "name": job.name,
        "queue": job.queue,
        "command": workload(job, holds_bytes),
        "cwd": "/",
        "env": {"PATH": os.environ.get("PATH", os.defpath)},
        "compute_milli": part,
        "memory_bytes": memory_bytes,
        "preemptible": False,
    }


def workload(job: MorningJob, holds_bytes: int) -> list[str]:
    """The command of a job: a fixed number of kernels, back to back or as its input comes."""
    if job.by_pytorch:
        period_us = 0.0 if job.is_card_bound else 1e6 / job.rate_hz
        return [
            sys.executable, "-m", "flexai.apps.bench.torch_workloads", "latency", "--size", "4",
            "--kernel-us", str(job.kernel_us), "--iterations", str(job.n_kernels), "--period-us", f"{period_us:.3f}",
            "--memory", str(holds_bytes),
        ]  # fmt: skip
    kind = ["flood"] if job.is_card_bound else ["latency", "--period-us", f"{1e6 / job.rate_hz:.3f}"]
    return [
        str(program("flexai-workload")), *kind, "--kernel-us", str(job.kernel_us), "--iterations", str(job.n_kernels),
        "--memory", str(holds_bytes),
    ]  # fmt: skip


def _note(one: Watched, item: dict[str, Any]) -> None:
    one.seen = item
    message = (item.get("reason") or {}).get("message")
    if message and message not in one.told:
        one.told.append(message)


def _phase(
    pool: PoolClient, name: str, cards: Sequence[dict[str, Any]], watched: dict[str, Watched], sliced: bool
) -> PhaseOutcome:
    names = {str(card["uuid"]): f"card {card['index']}" for card in cards}
    first_ms = min(one.seen["submitted_at_ms"] for one in watched.values())
    last_ms = max(one.seen["finished_at_ms"] for one in watched.values())
    outcomes = []
    for job_id, one in watched.items():
        seen, said = one.seen, _said(pool, job_id)
        started_ms = seen["started_at_ms"] or seen["finished_at_ms"]
        job = one.job
        asked = job.share_milli if sliced else WHOLE_MILLI
        n_kernels = int(said.get("iterations", 0))
        failed = "" if seen["state"] == "succeeded" else str(seen.get("cause") or seen["state"])
        duty = 1000 if job.is_card_bound else round(DUTY_OF_SHARE * job.share_milli)
        outcomes.append(
            JobOutcome(
                name=job.name, queue=job.queue, asked_milli=asked, owed_milli=min(asked, duty), limit_milli=WHOLE_MILLI,
                waited_s=(started_ms - seen["submitted_at_ms"]) / 1000, ran_s=float(said.get("seconds", 0.0)),
                work_s=n_kernels * job.kernel_us / 1e6, told=tuple(one.told),
                over_cap_bytes=max(0, one.over_cap_bytes), failed=failed, device=_card(pool, job_id, names),
                started_s=(started_ms - first_ms) / 1000,
            )
        )  # fmt: skip
    return PhaseOutcome(name, len(cards), (last_ms - first_ms) / 1000, tuple(outcomes))


def _card(pool: PoolClient, job_id: str, names: dict[str, str]) -> str:
    """The card it was started on last, as the pool's history has it; empty when it was not."""
    starts = [item for item in pool.pages(f"/v1/jobs/{job_id}/history") if item["kind"] == "Start"]
    return names[starts[-1]["grants"][0]["device"]] if starts else ""


def _said(pool: PoolClient, job_id: str) -> dict[str, Any]:
    """The last line of a job's output, where a workload says what it did."""
    lines = b"".join(pool.chunks(f"/v1/jobs/{job_id}/logs")).decode(errors="replace").strip().splitlines()
    try:
        said = json.loads(lines[-1])
    except (IndexError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
