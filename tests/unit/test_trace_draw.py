"""Chance drawn for packing experiments."""

from flexai.adapters.traces import nodes_in_drawn_order
from flexai.wire.cluster_spec import parse_cluster

NODES = parse_cluster("30x2,10x8")


def test_drawn_names_sort_as_the_nodes_were_drawn_and_nothing_else_changes():
    drawn = nodes_in_drawn_order(NODES, 42)
    names = [node.name for node in drawn]
    assert names == sorted(names)
    assert {node.devices for node in drawn} == {node.devices for node in NODES}


def test_a_seed_draws_one_order_of_nodes():
    assert nodes_in_drawn_order(NODES, 42) == nodes_in_drawn_order(NODES, 42)
    assert [node.devices for node in nodes_in_drawn_order(NODES, 42)] != [
        node.devices for node in nodes_in_drawn_order(NODES, 43)
    ]
