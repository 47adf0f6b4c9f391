"""A latency tenant beside deep queues: as fast as alone but for a change of the card, and the queues share the rest."""

import pytest

PERIOD_US = 25_000
PARTS = {1: (1.0,), 3: (0.5, 0.3, 0.2)}
MORE_MS = {1: {1: 0.5, 4: 0.7}, 3: {1: 0.7, 4: 0.9}}
TIMES = {1: 1.10, 3: 1.15}


def server(size_ms):
    """It asks for twice what it uses, as in `flexai bench slicing --case latency`."""
    asked = min(900, round(2.2 * 1000 * size_ms * 1000 / PERIOD_US))
    return asked, f"latency:0:{size_ms * 1000}:{PERIOD_US} put:0:{asked}:1000:0"


def queues(n, left_milli):
    shares = [round(part * left_milli) for part in PARTS[n]]
    return " ".join(f"flood:{i}:200:100 put:{i}:{milli}:1000:1" for i, milli in enumerate(shares, 1))


@pytest.mark.parametrize("after_ms", [700, 1130, 1900])
@pytest.mark.parametrize("size_ms", [1, 4, 16])
@pytest.mark.parametrize("n", PARTS)
def test_requests_beside_deep_queues_take_hardly_longer_and_the_queues_keep_their_split(play, n, size_ms, after_ms):
    asked, latency = server(size_ms)
    alone = play("hwslice", latency, "run:1000 mark run:3000 report").tenant[0]["p99_ms"]
    figures = play("hwslice", latency, queues(n, 1000 - asked), f"run:{after_ms} mark run:5000 report")
    more_ms = MORE_MS[n].get(size_ms)
    assert figures.tenant[0]["p99_ms"] <= (alone * TIMES[n] if more_ms is None else alone + more_ms)
    batch = [figures.held(i) for i in range(1, n + 1)]
    for got, part in zip(batch, PARTS[n], strict=True):
        assert abs(100 * got / sum(batch) - 100 * part) <= 2
    left = 100 - 100 * size_ms * 1000 / PERIOD_US
    done = sum(figures.tenant[i]["work"] for i in range(1, n + 1))
    least = 95 if n > 1 or size_ms == 16 else 98  # changes of the card are 1.5 of the 36 % that 16 ms leave
    assert done >= left * least / 100
    assert figures.card["control"] <= 2
