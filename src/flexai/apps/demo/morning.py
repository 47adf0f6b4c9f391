"""The jobs of the morning: pure, drawn from a published distribution.

Source of the shares: Alibaba's cluster-trace-gpu-v2023 ("openb"), lists ``openb_pod_list_default.csv`` (8152 pods) and
``openb_pod_list_gpushare60.csv`` (7064 pods that ask for a card), published with Weng et al., "Beware of Fragmentation:
Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023. Counted from those files: among
pods that ask for one card, the part that asks for a fraction of it, and how often each fraction is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

SOURCE = "Alibaba cluster-trace-gpu-v2023 (openb)"
# mix: (pods that ask for one whole card, {fraction in thousandths: pods}), fractions asked for at least 40 times.
PUBLISHED: dict[str, tuple[int, dict[int, int]]] = {
    "default": (
        3911,
        {810: 1078, 470: 750, 320: 328, 650: 253, 230: 140, 460: 128, 590: 75, 160: 74, 550: 72, 220: 62, 370: 47},
    ),
    "gpushare60": (
        1799,
        {810: 1851, 470: 1287, 320: 560, 650: 402, 230: 259, 460: 236, 550: 122, 590: 116, 160: 109, 220: 87, 370: 85,
         110: 44},
    ),
}  # fmt: skip
QUEUES = {"research": 2, "product": 1, "batch": 1}
WHOLE_MILLI = 1000
DUTY_OF_SHARE = 0.95
MEMORY_PART = 0.9
_KERNELS_US = (500, 1000, 2000, 5000)
_SHORTEST_S, _LONGEST_S, _MEAN_S = 1.5, 6.0, 2.8


@dataclass(frozen=True, slots=True)
class MorningJob:
    """One job.

    Attributes:
        share_milli: what it asks for, and (times 0.95) what it keeps busy when nothing holds it back.
        kernel_us: length of each kernel.
        n_kernels: its work; fixed, so that a job that gets less takes longer.
        rate_hz: at which its input arrives; 0 for a job that the card alone holds back.
        by_pytorch: its work is tokens of a decoder with random weights, not kernels that only take time.
    """

    name: str
    queue: str
    share_milli: int
    kernel_us: int
    n_kernels: int
    rate_hz: float
    by_pytorch: bool = False

    @property
    def is_card_bound(self) -> bool:
        """Always has work for the card: slicing cannot help it."""
        return self.rate_hz == 0.0

    @property
    def work_s(self) -> float:
        """Card time it needs."""
        return self.n_kernels * self.kernel_us / 1e6

    def alone_s(self) -> float:
        """How long it takes with a card of its own."""
        return self.work_s if self.is_card_bound else self.n_kernels / self.rate_hz


def draw_morning(chance: Random, n_jobs: int, mix: str, scale: float = 1.0) -> list[MorningJob]:
    """Draw the jobs: shares in the published proportions, lengths and kernels by chance.

    The number of jobs of each share is as close to the published proportion as whole jobs can be (largest remainder),
    so that a small morning still has the published mixture; who comes when is chance. Whole cards are asked for by jobs
    that are bound by the card (slicing does not help those); fractions by jobs that wait for input at a steady rate.
    """
    n_whole, fractions = PUBLISHED[mix]
    shares = _apportion({WHOLE_MILLI: n_whole, **fractions}, n_jobs)
    chance.shuffle(shares)
    queues = [name for name, parts in QUEUES.items() for _ in range(parts)]
    jobs = []
    for number, share in enumerate(shares):
        length_s = scale * min(_LONGEST_S, max(_SHORTEST_S, chance.lognormvariate(0.0, 0.5) * _MEAN_S))
        kernel_us = chance.choice(_KERNELS_US)
        card_bound = share == WHOLE_MILLI
        duty = 1.0 if card_bound else DUTY_OF_SHARE * share / WHOLE_MILLI
        rate_hz = 0.0 if card_bound else duty * 1e6 / kernel_us
        n_kernels = max(1, round(length_s * duty * 1e6 / kernel_us))
        kind = "train" if card_bound else "feed"
        jobs.append(MorningJob(f"{kind}-{number:02d}", chance.choice(queues), share, kernel_us, n_kernels, rate_hz))
    return jobs


def _apportion(counts: dict[int, int], n_jobs: int) -> list[int]:
    """``n_jobs`` items in the proportions of ``counts``, by largest remainder; the larger share wins a tie."""
    total = sum(counts.values())
    exact = {share: n_jobs * count / total for share, count in counts.items()}
    given = {share: int(parts) for share, parts in exact.items()}
    by_remainder = sorted(exact, key=lambda share: (given[share] - exact[share], -share))
    for share in by_remainder[: n_jobs - sum(given.values())]:
        given[share] += 1
    return [share for share, n in given.items() for _ in range(n)]
