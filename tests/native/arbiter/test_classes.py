"""Latency tenants, owners and best-effort tenants beside each other, in one virtual time with a model of a card."""

import pytest

both = pytest.mark.parametrize("backend", ["hwslice", "lease"])


@pytest.mark.parametrize(
    ("request_us", "period_us", "within_ms"), [(1000, 20000, 1.6), (4000, 20000, 4.7), (16000, 60000, 17.6)]
)
def test_a_latency_tenant_is_served_as_if_it_were_alone(play, request_us, period_us, within_ms):
    figures = play(
        "hwslice", f"latency:0:{request_us}:{period_us} put:0:300:1000:0",
        "flood:1:1000 put:1:300:1000:1 flood:2:1000 put:2:400:1000:1 run:2000 mark run:10000 report",
    )  # fmt: skip
    assert figures.tenant[0]["p99_ms"] <= within_ms
    left = 100 - 100 * request_us / period_us
    assert figures.tenant[1]["work"] + figures.tenant[2]["work"] >= 0.96 * left
    assert abs(figures.held(1) / figures.held(2) - 3 / 4) < 0.03  # a time slice that is set begins the list anew


def test_a_latency_tenant_cannot_starve_what_is_guaranteed(play):
    figures = play(
        "hwslice", "flood:0:1000 put:0:300:1000:0 flood:1:1000 put:1:700:1000:1 run:1000 mark run:5000 report"
    )
    assert abs(figures.held(1) - 70) <= 2


@both
def test_best_effort_has_what_is_idle_and_no_more(play, backend):
    steps = "flood:0:1000:2 put:0:300:1000:1 flood:1:1000:2 put:1:0:1000:2 run:500"
    assert play(backend, steps, "mark run:1000 report").held(0) >= 99
    figures = play(backend, steps, "pause:0 run:50 mark run:1000 report")
    assert figures.held(1) >= 97


@pytest.mark.parametrize("n_borrowers", [1, 3])
@pytest.mark.parametrize("owner", ["latency:0:3000:10000", "burst:0:3000:1:7000", "latency:0:30000:50000"])
def test_best_effort_runs_in_the_gaps_of_a_guaranteed_owner(play, owner, n_borrowers):
    put = f"{owner} put:0:999:1000:1"
    borrowers = " ".join(f"flood:{i}:1000 put:{i}:500:1000:2" for i in range(1, n_borrowers + 1))
    alone = play("hwslice", f"{put} run:1000 mark run:5000 report")
    figures = play("hwslice", f"{put} {borrowers} run:3000 mark run:10000 report")
    idle = 100 - figures.tenant[0]["work"]
    lent = sum(figures.tenant[i]["work"] for i in range(1, n_borrowers + 1))
    assert figures.tenant[0]["work"] >= 0.97 * alone.tenant[0]["work"]
    assert lent >= 0.9 * idle
    assert figures.card["control"] <= 2
    if owner.startswith("latency"):
        assert figures.tenant[0]["p99_ms"] <= alone.tenant[0]["p99_ms"] + 0.8, "it is off within its short time slice"


@pytest.mark.parametrize("owner", ["flood:0:1000", "step:0:1000:50", "step:0:9000:50", "burst:0:1000:3:3000"])
@pytest.mark.parametrize("n_borrowers", [1, 3])
def test_an_owner_with_no_gaps_or_short_ones_keeps_its_speed_beside_best_effort(play, owner, n_borrowers):
    borrowers = " ".join(f"flood:{i}:1000 put:{i}:500:1000:2" for i in range(1, n_borrowers + 1))
    alone = play("hwslice", f"{owner} put:0:999:1000:1 run:1000 mark run:5000 report")
    figures = play("hwslice", f"{owner} put:0:999:1000:1 {borrowers} run:1000 mark run:10000 report")
    assert figures.tenant[0]["work"] >= 0.97 * alone.tenant[0]["work"]
    assert figures.card["control"] <= 2


@pytest.mark.parametrize("n_borrowers", [1, 3])
def test_an_owner_whose_card_is_lent_has_it_back_at_once(play, n_borrowers):
    borrowers = " ".join(f"flood:{i}:1000 put:{i}:500:1000:2" for i in range(1, n_borrowers + 1))
    steps = f"flood:0:1000 put:0:999:1000:1 {borrowers} run:1000 pause:0 run:2000"
    assert play("hwslice", steps, "mark run:1000 report").held(0) == 0
    for after_ms in (1, 4, 8):
        figures = play("hwslice", steps, f"run:{after_ms} go:0 mark run:10 report")
        assert figures.held(0) >= 90, "of the first 10 ms"


@pytest.mark.parametrize("when_ms", [0, 3, 7, 11, 16, 23])
def test_what_falls_idle_is_lent_within_10_ms(play, when_ms):
    steps = f"flood:0:100:5 put:0:500:1000:1 flood:1:1000:5 put:1:500:1000:1 run:500 run:{when_ms + 1} pause:0"
    figures = play("hwslice", steps, "mark run:200 report")
    wasted_ms = 200 - 2 * (figures.tenant[0]["work"] + figures.tenant[1]["work"])
    assert wasted_ms <= 10 + 0.02 * 200, "it is found out in its turn, and the card changes hands"
    figures = play("hwslice", steps, "run:50 mark run:200 report")
    assert figures.held(1) >= 99


@pytest.mark.parametrize("n_borrowers", [1, 3])
@pytest.mark.parametrize("when_ms", [0, 3, 7, 11])
def test_an_owner_that_wakes_has_the_card_within_10_ms(play, n_borrowers, when_ms):
    others = " ".join(f"flood:{i}:1000 put:{i}:100:1000:1" for i in range(1, n_borrowers + 1))
    figures = play(
        "hwslice",
        f"flood:0:100:5 put:0:700:1000:1 run:300 pause:0 {others} run:500 run:{when_ms + 1} go:0 mark run:10 report",
    )
    assert figures.held(0) > 5, "of the first 10 ms it has some"
    figures = play(
        "hwslice",
        f"flood:0:100:5 put:0:700:1000:1 run:300 pause:0 {others} run:500 run:{when_ms + 1} go:0",
        "run:10 mark run:20 report",
    )
    assert figures.held(0) > 60
