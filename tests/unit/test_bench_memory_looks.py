"""The memory cap is looked at by two books, and by phases of the tenant that allocates."""

from flexai.apps.bench.slicing.memory import CALLS, END, START, over_bytes, spans_of_page, split

MS = 1_000_000
TENANT = {"ready_ns": [100 * MS, 120 * MS], "stopped_ns": [200 * MS, 210 * MS]}


def test_the_most_and_the_longest_gap_are_told_by_phase_and_a_span_at_an_edge_is_in_both():
    spans = [[90 * MS, 5, 3 * MS], [115 * MS, 9, 40 * MS], [150 * MS, 20, 2 * MS], [215 * MS, 7, 30 * MS]]
    phases = split(spans, TENANT)
    assert (phases[START].most_bytes, phases[START].longest_ms) == (9, 40)
    assert (phases[CALLS].most_bytes, phases[CALLS].longest_ms) == (20, 40)
    assert (phases[END].most_bytes, phases[END].longest_ms) == (7, 30)


def test_bytes_that_only_one_of_the_two_books_saw_are_over_the_cap():
    alone = {"most_bytes": 90, "no_page": "a simulated card has none"}
    assert over_bytes(alone, 100) == 0
    assert over_bytes(alone | {"most_bytes": 103}, 100) == 3
    both = alone | {"page": {"most_bytes": 107, "spans": [[0, 107, 1]]}}
    assert over_bytes(both, 100) == 7
    assert spans_of_page(both) == [[0, 107, 1]]
    assert spans_of_page(alone) == []
    assert split(spans_of_page(alone), TENANT)[END].most_bytes == 0
