"""What borrowers of idle compute weigh beside each other: their queues' fair shares first, then what each asked for.

A queue is owed a part of all that is lent (``fair_share``, over the queues that borrow). Where its borrowers are is
given: they run where their memory fitted. So each card's idle compute is divided among the queues on it such that no
queue could have more of what it is owed without another having less that is no better off (max-min), found card by
card: what a queue has elsewhere counts. On each card a queue's part goes to its borrowers by what they asked for.

Who holds compute of the card is owed that first: all borrowers of it together weigh no more than what nobody holds
(thousandths of the card, as the arbiter's weights of those who hold some), and beside such neighbours no more than they
asked for. A weight is never below a hundredth of them all: the arbiter's shortest turn is about 1 ms in rounds of at
most some 150 ms, and beyond 1:99 it gave 3.7 % for 0.1 (virtual clock).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WHOLE_MILLI = 1000
LEAST_PART = 0.01
_PASSES = 8
"""Over the cards that several queues are on: each is divided by what those before left."""

Card = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Borrower:
    """One member that runs on lent compute: where, of which queue, what it asked for and its limit (thousandths)."""

    card: Card
    queue: str
    asked_milli: int
    limit_milli: int


@dataclass(frozen=True, slots=True)
class Due:
    """What a borrower is to have, and why.

    Attributes:
        weight: beside others of its card that borrow, 1..1000.
        part_milli: of what is lent of its card, thousandths.
        queue_part_milli: the part that its queue has there.
        queue_owed_milli: its queue's fair share of all that is lent anywhere, thousandths.
        asked_milli: what it asked for, of a card.
        queue_asked_milli: what its queue's borrowers there asked for, all together.
        is_least: it has the least part that can be kept, which is more than it is owed.
        n_beside: others that borrow on its card.
    """

    weight: int
    part_milli: int
    queue_part_milli: int
    queue_owed_milli: int
    asked_milli: int
    queue_asked_milli: int
    is_least: bool
    n_beside: int


def demands(borrowers: Sequence[Borrower], lent_milli: Mapping[Card, int]) -> dict[str, int]:
    """What each queue could borrow at most: of each card what is lent, up to the limits of its borrowers there."""
    out: dict[str, int] = {}
    for (queue, card), milli in _most(borrowers).items():
        out[queue] = out.get(queue, 0) + min(milli, lent_milli[card])
    return out


def dues(
    borrowers: Sequence[Borrower],
    lent_milli: Mapping[Card, int],
    held_milli: Mapping[Card, int],
    owed_milli: Mapping[str, float],
) -> list[Due]:
    """What each borrower is due, in their order.

    Args:
        borrowers: all of the pool.
        lent_milli: of each card, what its owners leave.
        held_milli: of each card, compute that is granted to best-effort tenants: they take turns with borrowers.
        owed_milli: each queue's fair share of all that is lent.
    """
    parts = _divide(borrowers, lent_milli, owed_milli)
    asked: dict[tuple[str, Card], int] = {}
    on_card: dict[Card, list[int]] = {}
    for index, one in enumerate(borrowers):
        asked[one.queue, one.card] = asked.get((one.queue, one.card), 0) + max(one.asked_milli, 1)
        on_card.setdefault(one.card, []).append(index)
    all_owed = max(sum(owed_milli.values()), 1)
    out: dict[int, Due] = {}
    for card, here in on_card.items():
        wanted = [
            parts[borrowers[i].queue, card] * max(borrowers[i].asked_milli, 1) / asked[borrowers[i].queue, card]
            for i in here
        ]
        given = _at_least(wanted, min(LEAST_PART, 1 / len(here)))
        total = _total(held_milli.get(card, 0), sum(borrowers[i].asked_milli for i in here), len(here))
        for i, part, want in zip(here, given, wanted, strict=True):
            one = borrowers[i]
            out[i] = Due(
                weight=max(1, round(part * total)),
                part_milli=round(part * WHOLE_MILLI),
                queue_part_milli=round(parts[one.queue, card] * WHOLE_MILLI),
                queue_owed_milli=round(owed_milli.get(one.queue, 0) * WHOLE_MILLI / all_owed),
                asked_milli=one.asked_milli,
                queue_asked_milli=asked[one.queue, card],
                is_least=want < part <= LEAST_PART,
                n_beside=len(here) - 1,
            )
    return [out[index] for index in range(len(borrowers))]


def _total(held_milli: int, asked_milli: int, n: int) -> int:
    """What all borrowers of a card weigh together."""
    free = WHOLE_MILLI - held_milli
    return max(n, min(free, asked_milli) if held_milli else free)


def _most(borrowers: Sequence[Borrower]) -> dict[tuple[str, Card], int]:
    """What each queue can use of each card, by the limits of its borrowers."""
    out: dict[tuple[str, Card], int] = {}
    for one in borrowers:
        at = one.queue, one.card
        out[at] = min(WHOLE_MILLI, out.get(at, 0) + one.limit_milli)
    return out


def _divide(
    borrowers: Sequence[Borrower], lent_milli: Mapping[Card, int], owed_milli: Mapping[str, float]
) -> dict[tuple[str, Card], float]:
    """The part (0..1) of each card's lent compute that each queue on it has; of each card they sum to 1."""
    most = _most(borrowers)
    queues_on: dict[Card, list[str]] = {}
    for queue, card in most:
        queues_on.setdefault(card, []).append(queue)
    had: dict[tuple[str, Card], float] = {}
    total: dict[str, float] = dict.fromkeys((one.queue for one in borrowers), 0.0)
    contested = [card for card, queues in queues_on.items() if len(queues) > 1]
    n_passes = _PASSES if len(contested) > 1 else 1
    for card in (*(card for card, queues in queues_on.items() if len(queues) == 1), *contested * n_passes):
        queues = queues_on[card]
        elsewhere = [total[queue] - had.get((queue, card), 0.0) for queue in queues]
        owed = [max(owed_milli.get(queue, 0), 0.001) for queue in queues]
        now = _fill(lent_milli[card], [most[queue, card] for queue in queues], elsewhere, owed)
        for queue, milli, before in zip(queues, now, elsewhere, strict=True):
            had[queue, card], total[queue] = milli, before + milli
    out = {}
    for card, queues in queues_on.items():
        sum_milli = sum(had[queue, card] for queue in queues)
        for queue in queues:
            out[queue, card] = had[queue, card] / sum_milli
    return out


