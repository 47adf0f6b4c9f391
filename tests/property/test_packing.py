from collections import Counter
from itertools import count

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling.events import JobSubmitted, NodePut, QueuePut
from flexai.simulation.arrivals import pack
from flexai.simulation.deciders import decider
from flexai.simulation.kernel import SimulatedJob, Simulation
from flexai.simulation.packing import (
    BASELINES,
    PackingNodes,
    PackingRun,
    Shape,
    Typical,
    fragmentation,
    fragmentation_reference,
)
from flexai.simulation.placing import PLACEMENTS

shapes = st.builds(
    Shape,
    cpu_milli=st.integers(0, 64_000),
    ram_mib=st.integers(0, 1000),
    n_devices=st.sampled_from([0, 1, 1, 1, 2, 4]),
    compute_milli=st.sampled_from([100, 250, 500, 810, 1000]),
    models=st.sampled_from([-1, 1, 2, 3]),
)
node_rows = st.tuples(
    st.integers(0, 96_000),
    st.lists(st.sampled_from([-1, 0, 100, 250, 500, 990, 1000]), min_size=4, max_size=4),
    st.integers(0, 1),
)


def nodes_of(rows, typical):
    cpu = np.array([row[0] for row in rows], dtype=np.int64)
    free = np.array([row[1] for row in rows], dtype=np.int64).reshape(-1, 4)
    model = np.array([row[2] for row in rows], dtype=np.int64)
    return PackingNodes(cpu, np.full(len(rows), 500), free, model, typical, 96_000, 4000)


@given(st.lists(node_rows, min_size=1, max_size=6), st.lists(shapes, min_size=1, max_size=12))
def test_fast_fragmentation_equals_the_slow_one(rows, pods):
    nodes = nodes_of(rows, Typical.of(pods))
    args = (nodes.cpu_milli, nodes.free_milli, nodes.model, nodes.typical)
    assert np.allclose(fragmentation(*args), fragmentation_reference(*args))


@given(st.sampled_from(sorted(BASELINES)), st.lists(node_rows, min_size=1, max_size=5), st.lists(shapes, max_size=25))
def test_no_baseline_grants_what_is_not_there_or_refuses_what_fits(name, rows, pods):
    nodes = nodes_of(rows, Typical.of(pods))
    free_before = int(np.maximum(nodes.free_milli, 0).sum())
    run = PackingRun(nodes, BASELINES[name], np.arange(len(rows)))
    for pod in pods:
        fitted = bool(nodes.fits(pod, np.arange(len(rows))).any())
        assert (run.place(pod) is not None) == fitted
        assert (nodes.cpu_milli >= 0).all()
        assert (nodes.ram_mib >= 0).all()
        assert (nodes.free_milli >= -1).all()
    assert run.granted_milli == free_before - int(np.maximum(nodes.free_milli, 0).sum())


def test_fgd_keeps_whole_cards_whole():
    pods = [Shape(1000, 1, 1, 500)] * 5 + [Shape(1000, 1, 1, 1000)] * 5
    rows = [(64_000, [500, 1000, -1, -1], 0), (64_000, [1000, 1000, -1, -1], 0)]
    nodes = nodes_of(rows, Typical.of(pods))
    run = PackingRun(nodes, BASELINES["fgd"], np.arange(2))
    assert run.place(Shape(1000, 1, 1, 500))
    assert nodes.free_milli[0].tolist() == [0, 1000, -1, -1]


def node(name, n_cards):
    return Node(name, tuple(Device(f"{name}/{i}", "any", "simulated", i, 2**37) for i in range(n_cards)), 10**6, 2**40)


def job(seq, milli, n_devices=1, members=1, at_ms=0):
    request = SliceRequest(milli, milli, 0 if milli == 1000 else 2**20, n_devices=n_devices)
    return Job(f"j{seq}", "ann", "q", request, members, members, submitted_at_ms=at_ms, seq=seq)


def test_the_curve_reads_allocation_at_each_point_of_arrival():
    jobs = [job(seq, 500) for seq in range(6)]
    setup = [QueuePut(0, Queue("q")), NodePut(0, node("n", 2))]
    for policy in ("hi", "first-fit"):
        packed = pack(decider(policy, [SimulatedJob(each, 0) for each in jobs]), setup, jobs, 2000, [0.5, 1.0, 1.5])
        assert packed.curve == pytest.approx({0.5: 50.0, 1.0: 100.0, 1.5: 100.0})
        assert packed.n_dropped == 2
        assert packed.fragmentation == pytest.approx({0.5: 0.0, 1.0: 0.0, 1.5: 0.0})


def test_whole_cards_only_count_what_was_asked_of_them():
    jobs = [job(seq, 300) for seq in range(4)]
    packed = pack(decider("whole-card", ()), [NodePut(0, node("n", 2))], jobs, 2000, [1.0])
    assert (packed.n_placed, packed.granted_milli, packed.useful_milli) == (2, 2000, 600)


sizes = st.lists(
    st.tuples(st.sampled_from([250, 600, 1000]), st.integers(1, 2), st.integers(1, 3), st.integers(0, 300)), max_size=20
)


@given(st.sampled_from(PLACEMENTS), sizes)
def test_every_placement_baseline_ends_every_job_in_time_and_never_overfills_a_card(name, rows):
    jobs = [
        SimulatedJob(job(seq, milli, n_devices, members, at_ms), 50 + seq)
        for seq, (milli, n_devices, members, at_ms) in enumerate(sorted(rows, key=lambda row: row[3]))
    ]
    setup = [NodePut(0, node(name, 2)) for name in ("a", "b", "c")]
    first, second = (Simulation(decider(name, jobs, count(7, 13))).play(setup, jobs) for _ in "12")
    assert first.digest == second.digest
    assert all(book.waited_ms >= 0 for book in first.jobs)
    for at_ms in {span.from_ms for span in first.spans}:
        held = Counter()
        for span in first.spans:
            if span.from_ms <= at_ms < span.to_ms:
                held.update({grant.device: grant.compute_milli for grant in span.grants})
        assert max(held.values(), default=0) <= 1000


def test_chance_among_equals_is_the_callers():
    nodes = [NodePut(0, node(name, 1)) for name in ("a", "b", "c")]
    one = [job(0, 1000)]
    places = set()
    for draw in range(3):
        decides = decider("best-fit-random", (), iter([draw]))
        for event in nodes:
            decides.step(event)
        (start,) = decides.step(JobSubmitted(0, one[0]))
        places.add(start.grants[0].node)
    assert places == {"a", "b", "c"}


def test_of_shapes_equally_common_the_larger_are_typical():
    small, large, often = Shape(1000, 1, 1, 250), Shape(4000, 1, 1, 250), Shape(2000, 1, 1, 1000)
    typical = Typical.of([small, large, often, often], cover=0.75)
    assert typical.cpu_milli.tolist() == [2000, 4000]
    assert typical.frequency.tolist() == [2 / 3, 1 / 3]
