"""Fair share: what each queue is entitled to now, by water-filling down the tree.

Children with quota D, request R, limit L, weight W and decayed use u share a capacity C: first F = min(D, R, L); then,
priority by priority, what is left goes out in rounds by s = max(0, w + k (w - u)), w = W over the sum of W among the
unsatisfied; with k = 0 this is the classic rule (weights only), with k > 0 who used more in the past gets less now.
Each child's F is its children's capacity. Source: NVIDIA KAI-Scheduler's description of time-aware fairness (rounding
ours: everything is whole thousandths of a card, the last units go one by one to the largest remainder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Claim:
    """One child's part in the sharing; all in thousandths of a card, ``past_milli`` its decayed use."""

    quota_milli: int
    request_milli: int
    limit_milli: int
    weight: int
    priority: int = 0
    past_milli: int = 0

    @property
    def most_milli(self) -> int:
        """More than this is of no use to it."""
        return self.request_milli if self.limit_milli < 0 else min(self.request_milli, self.limit_milli)


def fair_shares(capacity_milli: int, claims: Sequence[Claim], k_milli: int = 0) -> list[int]:
    """The entitlement of each claim. Sums to at most the capacity; quotas are met first, even beyond it.

    ``k_milli`` is k in thousandths.
    """
    shares = [min(claim.quota_milli, claim.most_milli) for claim in claims]
    left = capacity_milli - sum(shares)
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        group = [index for index, claim in enumerate(claims) if claim.priority == priority]
        left = _hand_out(left, capacity_milli, group, claims, shares, k_milli)
    return shares


def _hand_out(
    left: int, capacity_milli: int, group: Sequence[int], claims: Sequence[Claim], shares: list[int], k_milli: int
) -> int:
    """Give ``left`` to the unsatisfied of one priority, in rounds; each round satisfies one or gives all."""
    while left > 0:
        hungry = [index for index in group if shares[index] < claims[index].most_milli and claims[index].weight > 0]
        if not hungry:
            return left
        parts = _parts(hungry, claims, capacity_milli, k_milli)
        total = sum(parts)
        given = 0
        for index, part in zip(hungry, parts, strict=True):
            more = min(left * part // total, claims[index].most_milli - shares[index])
            shares[index] += more
            given += more
        if given == 0:  # fewer units than queues: one each, the largest part first
            for _, index in sorted(zip(parts, hungry, strict=True), key=lambda pair: (-pair[0], pair[1]))[:left]:
                shares[index] += 1
                given += 1
        left -= given
    return left


def _parts(hungry: Sequence[int], claims: Sequence[Claim], capacity_milli: int, k_milli: int) -> list[int]:
    """S = max(0, w + k (w - u)) for each, as integers of one scale; w alone when all are 0."""
    total = sum(claims[index].weight for index in hungry)
    weights = [claims[index].weight * 1_000_000 // total for index in hungry]
    if not k_milli:
        return [max(1, weight) for weight in weights]
    parts = []
    for index, weight in zip(hungry, weights, strict=True):
        used = claims[index].past_milli * 1_000_000 // max(capacity_milli, 1)
        parts.append(max(0, weight + k_milli * (weight - used) // 1000))
    return parts if any(parts) else [max(1, weight) for weight in weights]


def fair_shares_reference(capacity_milli: int, claims: Sequence[Claim]) -> list[int]:
    """Say the same as ``fair_shares`` for k = 0 within rounding, unit by unit: each goes to the poorest by weight."""
    shares = [min(claim.quota_milli, claim.most_milli) for claim in claims]
    over = [0] * len(claims)
    left = capacity_milli - sum(shares)
    for priority in sorted({claim.priority for claim in claims}, reverse=True):
        while left > 0:
            hungry = [
                index
                for index, claim in enumerate(claims)
                if claim.priority == priority and shares[index] < claim.most_milli and claim.weight > 0
            ]
            if not hungry:
                break
            poorest = min(hungry, key=lambda index: ((over[index] + 1) / claims[index].weight, index))
            shares[poorest] += 1
            over[poorest] += 1
            left -= 1
    return shares
