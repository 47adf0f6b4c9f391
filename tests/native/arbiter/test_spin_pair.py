"""Processes that wait for each other on the card, as the ranks of a collective do, beside a tenant that never rests."""

import json
import time

import pytest

from flexai.adapters.shm import TimelineFile
from flexai.wire.timeline import Kind

LEASE, HWSLICE = 1, 2


def busy_neighbour(node, request):
    node.put("flood", None, request)
    node.put("flood", node.run("flood", "flood", "--kernel-us", 500, shimmed=True), request)


def words(node, seconds, collective=True):
    return (
        "spin-pair", "--pair", node.run_dir / "pair", "--kernel-us", 200, "--seconds", seconds,
        "--collective", int(collective),
    )  # fmt: skip


def reports(*processes):
    """What both ranks say at their end, which must come."""
    said = "".join(process.communicate(timeout=20)[0] for process in processes)
    return [json.loads(line) for line in said.splitlines()]


def assert_both_kept_moving(ranks, n_steps):
    assert len(ranks) == 2, ranks
    done = [rank["iterations"] for rank in ranks]
    assert min(done) >= n_steps, done
    assert abs(done[0] - done[1]) <= 2, f"neither gets ahead of the other: {done}"


@pytest.mark.parametrize("calls_percent", [100, 140])
def test_no_step_of_a_spin_pair_waits_for_as_long_as_100_ms_beside_a_flood(play, calls_percent):
    """Which is a turn of the flood: rounds are no longer than their control calls ask, and the pair needs no tests."""
    pair = "rank:0:200:0 pair:0 put:0:500:1000:1 flood:1:500:50 put:1:500:1000:1"
    figures = play("hwslice", f"slow:{calls_percent}", pair, "run:3000 mark run:8000 report")
    assert figures.tenant[0]["max_ms"] <= 95
    assert abs(figures.tenant[0]["counted"] - figures.tenant[1]["counted"]) <= 1
    assert figures.card["control"] <= 2
    # It comes on the card again and again, which shows that it works: tests are of the flood, one in its turn at most.
    assert figures.card["preempt"] <= figures.tenant[1]["turns"] / 6


@pytest.mark.parametrize("backend", [HWSLICE, LEASE])
def test_a_spin_pair_in_one_tenant_moves_beside_a_flood(make_node, backend):
    node = make_node()
    node.prefer(backend)
    busy_neighbour(node, 500)
    node.put("pair", None, 500)
    pair = node.run_pair("pair", *words(node, 1))
    node.put("pair", pair, 500)
    assert_both_kept_moving(reports(pair), 30)


def test_a_spin_pair_that_the_shim_does_not_know_as_a_collective_is_slow_but_never_stuck_at_a_gate(make_node):
    node = make_node()
    node.prefer(LEASE)
    busy_neighbour(node, 500)
    node.put("pair", None, 500)
    pair = node.run_pair("pair", *words(node, 1.5, collective=False))
    node.put("pair", pair, 500)
    assert_both_kept_moving(reports(pair), 5)


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "collective"), [(HWSLICE, True), (LEASE, True), (LEASE, False)])
def test_ranks_in_two_tenants_are_slow_but_never_stuck(make_node, backend, collective):
    node = make_node()
    node.prefer(backend)
    busy_neighbour(node, 400)
    ranks = []
    for name in ("one", "two"):
        node.put(name, None, 300)
        ranks.append(node.run(name, *words(node, 3, collective), shimmed=True))
        node.put(name, ranks[-1], 300)
    assert_both_kept_moving(reports(*ranks), 5)


def test_a_third_rank_is_told_that_the_pair_is_complete(make_node):
    node = make_node()
    node.put("pair", None, 500)
    pair = node.run_pair("pair", *words(node, 0.1))
    assert len(reports(pair)) == 2
    third = node.run("pair", *words(node, 0.1))
    assert "name a new file" in third.communicate(timeout=20)[0]
    assert third.returncode == 2


@pytest.mark.slow
def test_the_turns_of_a_job_on_two_cards_begin_together(make_node):
    node = make_node("h200:2")
    for card in (0, 1):
        node.put(f"flood{card}", None, 400, card=card)
        flood = node.run(f"flood{card}", "flood", "--kernel-us", 500, "--device", card, shimmed=True)
        node.put(f"flood{card}", flood, 400, card=card)
    node.put("pair", None, 600, cards=(0, 1))
    script = " ".join([*(f"$0 {' '.join(map(str, words(node, 5)))} --device {card} &" for card in (0, 1)), "wait"])
    pair = node.run_pair("pair", script=script)
    node.put("pair", pair, 600, cards=(0, 1))
    time.sleep(1.5)
    ring = TimelineFile(node.run_dir / "timeline")
    ring.read()
    time.sleep(3)
    turns = [record for record in ring.read() if record.kind is Kind.TURN and record.tenant == "pair"]
    assert_both_kept_moving(reports(pair), 100)
    one, two = ([r.at_ns / 1e6 for r in turns if r.device == card] for card in node.cards)
    apart_ms = [min((abs(at - other) for other in two), default=1e9) for at in one[1:-1]]
    assert apart_ms, "no turns"
    assert sorted(apart_ms)[len(apart_ms) // 2] <= 20, apart_ms
