"""What the shim costs, against its goals; the figures are by `flexai.apps.bench.shim_cost`."""

from flexai.apps.bench.shim_cost import shim_cost


def test_a_launch_costs_less_than_30_ns_and_a_start_less_than_5_ms(tmp_path):
    cost = shim_cost(tmp_path, rounds=50, repeats=3, starts=8)
    assert cost.launch_added_ns <= 30
    assert cost.launch_added_8_cards_ns <= 30
    assert cost.start_added_ms <= 5
    assert cost.start_added_16_ms <= 5
