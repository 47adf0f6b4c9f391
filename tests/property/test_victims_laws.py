"""Victims are cheap: near the exact optimum on small instances, and never fewer than are needed."""

import itertools
import random

import pytest

from flexai.cluster import Books, Plan, Shape
from flexai.model import Device, Node
from flexai.policy.victims import Victim, cheapest_set

GIB = 2**30


def instance(seed):
    """Up to three full nodes, at most ten victims, and a shape that needs some of them gone."""
    chance = random.Random(seed)
    books, victims = Books(), []
    for row in range(chance.randint(1, 3)):
        cards = tuple(Device(f"{row}/{card}", "a", "simulated", card, 80 * GIB) for card in range(chance.randint(1, 3)))
        books.put_node(Node(f"n{row}", cards, 64_000, 64 * GIB))
    for number in range(10):
        n = chance.choice([1, 1, 1, 2])
        shape = Shape(0, 0, n, chance.choice([250, 500, 1000]), 5 * GIB, whole=False)
        rows = [row for row in range(len(books.names)) if books.fits(shape)[row]]
        if rows:
            row = chance.choice(rows)
            columns = [c for c in range(books.free_milli.shape[1]) if books.cards_that_fit(shape)[row, c]][:n]
            hold = books.hold_for(shape, row, tuple(columns))
            books.take(hold)
            victims.append(Victim(f"v{number}", (hold,), chance.randint(1, 100) * hold.compute_milli * n))
    wanted = Shape(0, 0, chance.choice([1, 1, 2]), chance.choice([500, 1000]), 5 * GIB, whole=False)
    return books, victims, wanted, chance.randint(1, 3)


def optimum(books, victims, shape, needed):
    best = None
    for n in range(len(victims) + 1):
        for some in itertools.combinations(victims, n):
            lost = sum(victim.lost for victim in some)
            if best is not None and lost >= best:
                continue
            plan = Plan(books)
            for victim in some:
                for hold in victim.holds:
                    plan.give(hold)
            if int(books.n_fit(shape).sum()) >= needed:
                best = lost
            plan.undo()
    return best


def ours(books, victims, shape, needed):
    missing = needed - int(books.n_fit(shape).sum())
    if missing <= 0:
        return 0
    on = {}
    for victim in victims:
        on.setdefault(victim.holds[0].row, []).append(victim)
    chosen = cheapest_set(books, shape, missing, on, lambda _: True)
    if chosen is None:
        return None
    plan = Plan(books)
    for victim in chosen:
        for hold in victim.holds:
            plan.give(hold)
    assert int(books.n_fit(shape).sum()) >= needed
    plan.undo()
    return sum(victim.lost for victim in chosen)


@pytest.mark.parametrize("part", range(2))
def test_the_work_lost_by_few_victims_is_the_least_there_is(part):
    for seed in range(part * 40, part * 40 + 40):
        assert ours(*instance(seed)) == optimum(*instance(seed)), seed


@pytest.mark.parametrize("part", range(2))
def test_the_work_lost_is_within_a_tenth_of_the_optimum_where_there_are_too_many_victims_to_try(part, monkeypatch):
    monkeypatch.setattr("flexai.policy.victims.JOINT_UP_TO", 0)
    lost = least = 0
    for seed in range(part * 40, part * 40 + 40):
        got, best = ours(*instance(seed)), optimum(*instance(seed))
        assert (got is None) == (best is None), seed
        if got is not None:
            assert got <= 2 * best, seed
            lost, least = lost + got, least + best
    assert lost <= 1.1 * least, lost / least
