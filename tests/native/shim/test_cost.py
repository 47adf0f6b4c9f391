"""What the shim costs; `flexai bench pool --case 'shim*'` judges it against its goals (30 ns, 5 ms)."""

from flexai.apps.bench.shim_cost import shim_cost


def test_a_launch_costs_nanoseconds_and_a_start_milliseconds(tmp_path):
    cost = shim_cost(tmp_path, rounds=50, repeats=3, starts=8)
    assert cost.launch_added_ns <= 30
    assert cost.launch_added_8_cards_ns <= 30
    # Starts are by the wall clock, so on a loaded machine they wait for a processor: only the order is held here.
    assert cost.start_added_ms <= 50
    assert cost.start_added_16_ms <= 50
