"""Hosting serving pods: laws that hold for any duty and memory."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flexai.simulation.serving import HEADROOM, ServingPods, host, pods_of

CARD = 80.0


@st.composite
def pods(draw):
    n, samples = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    duty = draw(st.lists(st.floats(0, 1), min_size=n * samples, max_size=n * samples))
    memory = draw(st.lists(st.floats(0.1, CARD / HEADROOM), min_size=n, max_size=n))
    return ServingPods(tuple(map(str, range(n))), np.array(duty).reshape(n, samples), np.array(memory))


@given(pods())
def test_slices_never_need_more_cards_than_whole_cards_do(some):
    whole, slices, lent = (host(some, way, CARD, 8) for way in ("whole", "slices", "lent"))
    assert lent.n_cards <= whole.n_cards
    assert slices.n_cards <= whole.n_cards
    assert whole.short == 0


@given(pods())
def test_work_served_and_unserved_adds_up_to_what_was_wanted(some):
    for way in ("whole", "slices", "lent"):
        got = host(some, way, CARD, 8)
        served = got.utilisation * got.n_cards * some.duty.shape[1]
        assert np.isclose(served, some.duty.sum() * (1 - got.unserved), atol=1e-9)
        assert got.utilisation <= got.filled <= 1


def test_two_half_busy_pods_share_a_card_and_double_its_utilisation():
    some = ServingPods(("a", "b"), np.full((2, 4), 0.5), np.array([30.0, 30.0]))
    assert host(some, "whole", CARD, 8).utilisation == 0.5
    slices = host(some, "slices", CARD, 8)
    assert (slices.n_cards, slices.utilisation, slices.short) == (1, 1.0, 0.0)


def test_samples_are_lined_up_and_pods_without_memory_are_left_out():
    duty = [(0.0, "a", 50.0), (60.0, "a", 100.0), (60.0, "b", 10.0), (0.0, "c", 5.0)]
    memory = [(0.0, "a", 1.0), (60.0, "a", 3.0), (0.0, "b", 2.0)]
    lined = pods_of(duty, memory, 60.0)
    assert lined.names == ("a", "b")
    assert lined.duty.tolist() == [[0.5, 1.0], [0.0, 0.1]]
    assert lined.memory_bytes.tolist() == [3.0, 2.0]