def _fill(lent_milli: float, most: Sequence[float], elsewhere: Sequence[float], owed: Sequence[float]) -> list[float]:
    """Divide one card such that what queues have in all is as alike a part of what each is owed as can be."""
    if sum(most) <= lent_milli:
        return list(most)

    def at(level: float) -> list[float]:
        return [min(max(level * due - other, 0.0), cap) for due, other, cap in zip(owed, elsewhere, most, strict=True)]

    low = sum_low = 0.0
    ends = zip(most, elsewhere, owed, strict=True)
    for level in sorted(bend for cap, other, due in ends for bend in (other / due, (other + cap) / due)):
        sum_here = sum(at(level))
        if sum_here >= lent_milli:
            return at(low + (level - low) * (lent_milli - sum_low) / (sum_here - sum_low))
        low, sum_low = level, sum_here
    return list(most)


def _at_least(parts: Sequence[float], least: float) -> list[float]:
    """The parts, none below the least; what that takes comes from the others in proportion."""
    small = {index for index, part in enumerate(parts) if part < least}
    while True:
        rest = sum(part for index, part in enumerate(parts) if index not in small)
        scale = (1 - least * len(small)) / rest if rest else 0.0
        more = {index for index, part in enumerate(parts) if index not in small and part * scale < least}
        if not more:
            return [least if index in small else part * scale for index, part in enumerate(parts)]
        small |= more
