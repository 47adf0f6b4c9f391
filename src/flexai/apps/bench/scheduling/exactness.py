"""Against what can be known exactly: the least work a reclaim can lose, and the same decisions in another process."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most
from flexai.apps.bench.scheduling.speed import filled
from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberStarted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flexai.apps.bench.frame import Run

GIB = 2**30
MOST_LOST = 1.1
N_NODES, N_CARDS = 3, 4
HASH_SEEDS = ("0", "1", "4242")


@dataclass(frozen=True, slots=True)
class Held:
    """What a running job holds: compute by (node, card), and the work it would repeat (thousandths of a card x ms)."""

    job_id: str
    by_card: dict[tuple[int, int], int]
    lost: int


def reclaim_optimum(run: Run) -> Iterable[Row]:
    """Small full clusters, a gang that is owed its place, and every set of victims tried."""
    n_instances = 20 if run.quick else 200
    ratios, ours_all, best_all = [], 0, 0
    for seed in range(n_instances):
        ours, best = lost_and_least(run.seed * 1_000_003 + seed)
        if best:
            ratios.append(ours / best)
            ours_all, best_all = ours_all + ours, best_all + best
    conditions = (
        f"{len(ratios)} instances of {N_NODES} nodes x {N_CARDS} cards, at most 12 jobs on them, seed {run.seed}"
    )
    exact = sum(ratio == 1.0 for ratio in ratios)
    note = f"the optimum itself in {exact} of {len(ratios)}; over all instances x {ours_all / best_all:.4f}"
    yield Row(
        "work lost by reclaim over the exact optimum, worst instance", conditions, at_most(MOST_LOST), max(ratios), "x",
        note, tuple(ratios),
    )  # fmt: skip


def lost_and_least(seed: int) -> tuple[int, int]:
    """Work lost by the scheduler's victims, and the least that any set could lose; (0, 0) if nobody had to go."""
    chance = random.Random(seed)  # noqa: S311 -- a seeded experiment, nothing secret
    nodes = [
        Node(f"n{row}", tuple(Device(f"{row}/{card}", "a", "simulated", card, 80 * GIB) for card in range(N_CARDS)),
             10**6, 2**40)
        for row in range(N_NODES)
    ]  # fmt: skip
    scheduler = filled(nodes, [Queue("owner", quota_milli=10**6), Queue("guest")])
    cards: dict[str, dict[tuple[int, int], int]] = {}
    started_ms: dict[str, int] = {}
    now_ms = 0
    for seq in range(12):
        now_ms += chance.randrange(1, 3_600_000)
        milli, n_devices = chance.choice(((1000, 1), (1000, 2), (500, 1), (500, 2), (250, 1), (1000, 4)))
        n_members = chance.choice((1, 1, 1, 2))
        request = SliceRequest(milli, milli, 0 if milli == 1000 else GIB, n_devices=n_devices)
        job = Job(f"j{seq}", "bob", "guest", request, n_members, n_members, submitted_at_ms=now_ms, seq=seq)
        for start in [one for one in scheduler.step(JobSubmitted(now_ms, job)) if isinstance(one, Start)]:
            scheduler.step(MemberStarted(now_ms, start.job_id, start.member))
            held = cards.setdefault(start.job_id, {})
            started_ms.setdefault(start.job_id, now_ms)
            for grant in start.grants:
                row, card = map(int, grant.device.split("/"))
                held[row, card] = held.get((row, card), 0) + grant.compute_milli
    now_ms += chance.randrange(3_600_000)
    running = [Held(name, held, (now_ms - started_ms[name]) * sum(held.values())) for name, held in cards.items()]
    n_devices, n_members = chance.choice(((1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (1, 5)))
    gang = Job(
        "gang", "ann", "owner", SliceRequest(1000, 1000, 0, n_devices=n_devices), n_members, n_members,
        submitted_at_ms=now_ms, seq=99,
    )  # fmt: skip
    commands = scheduler.step(JobSubmitted(now_ms, gang))
    victims = {command.job_id for command in commands if isinstance(command, Evict)}
    if not victims and not fits(running, n_devices, n_members):
        raise AssertionError(f"instance {seed}: the gang was owed its place and nobody was evicted")
    left = [one for one in running if one.job_id not in victims]
    assert fits(left, n_devices, n_members), f"instance {seed}: the gang does not fit beside whom the victims left"
    return sum(one.lost for one in running if one.job_id in victims), least_lost(running, n_devices, n_members)


def least_lost(running: Sequence[Held], n_devices: int, n_members: int) -> int:
    """The least work lost over all sets of jobs without which the gang fits."""
    return min(
        sum(one.lost for one in gone)
        for size in range(len(running) + 1)
        for gone in itertools.combinations(running, size)
        if fits([one for one in running if one not in gone], n_devices, n_members)
    )


def fits(running: Iterable[Held], n_devices: int, n_members: int) -> bool:
    """Whether members of so many whole cards each fit beside these."""
    taken = {place for one in running for place in one.by_card}
    free = [sum((row, card) not in taken for card in range(N_CARDS)) for row in range(N_NODES)]
    return sum(cards // n_devices for cards in free) >= n_members


def same_decisions(run: Run) -> Iterable[Row]:
    """One event log decided on in processes with different hash seeds; the digest is over all bytes of all commands."""
    n_jobs = 500 if run.quick else 5_000
    code = f"from flexai.apps.bench.scheduling.speed import digest_of_afternoon as d; print(d({n_jobs}))"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True,
            check=True,
        ).stdout.strip()
        for seed in HASH_SEEDS
    }  # fmt: skip
    conditions = (
        f"{n_jobs} jobs come and end on 512 cards, {len(HASH_SEEDS)} processes, hash seeds {', '.join(HASH_SEEDS)}"
    )
    note = f"SHA-256 over all commands {', '.join(sorted(digests))}"
    yield Row("different decisions on one log", conditions, at_most(1), len(digests), "digests", note)


CASES = (
    Case("optimum", "work lost by reclaim against the exact optimum", reclaim_optimum, 2),
    Case("repeatable", "byte-identical decisions in other processes", same_decisions, 6),
)
