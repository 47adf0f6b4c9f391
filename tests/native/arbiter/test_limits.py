"""Hard limits, in one virtual time with a model of a card."""

import pytest

both = pytest.mark.parametrize("backend", ["hwslice", "lease"])


PROGRAMS = {
    "flood": "flood:0:1000:4",
    "GEMM": "burst:0:400:40:200",
    "step-synchronous": "step:0:2000:20",
    "training": "burst:0:600:5:1000",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("limit", [100, 300, 500, 900])
def test_a_lone_tenant_at_its_limit_has_the_same_in_any_two_seconds(play, name, limit):
    """Its periods are whole parts of a second, so it does not matter at which moment one begins to look."""
    seconds = [f"run:{after_ms} mark run:2000 report" for after_ms in (2000, 13, 29, 37, 7, 43)]
    figures = play("hwslice", f"{PROGRAMS[name]} put:0:{limit}:{limit}:1", *seconds, n_reports=len(seconds))
    for any_two in figures:
        assert abs(any_two.held(0) - limit / 10) <= 0.1
        assert any_two.card["control"] <= 2
    assert abs(sum(any_two.held(0) for any_two in figures) / len(figures) - limit / 10) <= 0.03


@both
@pytest.mark.parametrize("limit", [10, 100, 300, 700, 900])
def test_a_hard_limit_holds_while_the_card_is_otherwise_idle(play, backend, limit):
    figures = play(backend, f"flood:0:1000:2 put:0:{limit}:{limit}:1 run:500 mark run:5000 report")
    measured = "held" if backend == "hwslice" else "work"
    assert abs(figures.tenant[0][measured] - limit / 10) <= 1


@both
def test_a_limit_among_others_leaves_the_rest_to_them(play, backend):
    figures = play(
        backend, "flood:0:1000:2 put:0:300:300:1 flood:1:1000:2 put:1:100:1000:1 run:500 mark run:5000 report"
    )
    assert abs(figures.held(0) - 30) <= 1
    assert figures.held(1) >= 67


def test_a_changed_limit_holds_within_100_ms(play):
    figures = play("hwslice", "flood:0:1000 put:0:300:300:1 run:1000 put:0:600:600:1 run:100 mark run:1000 report")
    assert abs(figures.held(0) - 60) <= 1
