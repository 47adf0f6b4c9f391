"""What the benchmark holds the scheduler's decisions against is right itself."""

import pytest

from flexai.apps.bench.scheduling.exactness import MOST_LOST, Held, fits, least_lost, lost_and_least


def test_the_least_work_lost_is_that_of_the_cheapest_set_without_which_the_gang_fits():
    running = [
        Held("long", {(0, 0): 1000, (0, 1): 1000}, 900), Held("a", {(0, 2): 500}, 50), Held("b", {(0, 2): 500}, 60),
        Held("c", {(1, 0): 1000, (1, 1): 1000, (1, 2): 1000, (1, 3): 1000}, 100), Held("d", {(2, 0): 250}, 500),
    ]  # fmt: skip
    assert fits(running, 3, 1)
    assert least_lost(running, 3, 1) == 0
    assert least_lost(running, 3, 2) == 100
    assert least_lost(running, 4, 2) == 600
    assert least_lost(running, 2, 4) == 210
    assert least_lost(running, 1, 6) == 100


@pytest.mark.parametrize("seed", range(7))
def test_reclaim_loses_hardly_more_than_it_must(seed):
    ours, least = lost_and_least(seed)
    assert least <= ours <= MOST_LOST * least
