"""Where a gang is cut: as few groups of the widest level as can be, never a member too many or too few."""

import itertools

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from flexai.policy.gang import cheapest_cut

rows = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 5)), min_size=1, max_size=7)


def fewest_reference(places, rooms, n):
    """The least number of places that hold ``n`` together, by trying every set."""
    groups = {}
    for row, (place, room) in enumerate(zip(places, rooms, strict=True)):
        key = place if place >= 0 else ("alone", row)
        groups[key] = groups.get(key, 0) + room
    for size in range(len(groups) + 1):
        if any(sum(some) >= n for some in itertools.combinations(groups.values(), size)):
            return size
    return None


@settings(max_examples=100, deadline=None)
@given(rows, st.integers(1, 20))
def test_the_cut_crosses_as_few_groups_of_the_widest_level_as_can_be(nodes, n):
    places, rooms = (np.array(column, dtype=np.int64) for column in zip(*nodes, strict=True))
    cut = cheapest_cut([places], rooms, n)
    assert all(0 < count <= rooms[row] for row, count in cut)
    assert len({row for row, _ in cut}) == len(cut)
    assert sum(count for _, count in cut) == min(n, int(rooms.sum()))
    if rooms.sum() >= n:
        used = {int(places[row]) if places[row] >= 0 else ("alone", row) for row, _ in cut}
        assert len(used) == fewest_reference(places, rooms, n)


@settings(max_examples=60, deadline=None)
@given(rows, st.integers(1, 20))
def test_without_levels_the_cut_takes_as_few_nodes_as_can_be(nodes, n):
    rooms = np.array([room for _, room in nodes], dtype=np.int64)
    if rooms.sum() >= n:
        assert len(cheapest_cut([], rooms, n)) == fewest_reference([-1] * len(rooms), rooms.tolist(), n)
