"""Ranks of one job have their turns at the same moments: exact laws of the arbiter's core, in virtual time."""

import pytest


def flood(i, milli, gang=0):
    return f"flood:{i}:1000:2 put:{i}:{milli}:1000:1 gang:{i}:{gang}"


def rank(i, milli, gang):
    """Each of its steps, 0.2 ms, waits on the card until its peer has done as many."""
    return f"rank:{i}:200:20 put:{i}:{milli}:1000:1 gang:{i}:{gang}"


def played(play, *cards, meet="", how="overlap", tail="run:4000 mark run:10000"):
    """The figures of each card after what is said to happen."""
    steps = " ".join(f"card:{k} {tenants}" for k, tenants in enumerate(cards))
    reports = " ".join(f"card:{k} report" for k in range(len(cards)))
    return play("hwslice", f"cards:{len(cards)} {how} {steps} {meet} {tail} {reports}", n_reports=len(cards))


PAIR = "card:0 meet:0:1:0"
"""Tenant 0 of card 0 and of card 1 wait for each other."""
WORKS = {
    "beside a flood on each card": ([rank(0, 500, 1) + " " + flood(1, 500)] * 2, PAIR),
    "beside one flood and two": (
        [f"{rank(0, 300, 1)} {flood(1, 700)}", f"{rank(0, 300, 1)} {flood(1, 500)} {flood(2, 200)}"], PAIR,
    ),
    "with a small share": ([f"{rank(0, 100, 1)} {flood(1, 900)}"] * 2, PAIR),
    "two gangs fill both cards": ([f"{rank(0, 500, 1)} {rank(1, 500, 2)}"] * 2, "card:0 meet:0:1:0 meet:1:1:1"),
    "a chain of three cards": (
        [
            f"{rank(0, 500, 1)} {flood(2, 500)}", f"{rank(0, 500, 1)} {rank(1, 300, 2)} {flood(2, 200)}",
            f"{rank(1, 300, 2)} {flood(2, 700)}",
        ],
        "card:0 meet:0:1:0 card:1 meet:1:2:1",
    ),
    "ranks that never wait, on eight cards": ([f"{flood(0, 500, 1)} {flood(1, 500)}"] * 8, ""),
}  # fmt: skip


def asked(tenants):
    return {int(w.split(":")[1]): int(w.split(":")[2]) / 10 for w in tenants.split() if w.startswith("put:")}


@pytest.mark.parametrize("name", WORKS)
def test_a_gang_has_its_turns_at_once_on_all_its_cards_and_everybody_has_their_share(play, name):
    cards, meet = WORKS[name]
    for tenants, figures in zip(cards, played(play, *cards, meet=meet), strict=True):
        for i, percent in asked(tenants).items():
            assert abs(figures.held(i) - percent) <= 0.4, f"tenant {i}: {figures.held(i)} of {percent}"
            if f"gang:{i}:0" not in tenants:
                assert figures.tenant[i]["overlap"] >= 95
        assert figures.sum >= 99.3, "the card is never idle"
        assert figures.card["control"] <= 2


def test_aligned_a_pair_over_two_cards_does_more_than_twice_as_many_steps(play):
    cards, meet = WORKS["beside one flood and two"]
    together = played(play, *cards, meet=meet)[0].tenant[0]
    apart = played(play, *cards, meet=meet, how="apart overlap")[0].tenant[0]
    assert together["answers"] >= 2 * apart["answers"]
    assert together["answers"] >= 0.97 * 10_000 / 0.22 * 0.3, "as many as its part of the time holds"
    assert together["max_ms"] <= apart["max_ms"]


def test_a_gang_whose_cards_are_not_alike_has_the_part_it_has_on_the_most_crowded_one(play):
    """What it could have beyond that on the other card would be spent on waiting; others there have it."""
    crowded, free = f"{rank(0, 300, 1)} {flood(1, 700)}", f"{rank(0, 300, 1)} {flood(1, 100)} {flood(2, 100)}"
    one, two = played(play, crowded, free, meet=PAIR)
    assert abs(one.held(0) - 30) <= 0.3
    assert abs(two.held(0) - 30) <= 0.3
    assert abs(two.held(1) - 35) <= 0.3
    assert abs(two.held(2) - 35) <= 0.3
    assert one.tenant[0]["overlap"] >= 95


def test_where_nobody_else_wants_the_card_a_gang_has_it_whole(play):
    one, two = played(play, rank(0, 500, 1), f"{rank(0, 500, 1)} {flood(1, 500)}", meet=PAIR)
    assert one.held(0) >= 99.5
    assert abs(two.held(0) - 50) <= 0.3


def test_a_rank_with_gaps_lends_them_and_still_has_its_share(play):
    """8 ms of work, 5 ms on the host: to have half of the card it needs slots of more than half."""
    card = f"burst:0:1000:8:5000 put:0:500:1000:1 gang:0:1 {flood(1, 500)}"
    for figures in played(play, card, card):
        assert abs(figures.held(0) - 50) <= 0.5
        assert figures.sum >= 98


