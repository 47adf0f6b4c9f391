"""Each fast kernel says what a slow one says; a search, whatever its budget, leaves the books as they were."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from flexai.cluster import Books, Shape, group_sums
from flexai.model import Device, Job, Node, Queue, SliceRequest, partition_profile
from flexai.policy.gang import Need, Together, fits_together
from flexai.policy.node_classes import NodeClasses
from flexai.policy.reservation import NEVER_MS, reserve
from flexai.policy.victims import RowTrial
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberStarted, NodePut, QueuePut, Tick

GIB = 2**30
MIG = ("1g.10gb", "3g.40gb")
PROFILES = [None, *(partition_profile("H100", 80 * GIB, name) for name in MIG)]
shapes = st.builds(
    lambda cpu, n, milli, gib, whole, models, profile: Shape(
        cpu, 0, n, profile.compute_milli if profile else 1000 if whole else milli,
        profile.memory_bytes if profile else 0 if whole else gib * GIB, whole and profile is None, models, profile,
    ),
    st.sampled_from([0, 1000, 7000]), st.integers(1, 3), st.sampled_from([100, 300, 500, 1000]),
    st.sampled_from([1, 10, 40]), st.booleans(), st.sampled_from([-1, 1, 2, 3]), st.sampled_from(PROFILES),
)  # fmt: skip


@st.composite
def some_books(draw):
    """Nodes of two models, partly taken by whatever fits, in the order drawn."""
    books = Books()
    for n in range(draw(st.integers(1, 4))):
        cards = tuple(
            Device(
                f"n{n}/{c}", draw(st.sampled_from(["H100", "L40S"])), "simulated", c, 80 * GIB,
                partitions=MIG if draw(st.booleans()) else (),
            )
            for c in range(draw(st.integers(1, 4)))
        )  # fmt: skip
        books.put_node(Node(f"n{n}", cards, 16_000, 64 * GIB))
    for shape in draw(st.lists(shapes, max_size=10)):
        for row in np.flatnonzero(books.fits(shape)[: len(books.names)]).tolist()[:1]:
            columns = np.flatnonzero(books.cards_that_fit(shape)[row])[: shape.n_devices]
            books.take(books.hold_for(shape, row, tuple(int(column) for column in columns)))
    books.check()
    return books


@settings(max_examples=80, deadline=None)
@given(some_books(), shapes)
def test_one_node_in_plain_numbers_fits_what_the_arrays_say(books, shape):
    fast = books.n_fit(shape)
    assert [RowTrial.of(books, row, shape).n_fit() for row in range(len(books.names))] == [
        int(fast[row]) for row in range(len(books.names))
    ]


@settings(max_examples=80, deadline=None)
@given(some_books(), shapes)
def test_classes_of_nodes_take_the_cards_that_the_books_say(books, shape):
    classes = NodeClasses(books)
    classes.sync()
    cards = books.cards_that_fit(shape)
    for row in range(len(books.names)):
        by_class = classes.takes(shape, classes.cards[classes.class_of[row]])
        assert int(by_class.sum()) == int(cards[row].sum())


@settings(max_examples=80, deadline=None)
@given(some_books(), st.lists(shapes, max_size=12), shapes, st.integers(1, 6), st.randoms(use_true_random=False))
def test_a_shadow_is_the_first_end_after_which_the_job_fits(books, running, shape, n_members, chance):
    holds = []
    for each in running:
        for row in np.flatnonzero(books.fits(each)[: len(books.names)]).tolist()[-1:]:
            columns = np.flatnonzero(books.cards_that_fit(each)[row])[-each.n_devices :]
            holds.append(books.hold_for(each, row, tuple(int(column) for column in columns)))
            books.take(holds[-1])
    chance.shuffle(holds)
    together, later, first = Together(n_members), books.copy(), NEVER_MS
    for at_ms, hold in enumerate([None, *holds]):
        if hold is not None:
            later.give(hold)
        if fits_together(later, shape, together):
            first = at_ms
            break
    got = reserve("job", Need.of(shape, together), books, 0, list(enumerate(holds, start=1)))
    assert got.shadow_ms == first
    assert arrays_of(got.future.books) == arrays_of(later)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 9)), max_size=12))
def test_sums_over_groups_are_sums(rows):
    groups, values = (np.array([row[at] for row in rows], dtype=np.int64) for at in (0, 1))
    got = group_sums(groups, values)
    assert got.tolist() == [
        sum(value for group, value in rows if group == each) for each in range(len(got))
    ]  # fmt: skip
    assert len(got) == max([group for group, _ in rows], default=-1) + 1


def arrays_of(books):
    names = ("cpu_milli", "ram_bytes", "free_milli", "free_memory", "granted_milli", "granted_memory", "cut")
    return {name: getattr(books, name).tobytes() for name in names}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([250, 500, 1000]), min_size=8, max_size=24), st.integers(1, 4), st.integers(0, 12))
def test_a_search_of_any_budget_leaves_the_books_as_they_were_and_more_budget_finds_no_less(sizes, members, steps):
    found = []
    for budget in (steps, steps + 5, 10_000):
        scheduler = Scheduler(SchedulerSettings(consolidate_moves=4, preempt_delay_ms=10, move_cost_ms=0), check=True)
        for queue in (Queue("owner", quota_milli=4000), Queue("guest")):
            scheduler.step(QueuePut(0, queue))
        for n in range(4):
            cards = tuple(Device(f"n{n}/{c}", "H100", "simulated", c, 80 * GIB) for c in range(2))
            scheduler.step(NodePut(0, Node(f"n{n}", cards, 64_000, 64 * GIB)))
        for seq, milli in enumerate(sizes):
            request = SliceRequest(milli, 1000, 0 if milli == 1000 else 5 * GIB)
            job = Job(f"g{seq}", "ann", "guest", request, seq=seq, checkpointable=True)
            for each in scheduler.step(JobSubmitted(0, job)):
                if isinstance(each, Start):
                    scheduler.step(MemberStarted(0, each.job_id, 0))
        gang = Job("gang", "bob", "owner", SliceRequest(1000, 1000, 0), members, members, submitted_at_ms=1, seq=99)
        if any(isinstance(each, Start) and each.job_id == "gang" for each in scheduler.step(JobSubmitted(1, gang))):
            return
        before = arrays_of(scheduler.state.books)
        commands = scheduler.step(Tick(10_000_000, steps=budget))
        after = scheduler.state.books.copy()
        for booking in scheduler.state.booked.values():
            for hold in booking.kept:
                after.give(hold)
        assert arrays_of(after) == before, "evictions only command and book what is free; what is held stays"
        found.append(any(isinstance(each, Evict) for each in commands))
    assert found == sorted(found)
