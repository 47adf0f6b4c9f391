"""What borrowers weigh: queues' shares first, then what each asked for, and who holds compute before all of them."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.policy.borrowing import Borrower, demands, dues

ONE, OTHER = (0, 0), (0, 1)


def borrower(queue, asked=100, card=ONE, limit=1000):
    return Borrower(card, queue, asked, limit)


def due(borrowers, owed, lent=None, held=None):
    cards = {one.card for one in borrowers}
    return dues(borrowers, lent or dict.fromkeys(cards, 1000), held or {}, owed)


def by_queue(borrowers, found):
    sums = defaultdict(int)
    for one, each in zip(borrowers, found, strict=True):
        sums[one.queue] += each.weight
    return dict(sums)


def test_a_queue_has_its_share_whatever_the_number_and_size_of_its_borrowers():
    borrowers = [borrower("a", 800), *(borrower("b", 50) for _ in range(10))]
    found = due(borrowers, {"a": 750, "b": 250})
    assert [each.weight for each in found] == [750, *[25] * 10]


def test_inside_a_queue_each_has_by_what_it_asked_for():
    borrowers = [borrower("a", 500), borrower("a", 100), borrower("b", 300)]
    assert [each.weight for each in due(borrowers, {"a": 600, "b": 400})] == [500, 100, 400]


def test_what_a_queue_has_to_itself_elsewhere_counts():
    borrowers = [borrower("a", card=OTHER), borrower("a"), borrower("b")]
    alike = due(borrowers, {"a": 1000, "b": 1000})
    assert [each.weight for each in alike][1:] == [10, 990], (
        "a has the other card, so b has this one, but for the least"
    )
    assert alike[1].is_least
    more = due(borrowers, {"a": 1500, "b": 500})
    assert [each.weight for each in more][1:] == [500, 500], "in all 1.5 cards and 0.5"


def test_no_part_is_less_than_can_be_kept():
    borrowers = [borrower("a"), borrower("b"), borrower("c", 999), borrower("c", 1)]
    found = due(borrowers, {"a": 0, "b": 1, "c": 999})
    assert [each.weight for each in found] == [10, 10, 970, 10]
    assert [each.is_least for each in found] == [True, True, False, True]


def test_who_holds_compute_comes_before_borrowers_and_they_count_as_what_they_asked_for():
    borrowers = [borrower("a", 100), borrower("b", 100)]
    owed = {"a": 500, "b": 500}
    assert [each.weight for each in due(borrowers, owed, held={ONE: 300})] == [100, 100]
    many = [borrower("a", 600), borrower("b", 600)]
    assert [each.weight for each in due(many, owed, held={ONE: 300})] == [350, 350], (
        "300 of 1000 are kept for the holder"
    )
    assert [each.weight for each in due(many, owed, held={ONE: 1000})] == [1, 1]


def test_a_queue_can_borrow_up_to_the_limits_of_its_borrowers():
    borrowers = [borrower("a", limit=200), borrower("a", limit=100), borrower("b"), borrower("b", card=OTHER)]
    assert demands(borrowers, {ONE: 600, OTHER: 400}) == {"a": 300, "b": 1000}


@st.composite
def pools(draw):
    queues = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4, unique=True))
    cards = [(0, n) for n in range(draw(st.integers(1, 4)))]
    borrowers = draw(
        st.lists(
            st.builds(Borrower, st.sampled_from(cards), st.sampled_from(queues), st.integers(1, 1000), st.just(1000)),
            min_size=1, max_size=20,
        )
    )  # fmt: skip
    lent = {card: draw(st.integers(100, 1000)) for card in cards}
    owed = {queue: draw(st.integers(0, 2000)) for queue in queues}
    held = {card: draw(st.sampled_from([0, 0, 250, 1000])) for card in cards}
    return borrowers, lent, held, owed


@given(pools())
def test_weights_of_a_card_are_no_more_than_what_nobody_holds_and_never_nothing(pool):
    borrowers, lent, held, owed = pool
    sums, n = defaultdict(int), defaultdict(int)
    for one, each in zip(borrowers, dues(borrowers, lent, held, owed), strict=True):
        assert 1 <= each.weight <= 1000
        assert 0 < each.part_milli <= 1000
        sums[one.card] += each.weight
        n[one.card] += 1
    for card, weight in sums.items():
        assert weight <= max(1000 - held[card], n[card]) + n[card], "rounded one by one"


@given(pools())
def test_no_queue_could_have_more_but_from_one_that_is_worse_off(pool):
    """Max-min over the cards as they are, by what each queue is owed, but for rounding and the least part."""
    borrowers, lent, _, owed = pool
    owed = {queue: milli + 100 for queue, milli in owed.items()}
    had, total, n = defaultdict(float), defaultdict(float), defaultdict(int)
    for one, each in zip(borrowers, dues(borrowers, lent, {}, owed), strict=True):
        had[one.queue, one.card] += lent[one.card] * each.part_milli / 1000
        total[one.queue] += lent[one.card] * each.part_milli / 1000
        n[one.card] += 1
    for (rich, card), milli in had.items():
        for poor in {one.queue for one in borrowers if one.card == card}:
            kept = 12 * n[card]  # the least part of each, and rounding
            if milli > kept:
                assert total[rich] / owed[rich] <= total[poor] / owed[poor] + 0.05 * max(
                    total[poor] / owed[poor], 0.2
                ) + kept * 4 / min(owed[rich], owed[poor]), (rich, poor, card)


@pytest.mark.parametrize("weights", [(1, 1), (3, 1), (99, 1)])
def test_the_same_pool_has_the_same_weights_in_whatever_order(weights):
    borrowers = [borrower("a", 300), borrower("b", 200), borrower("b", 100, OTHER), borrower("a", 50, OTHER)]
    owed = dict(zip("ab", weights, strict=True))
    forward = due(borrowers, owed)
    assert due(borrowers[::-1], owed) == forward[::-1]