def test_a_limit_stops_all_ranks_at_once(play):
    """Each card's own on and off would leave them waiting for each other most of the time."""
    card = "rank:0:200:20 put:0:300:300:1 gang:0:1"
    one, two = played(play, card, card, meet=PAIR)
    for figures in (one, two):
        assert abs(figures.held(0) - 30) <= 0.3
        assert figures.card["control"] <= 2
    assert one.tenant[0]["overlap"] >= 95
    beside = f"{card} {flood(1, 500)}"
    for figures in played(play, beside, beside, meet=PAIR):
        assert abs(figures.held(0) - 30) <= 0.3
        assert figures.tenant[0]["overlap"] >= 95


def test_gangs_that_find_no_room_beside_the_others_keep_their_share_on_each_card(play):
    """Three gangs of half a card, each two of which share one: no more than two of them can be aligned."""
    cards = [f"{rank(0, 500, 1)} {rank(1, 500, 2)}", f"{rank(0, 500, 1)} {rank(2, 500, 3)}",
             f"{rank(1, 500, 2)} {rank(2, 500, 3)}"]  # fmt: skip
    figures = played(
        play, *cards, meet="card:0 meet:0:1:0 meet:1:2:1 card:1 meet:2:2:2", tail="run:6000 mark run:10000"
    )
    for one in figures:
        for held in (t["held"] for t in one.tenant.values()):
            assert abs(held - 50) <= 0.5
    assert figures[0].tenant[0]["overlap"] >= 95


def test_who_comes_back_is_aligned_again(play):
    cards, meet = WORKS["beside a flood on each card"]
    pauses = "run:3000 card:0 pause:0 run:3000 go:0 run:1000 mark run:5000"
    for figures in played(play, *cards, meet=meet, tail=pauses):
        assert figures.tenant[0]["overlap"] >= 95
        assert abs(figures.held(0) - 50) <= 0.3


@pytest.mark.parametrize(
    "fault",
    ["card:0 fail:13 run:1000", "lose:4 run:1000 lose:5", "card:0 shuffle", "card:0 shuffle card:1 shuffle lose:4"],
)
def test_faults_leave_nobody_behind(play, fault):
    cards, meet = WORKS["beside a flood on each card"]
    one = played(play, *cards, meet=meet, tail=f"run:3000 {fault} run:2000 mark run:6000")[0]
    assert abs(one.held(0) - 50) <= 1
    assert one.sum >= 98


def test_when_the_card_of_one_rank_falls_off_those_beside_the_other_keep_their_share(play):
    """The rank that is left waits for its peer on its card, for its share and no more."""
    cards, meet = WORKS["beside a flood on each card"]
    one, _ = played(play, *cards, meet=meet, tail="run:4000 mark card:1 xid:79 run:1000")
    assert one.held(1) >= 50 - 2
    assert one.sum >= 98


@pytest.mark.parametrize(("slow_percent", "within_ms"), [(100, 80), (150, 130)])
def test_ranks_of_one_tenant_wait_for_a_turn_of_their_neighbour_and_no_longer(play, slow_percent, within_ms):
    """Also after a start whose calls were slow, and one that spins does not keep the card from the other."""
    pair = "rank:0:200:20 pair:0 put:0:500:1000:1 flood:1:500:4 put:1:500:1000:1"
    figures = play("hwslice", f"slow:300 {pair} run:1000 slow:{slow_percent} run:2500 mark run:8000 report")
    assert figures.tenant[0]["max_ms"] <= within_ms
    assert abs(100 * figures.tenant[0]["counted"] / (figures.tenant[0]["counted"] + figures.held(1)) - 50) <= 1
    assert figures.card["control"] <= 2


@pytest.mark.parametrize(
    ("name", "within_ms"), [("beside a flood on each card", 90), ("beside one flood and two", 180)]
)
def test_rounds_in_common_are_short_since_ranks_are_not_stopped_in_the_turn_of_one_that_keeps_the_card(
    play, name, within_ms
):
    cards, meet = WORKS[name]
    for figures in played(play, *cards, meet=meet):
        assert figures.tenant[0]["max_ms"] <= within_ms
        assert figures.tenant[0]["stops"] == 0
        assert figures.card["control"] <= 2


def test_ranks_of_one_job_on_one_card_share_their_turns(play):
    """In turns of their own each step would wait for the other's turn."""
    ranks = (
        "rank:0:200:20 put:0:300:1000:1 {} rank:1:200:20 put:1:300:1000:1 {} meet:0:0:1 flood:2:1000:2 put:2:400:1000:1"
    )
    settle = "run:4000 mark run:10000 report"
    together = play("hwslice", f"{ranks.format('gang:0:1', 'gang:1:1')} {settle}")
    apart = play("hwslice", f"{ranks.format('', '')} {settle}")
    assert together.tenant[0]["answers"] >= 5000
    assert apart.tenant[0]["answers"] <= 500
    assert together.tenant[0]["max_ms"] <= 60
    part = together.held(2) / together.sum
    assert abs(100 * part - 40) <= 1, "changes between the two cost the card some 8 % in their turns"
    assert together.card["control"] <= 2
