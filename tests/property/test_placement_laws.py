"""Each kernel says what its slow twin says."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from flexai.cluster import Books, Plan, Shape
from flexai.model import Device, Node
from flexai.policy import node_classes
from flexai.policy.fragmentation import Mix, stranded, stranded_reference
from flexai.policy.gang import Need, Together
from flexai.policy.placement import Placement
from flexai.policy.roles import fits
from flexai.policy.room import Room
from flexai.policy.victims import RowTrial

GIB = 2**30


def shapes(n_models=3):
    return st.builds(
        lambda cpu, n, milli, gib, whole, models: Shape(
            cpu, 0, n, 1000 if whole else milli, 0 if whole else gib * GIB, whole, models
        ),
        st.sampled_from([0, 1_000, 2_000, 8_000]), st.sampled_from([1, 1, 2, 4]),
        st.sampled_from([1, 100, 250, 500, 1000]), st.sampled_from([0, 1, 8, 30]), st.booleans(),
        st.sampled_from([-1, *range(1, 2**n_models)]),
    )  # fmt: skip


@st.composite
def books(draw):
    out, models, gibs = Books(), st.sampled_from("abc"), st.sampled_from([8, 40])
    for row in range(draw(st.integers(1, 5))):
        cards = tuple(
            Device(f"{row}/{column}", draw(models), "simulated", column, draw(gibs) * GIB)
            for column in range(draw(st.integers(1, 5)))
        )  # fmt: skip
        out.put_node(Node(f"n{row}", cards, draw(st.sampled_from([2_000, 16_000])), 64 * GIB))
    for shape in draw(st.lists(shapes(), max_size=12)):
        rows = np.flatnonzero(out.fits(shape))
        if len(rows):
            row = int(draw(st.sampled_from(rows.tolist())))
            ok = np.flatnonzero(out.cards_that_fit(shape)[row])
            out.take(out.hold_for(shape, row, tuple(ok[: shape.n_devices].tolist())))
    if draw(st.booleans()):
        out.close("0/0", "cordoned")
    if draw(st.booleans()):
        out.set_foreign("0/0", 300, GIB)
    return out


@given(st.integers(1, 150), st.lists(shapes(), min_size=1, max_size=6))
@settings(max_examples=20, deadline=None)
def test_what_classes_strand_is_the_same_however_many_are_new_at_once(n_nodes, mixed):
    out, mix = Books(), Mix()
    for row in range(n_nodes):  # each a class by itself
        cards = tuple(Device(f"{row}/{column}", "abc"[row % 3], "simulated", column, 40 * GIB) for column in range(2))
        out.put_node(Node(f"n{row}", cards, 2_000 + row, 64 * GIB))
    for shape in mixed:
        mix.add(shape)
    placement, n = Placement(out, mix), n_nodes
    placed = [shape for shape in mixed if placement.best(shape) is not None]
    if placed:
        state = out.cpu_milli[:n], out.free_milli[:n], out.free_memory[:n], out.model[:n, 0]
        lost = placement.stranding.lost[placement.classes.class_of[:n]]
        assert np.allclose(lost, stranded_reference(*state, mix))


def test_states_of_cards_are_numbered_anew_before_they_are_too_many(monkeypatch):
    monkeypatch.setattr(node_classes, "MOST_STATES", 0)
    out, mix = Books(), Mix()
    out.put_node(
        Node("n", (Device("a", "m", "simulated", 0, 40 * GIB), Device("b", "m", "simulated", 1, 40 * GIB)), 10**6, GIB)
    )
    placement, most = Placement(out, mix), 0
    for milli in range(100, 400):
        shape = Shape(1, 0, 1, milli, GIB, False)
        mix.add(shape)
        place = placement.best(shape)
        assert place == Placement(out, mix).best(shape)
        hold = out.hold_for(shape, *place)
        out.take(hold)
        placement.best(shape)
        out.give(hold)
        most = max(most, len(placement.classes.card_states))
    assert placement.classes.generation > 1
    assert most <= 4 * out.free_milli.size + 2


def n_fit_by_placing(out, shape):
    """Members placed one by one on the cards with most room, node by node."""
    got = []
    for row in range(len(out.names)):
        plan, n = Plan(out), 0
        while out.fits(shape)[row]:
            ok = np.flatnonzero(out.cards_that_fit(shape)[row])
            slots = out.free_milli[row, ok] // shape.compute_milli
            if shape.memory_bytes:
                slots = np.minimum(slots, out.free_memory[row, ok] // shape.memory_bytes)
            best = ok[np.argsort(-slots, kind="stable")[: shape.n_devices]]
            plan.take(out.hold_for(shape, row, tuple(best.tolist())))
            n += 1
        plan.undo()
        got.append(n)
    return got


@settings(max_examples=60, deadline=None)
@given(books(), st.lists(shapes(), min_size=1, max_size=12))
def test_stranded_compute_is_what_its_slow_twin_says(out, mixed):
    mix = Mix()
    for shape in mixed:
        mix.add(shape)
    mix._refresh()
    n = len(out.names)
    state = out.cpu_milli[:n], out.free_milli[:n], out.free_memory[:n], out.model[:n, 0]
    assert np.allclose(stranded(*state, mix), stranded_reference(*state, mix))


@settings(max_examples=60, deadline=None)
@given(books(), shapes())
def test_as_many_members_fit_as_can_be_placed_one_by_one(out, shape):
    fit = out.n_fit(shape).tolist()
    assert fit == n_fit_by_placing(out, shape)
    assert fit == [RowTrial.of(out, row, shape).n_fit() for row in range(len(out.names))]
    assert (out.n_fit(shape) > 0).tolist() == out.fits(shape).tolist()


def headroom(cards, shape):
    """200 thousandths of a shared card stay free."""
    return (cards.free_milli - shape.compute_milli >= 200) | shape.whole


@settings(max_examples=60, deadline=None)
@given(books(), shapes())
def test_a_filter_that_keeps_room_free_decides_as_if_others_used_that_room(out, shape):
    used = out.copy()
    if not shape.whole:
        used.free_milli -= 200
    out.filters = (headroom,)
    fit, rows = used.n_fit(shape).tolist(), range(len(out.names))
    assert out.n_fit(shape).tolist() == fit
    assert [RowTrial.of(out, row, shape).n_fit() for row in rows] == fit
    assert out.fits(shape).tolist() == used.fits(shape).tolist()
    assert (out.cards_that_fit(shape) == used.cards_that_fit(shape)).all()
    place = Placement(out, Mix()).best(shape)
    assert (place is None) == (not used.fits(shape).any())
    if place is not None:
        assert used.cards_that_fit(shape)[place[0], list(place[1])].all()
    assert out.emptied().filters == out.filters
    assert out.filtered_by(()).filters == ()


@settings(max_examples=60, deadline=None)
@given(books(), st.lists(shapes(), min_size=1, max_size=8))
def test_a_plan_undone_leaves_every_array_as_it_was(out, wanted):
    names = ("cpu_milli", "ram_bytes", "free_milli", "free_memory", "granted_milli", "granted_memory")
    before = [getattr(out, name).tobytes() for name in names]
    plan = Plan(out)
    holds = []
    for shape in wanted:
        rows = np.flatnonzero(out.fits(shape))
        if len(rows):
            ok = np.flatnonzero(out.cards_that_fit(shape)[rows[0]])
            holds.append(out.hold_for(shape, int(rows[0]), tuple(ok[: shape.n_devices].tolist())))
            plan.take(holds[-1])
    for hold in holds[::2]:
        plan.give(hold)
    plan.undo()
    assert [getattr(out, name).tobytes() for name in names] == before


changes = st.lists(st.tuples(shapes(), st.sampled_from(["take", "give", "close", "open", "more"])), max_size=12)


@settings(max_examples=60, deadline=None)
@given(books(), shapes(), changes)
def test_what_fits_when_all_is_empty_is_what_would_be_counted_afresh(out, asked, turns):
    taken = []
    for shape, what in turns:
        rows = np.flatnonzero(out.fits(shape)).tolist()
        if what == "give" and taken:
            out.give(taken.pop())
        elif what == "take" and rows:
            ok = np.flatnonzero(out.cards_that_fit(shape)[rows[-1]])[: shape.n_devices]
            taken.append(out.hold_for(shape, rows[-1], tuple(ok.tolist())))
            out.take(taken[-1])
        elif what in ("close", "open"):
            getattr(out, what)("0/0", "ill")
        elif what == "more":
            name = f"new{len(out.names)}"
            out.put_node(Node(name, (Device(name, "a", "simulated", 0, 40 * GIB),), 16_000, 64 * GIB))
        assert out.n_fit_emptied(asked).tolist() == out.emptied().n_fit(asked).tolist()


@settings(max_examples=60, deadline=None)
@given(books(), shapes(), st.integers(1, 4), st.lists(st.tuples(shapes(), st.booleans()), max_size=12))
def test_room_that_follows_what_is_taken_suffices_when_all_fits_in_the_books(out, asked, n_members, turns):
    need = Need.of(asked, Together(n_members))
    room, taken = Room(out, need), []
    for shape, gives in turns:
        rows = np.flatnonzero(out.fits(shape)).tolist()
        if gives and taken:
            room.give(taken.pop())
        elif rows:
            ok = np.flatnonzero(out.cards_that_fit(shape)[rows[-1]])[: shape.n_devices]
            taken.append(out.hold_for(shape, rows[-1], tuple(ok.tolist())))
            room.take(taken[-1])
        assert room.suffices() == fits(out, need)


@settings(max_examples=60, deadline=None)
@given(books(), st.lists(st.tuples(shapes(), st.booleans()), min_size=1, max_size=20))
def test_a_placement_that_followed_every_change_decides_as_a_fresh_one(out, turns):
    mix = Mix()
    old, taken = Placement(out, mix), []
    for shape, gives in turns:
        mix.add(shape)
        if gives and taken:
            out.give(taken.pop())
        place, fresh = old.best(shape), Placement(out, mix).best(shape)
        assert (place is None) == (fresh is None) == (not out.fits(shape).any())
        if place is not None:
            row, columns = place
            assert out.fits(shape)[row]
            assert len(columns) == shape.n_devices
            assert out.cards_that_fit(shape)[row, list(columns)].all()
            score = [each._fresh(shape).score[each.classes.class_of[where[0]]] for each, where in
                     ((old, place), (Placement(out, mix), fresh)) if each.best(shape)]  # fmt: skip
            assert abs(score[0] - score[1]) < 1e-6
            taken.append(out.hold_for(shape, row, columns))
            out.take(taken[-1])
