import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.simulation.packing import (
    BASELINES,
    PackingNodes,
    PackingRun,
    Shape,
    Typical,
    allocation_curve,
    fragmentation,
    fragmentation_reference,
)

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
        assert run.place(pod) == fitted
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


def test_the_curve_reads_allocation_at_each_point_of_arrival():
    nodes = nodes_of([(64_000, [1000, 1000, -1, -1], 0)], Typical.of([Shape(0, 0, 1, 500)]))
    run = PackingRun(nodes, BASELINES["first-fit"], np.arange(1))
    curve = allocation_curve(run, [Shape(0, 0, 1, 500)] * 6, 2000, [0.5, 1.0, 1.5])
    assert curve == pytest.approx({0.5: 50.0, 1.0: 100.0, 1.5: 100.0})
    assert run.n_failed == 2
