"""Borrowers have what is idle in proportion to the weights they were told; owners never notice (virtual clock)."""

import random

import pytest

from flexai.policy.borrowing import Borrower, dues

OWNER = "put:0:1000:1000:1"
FILL, HOP = "flood:{n}:2000:8", "step:{n}:3000:400"
BACKENDS = ["hwslice", "lease"]


def borrowers(weights, work, first=1):
    return " ".join(
        f"put:{n}:0:1000:2 borrows:{n}:{weight} {work.format(n=n)}" for n, weight in enumerate(weights, first)
    )


def parts(figures, n, first=1):
    held = [figures.held(at) for at in range(first, first + n)]
    return [100 * each / sum(held) for each in held]


def shares(weights):
    return [100 * weight / sum(weights) for weight in weights]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("work", [FILL, HOP])
@pytest.mark.parametrize("weights", [(990, 10), (450, 250, 225, 50, 25), (910, *[10] * 9)])
def test_parts_are_as_the_weights_over_ten_seconds(play, backend, work, weights):
    figures = play(backend, OWNER, borrowers(weights, work), "run:3000 mark run:10000 report")
    assert parts(figures, len(weights)) == pytest.approx(shares(weights), abs=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_borrower_that_hops_has_its_part_beside_those_that_fill_the_card(play, backend):
    """Two that hop had 0.8 % each: while one was idle the others went on by the hardware's turns."""
    weights = (209, 389, 17, 353, 42, 91)
    fill, hop = borrowers(weights[:4], "flood:{n}:2000:8"), borrowers(weights[4:], "step:{n}:800:300", 5)
    figures = play(backend, OWNER, fill, hop, "run:3000 mark run:10000 report")
    assert parts(figures, 6) == pytest.approx(shares(weights), abs=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_the_weights_and_the_work(play, backend):
    chance = random.Random(3)
    for _ in range(2):
        weights = [chance.randint(10, 400) for _ in range(chance.randint(2, 6))]
        work = [chance.choice([FILL, HOP, "flood:{n}:200:16", "step:{n}:800:300"]) for _ in weights]
        all_of_them = " ".join(borrowers([w], k, n) for n, (w, k) in enumerate(zip(weights, work, strict=True), 1))
        figures = play(backend, OWNER, all_of_them, "run:3000 mark run:10000 report")
        assert parts(figures, len(weights)) == pytest.approx(shares(weights), abs=1), (weights, work)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("work", [FILL, HOP])
@pytest.mark.parametrize("before", ["800 100 100", "0 0 0"])
def test_a_change_takes_effect_within_100_ms(play, backend, work, before):
    now = (100, 100, 800)
    change = " ".join(f"borrows:{n}:{weight}" for n, weight in enumerate(now, 1))
    begin = borrowers(map(int, before.split()), work)
    first, later = play(
        backend, OWNER, begin, "run:3000", change, "run:100 mark run:1000 report mark run:10000 report", n_reports=2
    )
    assert parts(first, 3) == pytest.approx(shares(now), abs=8), "a second holds few turns of a small part"
    assert parts(later, 3) == pytest.approx(shares(now), abs=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("owners", ["flood:0:2000:8 flood:1:2000:8", "step:0:3000:700 step:1:4000:400"])
def test_owners_that_work_have_the_same_to_the_last_digit_whatever_borrowers_weigh(play, backend, owners):
    def held(weights):
        figures = play(
            backend,
            "put:0:600:1000:1 put:1:300:1000:1",
            owners,
            borrowers(weights, FILL, 2),
            "run:2000 mark run:5000 report",
        )
        assert figures.held(2) == figures.held(3) == 0
        return figures.held(0), figures.held(1)

    assert held((0, 0)) == held((500, 500)) == held((990, 10))


@pytest.mark.parametrize("weights", [(500, 500), (990, 10)])
def test_an_owner_that_pauses_does_as_much_as_alone(play, weights):
    owner = "put:0:600:1000:1 burst:0:3000:5:30000"
    alone = play("hwslice", owner, "run:3000 mark run:10000 report").tenant[0]["work"]
    beside = play("hwslice", owner, borrowers(weights, FILL), "run:3000 mark run:10000 report")
    assert beside.tenant[0]["work"] == pytest.approx(alone, abs=1)
    assert parts(beside, 2) == pytest.approx(shares(weights), abs=1)


def test_who_pauses_is_not_passed_over_nor_ahead_since_borrowers_stood_still_meanwhile(play):
    """One owner always works, so borrowers wait with what they had long ago; that is no measure for one that wakes."""
    owners = "put:0:600:1000:1 put:1:300:1000:1 burst:0:3000:40:300000 flood:1:3000:8"
    without = play("hwslice", owners, "run:3000 mark run:20000 report")
    beside = play("hwslice", owners, borrowers((990, 10), FILL, 2), "run:3000 mark run:20000 report")
    assert [beside.held(0), beside.held(1)] == pytest.approx([without.held(0), without.held(1)], abs=1)


def test_who_holds_compute_has_what_it_holds_before_borrowers(play):
    """What best-effort tenants hold is the sum beside which the pool sets weights: 300 held, 700 of borrowers."""
    begin = f"put:0:500:1000:1 put:1:300:1000:2 {FILL.format(n=1)}"
    figures = play("hwslice", begin, borrowers((525, 175), FILL, 2), "run:3000 mark run:10000 report")
    assert parts(figures, 3) == pytest.approx([30, 52.5, 17.5], abs=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_queues_have_what_is_idle_by_their_weights_whatever_their_borrowers_number_and_size(play, backend):
    """The pool's own weights, played: two large borrowers of a queue of weight 3, six small ones of weight 1."""
    card = (0, 0)
    jobs = [Borrower(card, "research", 400, 1000)] * 2 + [Borrower(card, "batch", 100, 1000)] * 6
    weights = [due.weight for due in dues(jobs, {card: 900}, {}, {"research": 675, "batch": 225})]
    figures = play(backend, OWNER, borrowers(weights, HOP), "run:6000 mark run:10000 report")
    found = parts(figures, len(jobs))
    assert [sum(found[:2]), sum(found[2:])] == pytest.approx([75, 25], abs=1)
    assert found == pytest.approx([37.5] * 2 + [25 / 6] * 6, abs=1)
