"""The utilisation question, asked of serving pods whose duty cycle and memory were recorded.

Duty (per cent of a card's time in which a pod's kernels ran) is *utilisation* in the vendors' sense; allocation is not.
Three ways to host the same pods, every recorded sample served in each, and what they cost in cards:

- ``whole``: a card a pod, as Kubernetes does without slices;
- ``slices``: a slice a pod, as large as its own 0.99 quantile of duty and its peak memory, placed best-fit;
- ``lent``: slices of the *mean* duty, the peaks served by what the neighbours on the card leave idle (limit 100 %); a
  sample in which the sum on a card exceeds it is a shortage, which is counted and is what the arbiter must divide.

On top of ``lent``, waiting best-effort work may take what is still idle wherever its memory fits beside the pods.
Limits: sizes are known in hindsight; samples are a minute apart, so shorter peaks are not seen; interference and switch
costs are not modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

WAYS = ("whole", "slices", "lent")
HEADROOM = 1.05


@dataclass(frozen=True, slots=True)
class ServingPods:
    """Duty (pods, samples) in parts of a card, and peak memory (pods,) in bytes."""

    names: tuple[str, ...]
    duty: Floats
    memory_bytes: Floats


@dataclass(frozen=True, slots=True)
class Hosting:
    """One way to host the pods.

    Attributes:
        n_cards: cards needed.
        utilisation: duty summed over pods, over cards, averaged over samples.
        short: part of (card, sample) pairs in which the pods on a card wanted more than it has.
        unserved: part of all duty that was above a card's whole in its sample.
        filled: utilisation when waiting best-effort work of the given memory takes what is idle where it fits.
        hosts_filler: part of cards with that much memory free.
    """

    way: str
    n_cards: int
    utilisation: float
    short: float
    unserved: float
    filled: float
    hosts_filler: float


def pods_of(
    duty: Sequence[tuple[float, str, float]], memory: Sequence[tuple[float, str, float]], period_s: float
) -> ServingPods:
    """Line the samples (seconds, pod, value) up on one grid; pods without memory figures are left out.

    A pod counts as absent (duty 0) where it has no sample. Duty comes in per cent.
    """
    peak: dict[str, float] = {}
    for _, pod, value in memory:
        peak[pod] = max(peak.get(pod, 0.0), value)
    names = tuple(sorted({pod for _, pod, _ in duty} & peak.keys()))
    row = {name: index for index, name in enumerate(names)}
    first = min(at for at, _, _ in duty)
    n = int((max(at for at, _, _ in duty) - first) / period_s) + 1
    grid = np.zeros((len(names), n))
    for at, pod, value in duty:
        if pod in row:
            column = int((at - first) / period_s)
            grid[row[pod], column] = max(grid[row[pod], column], value / 100)
    return ServingPods(names, grid, np.array([peak[name] for name in names]))


def host(pods: ServingPods, way: str, card_bytes: float, filler_bytes: float) -> Hosting:
    """Host the pods one way on cards of ``card_bytes``."""
    n_pods = len(pods.names)
    if way == "whole":
        card_of = np.arange(n_pods)
    else:
        share = np.quantile(pods.duty, 0.99, axis=1) if way == "slices" else pods.duty.mean(axis=1)
        card_of = _best_fit(np.maximum(share, 0.001), pods.memory_bytes * HEADROOM, card_bytes)
    n_cards = int(card_of.max(initial=-1)) + 1
    wanted = np.zeros((n_cards, pods.duty.shape[1]))
    np.add.at(wanted, card_of, pods.duty)
    held = np.zeros(n_cards)
    np.add.at(held, card_of, pods.memory_bytes * HEADROOM)
    served = np.minimum(wanted, 1.0)
    # Who was given a whole card shares it with nobody, however idle it is.
    fits = (held + filler_bytes <= card_bytes) & (way != "whole")
    return Hosting(
        way=way,
        n_cards=n_cards,
        utilisation=float(served.mean()),
        short=float((wanted > 1.0).mean()),
        unserved=float((wanted - served).sum() / max(wanted.sum(), 1e-12)),
        filled=float(np.where(fits[:, None], 1.0, served).mean()),
        hosts_filler=float(fits.mean()),
    )


def _best_fit(share: Floats, memory_bytes: Floats, card_bytes: float) -> NDArray[np.int64]:
    """Largest first, each on the card it fills best in its scarcer resource; a pod larger than a card gets its own."""
    cards: list[list[float]] = []
    card_of = np.zeros(len(share), dtype=np.int64)
    for pod in np.lexsort((np.arange(len(share)), -np.maximum(share, memory_bytes / card_bytes))):
        need = (float(share[pod]), float(memory_bytes[pod]) / card_bytes)
        best, best_left = -1, 3.0
        for index, (free_share, free_memory) in enumerate(cards):
            left = (free_share - need[0]) + (free_memory - need[1])
            if free_share >= need[0] and free_memory >= need[1] and left < best_left:
                best, best_left = index, left
        if best < 0:
            cards.append([1.0, 1.0])
            best = len(cards) - 1
        cards[best][0] -= need[0]
        cards[best][1] -= need[1]
        card_of[pod] = best
    return card_of


def question(pods: ServingPods, card_bytes: Mapping[str, float], filler_bytes: float) -> dict[str, list[Hosting]]:
    """Every way on every size of card: the trace does not name its cards, so the size is a sensitivity."""
    return {
        name: [host(pods, way, size, filler_bytes) for way in WAYS]
        for name, size in card_bytes.items()
        if (pods.memory_bytes * HEADROOM <= size).all()
    }
