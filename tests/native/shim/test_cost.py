"""What the shim costs; `flexai bench pool --case 'shim*'` judges it by the wall clock too (30 ns, 5 ms)."""

from flexai.apps.bench.shim_cost import shim_cost


def test_a_launch_costs_nanoseconds_and_a_start_milliseconds(tmp_path):
    cost = shim_cost(tmp_path, rounds=50, repeats=3, starts=8)
    assert cost.launch_added_ns <= 30
    assert cost.launch_added_8_cards_ns <= 30
    # By processor time, which holds on a loaded machine, with and without the shim in turns.
    assert 0 < cost.start_cpu_added_ms <= 2
    assert cost.start_cpu_added_16_ms <= 2
