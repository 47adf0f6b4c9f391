"""The utilisation question: what slices, and slices with lent compute, add to whole cards.

Each trace is asked only what it can answer, and a join of two is called synthetic.
GenAI's serving pods come with their duty and memory, so they answer it (``simulation.serving``). Openb's pods come with
requests alone: what they did is not known. The join draws each pod's duty from the serving pods', as a part of what the
pod asked for, and shows how much the answer depends on *which* pods are busy.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from flexai.apps.bench.frame import Case, Row
from flexai.apps.bench.scheduling.packing import ARRIVAL, FIRST_SEED, drawn_jobs
from flexai.apps.bench.scheduling.traces import FIRST_LIST, openb_nodes, serving
from flexai.simulation.arrivals import pack
from flexai.simulation.deciders import decider
from flexai.simulation.experiment import setup_events
from flexai.simulation.kernel import SimulatedJob
from flexai.simulation.serving import question
from flexai.simulation.workload import capacity_milli

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flexai.apps.bench.frame import Run
    from flexai.model import Job, Node

CARD_SIZES_GIB = (48, 80, 96, 141)
FILLER_BYTES = 16 * 2.0**30
WAYS_TO_JOIN = ("by chance", "the larger the busier", "the larger the idler")


def serving_pods(run: Run) -> Iterable[Row]:
    """Cards and utilisation of the same pods on whole cards, in slices, and in slices with lent compute."""
    pods = serving(run)
    yield Row("utilisation, as announced for Flex:ai", "by Huawei; no workload is named", None, 30.0, "% more")
    for size, ways in question(pods, {f"{gib} GiB": gib * 2.0**30 for gib in CARD_SIZES_GIB}, FILLER_BYTES).items():
        whole, slices, lent = ways
        conditions = f"{len(pods.names)} serving pods of GenAI 2026, cards of {size}, simulated from recorded duty"
        for name, before, after in (
            ("slices over whole cards", whole, slices),
            ("slices with lent compute over slices", slices, lent),
        ):
            note = (
                f"{100 * before.utilisation:.1f} -> {100 * after.utilisation:.1f} % on {before.n_cards} -> "
                f"{after.n_cards} cards; more was wanted than a card has in {100 * after.short:.2f} % of samples"
            )
            gain = 100 * (after.utilisation / before.utilisation - 1)
            yield Row(f"utilisation, {name}, {size}", conditions, None, gain, "% more", note)


def joined(run: Run) -> Iterable[Row]:
    """Synthetic: openb's requests with the duties of GenAI's serving pods."""
    nodes, jobs = openb_nodes(run), drawn_jobs(run, FIRST_LIST, [FIRST_SEED])[FIRST_SEED]
    pods = serving(run)
    parts = (pods.duty.mean(axis=1) / np.maximum(np.quantile(pods.duty, 0.99, axis=1), 1e-3)).clip(0, 1).tolist()
    for way in WAYS_TO_JOIN[: 1 if run.quick else None]:
        busy = _busy_milli(jobs, parts, way, run.seed)
        whole, slices = (_utilisation(policy, nodes, jobs, busy) for policy in ("whole-card", "hi"))
        yield Row(
            f"utilisation, slices over whole cards, joined {way}",
            f"SYNTHETIC: openb {FIRST_LIST} (seed {FIRST_SEED}, 130 % arrived) with duties of GenAI 2026",
            None, 100 * (slices / whole - 1), "% more", f"{whole:.2f} -> {slices:.2f} %",
        )  # fmt: skip


def _busy_milli(jobs: Sequence[Job], parts: Sequence[float], way: str, seed: int) -> dict[str, int]:
    """What each job keeps busy of what it asked for; the parts are dealt out in one of ``WAYS_TO_JOIN``."""
    chance = random.Random(seed)  # noqa: S311 -- a seeded experiment, nothing secret
    dealt = [chance.choice(parts) for _ in jobs]
    order = list(range(len(jobs)))
    if way != WAYS_TO_JOIN[0]:
        order.sort(key=lambda at: (jobs[at].request.n_devices * jobs[at].request.compute_milli, at))
        dealt.sort(reverse=way == WAYS_TO_JOIN[2])
    return {
        jobs[at].id: round(jobs[at].request.n_devices * jobs[at].request.compute_milli * part)
        for at, part in zip(order, dealt, strict=True)
    }


def _utilisation(policy: str, nodes: Sequence[Node], jobs: Sequence[Job], busy_milli: Mapping[str, int]) -> float:
    capacity = capacity_milli(nodes)
    decides = decider(policy, [SimulatedJob(job, 0) for job in jobs])
    packed = pack(decides, setup_events(nodes, ["default"]), jobs, capacity, [ARRIVAL], busy_milli)
    return 100.0 * packed.useful_milli / capacity


CASES = (
    Case("serving", "utilisation of serving pods: whole cards, slices, lent compute", serving_pods, 2),
    Case("joined", "utilisation of two traces joined: synthetic, with its sensitivity", joined, 8),
)
