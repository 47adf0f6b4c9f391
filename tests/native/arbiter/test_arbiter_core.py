"""The arbiter's core against the model of a card, in one virtual time: exact and repeatable. Under ASan and UBSan."""

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

THIRTY_SEVENTY = "flood:0:1000 put:0:300:1000:1 flood:1:1000 put:1:700:1000:1"


both = pytest.mark.parametrize("backend", ["hwslice", "lease"])


def errors(figures, requests):
    total = sum(requests)
    return [abs(figures.held(i) - 100 * request / total) for i, request in enumerate(requests)]


@both
@pytest.mark.parametrize(
    ("requests", "kernels_us"),
    [
        ((300, 700), (1000, 1000)),
        ((10, 990), (50, 20000)),
        ((990, 10), (50, 20000)),
        ((500, 300, 200), (20000, 50, 1000)),
        ((100, 100, 100, 100, 100, 500), (1000, 50, 200, 5000, 1000, 1000)),
    ],
)
def test_shares_of_busy_tenants_are_exact_and_nothing_is_wasted(play, backend, requests, kernels_us):
    steps = [f"flood:{i}:{us}:{max(1, min(64, 2000 // us))} put:{i}:{r}:1000:1"
             for i, (r, us) in enumerate(zip(requests, kernels_us, strict=True))]  # fmt: skip
    figures = play(backend, *steps, "run:500 mark run:10000 report")
    found = errors(figures, requests)
    assert figures.sum >= 97
    assert sum(found) / len(found) <= 1
    assert max(found) <= 2
    for t in figures.tenant.values():
        assert abs(t["counted"] - t["held"]) < 0.5


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    backend=st.sampled_from(["hwslice", "lease"]),
    tenants=st.lists(
        st.tuples(st.integers(10, 990), st.sampled_from([50, 300, 1000, 4000, 20000])), min_size=2, max_size=6
    ),
)
def test_shares_hold_whatever_the_mix(play, backend, tenants):
    requests = [max(10, request * 1000 // sum(r for r, _ in tenants)) for request, _ in tenants]
    steps = [f"flood:{i}:{us}:{max(1, min(64, 2000 // us))} put:{i}:{requests[i]}:1000:1"
             for i, (_, us) in enumerate(tenants)]  # fmt: skip
    # Who hops is found out in its first rounds, of half a second each for many; what it was short of is made good then.
    figures = play(backend, *steps, "run:3000 mark run:10000 report")
    found = errors(figures, requests)
    assert figures.sum >= 97
    assert sum(found) / len(found) <= 1
    assert max(found) <= 2


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


def test_a_step_synchronous_tenant_gets_its_time_beside_a_deep_queue(play):
    figures = play(
        "hwslice", "step:0:1000:50 put:0:300:1000:1 flood:1:1000 put:1:700:1000:1 run:500 mark run:5000 report"
    )
    assert abs(figures.held(0) - 30) <= 1
    assert figures.sum >= 98


def test_others_fill_the_gaps_of_a_tenant_that_cannot_use_its_turns(play):
    figures = play(
        "hwslice", "burst:0:1000:8:5000 put:0:300:1000:1 flood:1:2000 put:1:700:1000:1 run:500 mark run:5000 report"
    )
    assert abs(figures.held(0) - 30) <= 1
    assert figures.sum >= 97
    # Asks for more than it can use (8 of 13 ms): it gets what it can use, the other all the rest.
    figures = play(
        "hwslice", "burst:0:1000:8:5000 put:0:700:1000:1 flood:1:2000 put:1:300:1000:1 run:500 mark run:5000 report"
    )
    assert figures.held(0) > 55
    assert figures.sum >= 96


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


@both
def test_tenants_come_and_go(play, backend):
    figures = play(
        backend,
        "flood:0:1000:2 put:0:300:1000:1 flood:1:1000:2 put:1:700:1000:1 run:700 kill:1 run:20 mark run:1000 report",
    )
    assert figures.held(0) >= 99
    figures = play(
        backend, "put:0:250:1000:1 flood:0:1000:2 run:300 put:1:250:1000:1 flood:1:1000:2 run:300",
        "put:2:500:1000:1 flood:2:500:4",
        "run:400 gone:1 kill:1 put:3:250:1000:1 flood:3:3000:1 run:500 mark run:5000 report",
    )  # fmt: skip
    assert [round(figures.held(i)) for i in (0, 2, 3)] == pytest.approx([25, 50, 25], abs=1)


def test_every_context_of_a_process_counts_for_its_tenant(play):
    figures = play(
        "hwslice",
        "flood:0:1000 beside:0:1000 put:0:300:1000:1 flood:1:1000 put:1:700:1000:1 run:700 mark run:5000 report",
    )
    assert abs(figures.tenant[0]["counted"] - 30) <= 1
    assert abs(figures.held(1) - 70) <= 1


def test_a_context_made_later_is_found(play):
    figures = play("hwslice", f"{THIRTY_SEVENTY} run:500 beside:0:1000 run:500 mark run:5000 report")
    assert abs(figures.tenant[0]["counted"] - 30) <= 1
    assert abs(figures.held(1) - 70) <= 1


def test_programs_that_are_nobodys_are_seen_and_subtracted(play):
    figures = play(
        "hwslice",
        "outside:1000 flood:0:1000 put:0:300:1000:1 flood:1:1000 put:1:700:1000:1 run:500 mark run:5000 report",
    )
    assert figures.card["outside_ms"] > 100, "its time slices are the driver's, far shorter than theirs"
    assert figures.held(0) / figures.held(1) == pytest.approx(3 / 7, rel=0.05)


@pytest.mark.parametrize("n", [3, 7, 20])
def test_refused_control_calls_cost_accuracy_for_a_moment_only(play, n):
    figures = play(
        "hwslice", f"{THIRTY_SEVENTY} run:500 fail:{n} run:1000",
        "fail:0 run:1500 mark run:5000 report",
    )  # fmt: skip
    assert figures.card["failed"] > 0
    assert abs(figures.held(0) - 30) <= 1
    assert figures.sum >= 97


def test_a_process_that_takes_a_while_to_end_is_no_failure_of_control(play):
    """Its descriptors are gone before it is: on an H200 twelve calls for such processes gave up the whole card."""
    steps = "ending:0 run:1000 kill:0 run:1000 mark run:5000 report"
    figures = play("hwslice", f"{THIRTY_SEVENTY} flood:2:1000 put:2:200:1000:1 run:500 {steps}")
    assert figures.card["failed"] == 0
    assert abs(figures.held(2) - 100 * 200 / 900) <= 0.5


def test_lost_and_disordered_records_do_not_carry_the_shares_away(play):
    for begin_ms in (450, 490, 540, 600):
        figures = play("hwslice", f"{THIRTY_SEVENTY} run:{begin_ms} mark", *["lose:3 run:250"] * 20, "report")
        assert abs(figures.held(0) - 30) <= 3
        assert figures.sum >= 99
    figures = play("hwslice", f"{THIRTY_SEVENTY} shuffle run:500 mark run:5000 report")
    assert abs(figures.held(0) - 30) <= 0.5, "they are put in order"
    assert figures.sum >= 99


def test_a_stop_that_is_undone_from_inside_is_seen_and_repeated(play):
    figures = play(
        "hwslice", "flood:0:1000 put:0:100:1000:1 flood:1:1000 put:1:900:1000:1 run:500 suspend:0 run:50 mark",
        *["undo:0 run:50"] * 20, "report",
    )  # fmt: skip
    assert figures.tenant[0]["hostile"] == 3, "each within 50 ms; then it was frozen"
    assert figures.held(0) < 2


@pytest.mark.parametrize("after_ms", [1, 2, 3, 4, 5, 6, 8, 30])
@pytest.mark.parametrize("beside", ["", "flood:1:1000 put:1:900:1000:1"])
def test_a_stop_is_repeated_within_50_ms_however_soon_it_was_undone(play, beside, after_ms):
    """Alone on the card it keeps it, and nothing in the log tells of it."""
    within_ms = 110 if beside else 50  # the other's time slice is over first
    steps = f"flood:0:1000 put:0:100:1000:1 {beside} run:500 suspend:0 run:{after_ms} undo:0 run:{within_ms}"
    assert play("hwslice", steps, "report").tenant[0]["hostile"] == 1
    assert play("hwslice", steps, "mark run:500 report").held(0) == 0
    thrice = " ".join([f"undo:0 run:{after_ms} undo:0 run:{within_ms}"] * 3)
    assert play("hwslice", steps, thrice, "mark run:500 report").tenant[0]["frozen"] == 1


HONEST = {
    "takes turns": "",
    "is held to a limit": "put:0:300:300:1",
    "is suspended": "suspend:0",
    "makes a context while it is stopped": "suspend:0 run:50 beside:0:1000",
    "makes a context in its turns": "beside:0:1000",
    "falls idle and wakes": "pause:0 run:200 go:0",
    "is put out and back": "suspend:0 run:100 resume:0 run:100 suspend:0 run:100 resume:0",
}


@pytest.mark.parametrize("trouble", ["", "shuffle", "fail:3", "late:3", "late:12", "late:40", "lose:5"])
@pytest.mark.parametrize("kernel", ["flood:0:1000", "flood:0:100000:2", "step:0:900:50", "burst:0:1000:8:5000"])
def test_nobody_is_accused_who_did_nothing(play, kernel, trouble):
    """Long kernels, records that are late, lost or out of order, calls that are refused, contexts not yet known."""
    for act in HONEST.values():
        figures = play(
            "hwslice", f"{kernel} put:0:300:1000:1 step:1:1000:50 put:1:700:1000:1 run:500 {trouble} {act}",
            "run:700 resume:0 run:500 report",
        )  # fmt: skip
        assert [tenant["hostile"] for tenant in figures.tenant.values()] == [0, 0]


def test_a_channel_made_while_its_group_is_stopped_is_stopped_too_and_no_defiance(play):
    steps = "flood:0:1000 put:0:100:1000:1 run:500 suspend:0 run:50 grow:0 undo:0 run:50"
    assert play("hwslice", steps, "report").tenant[0]["hostile"] == 0
    assert play("hwslice", steps, "mark run:500 report").held(0) == 0
    assert play("hwslice", steps, "undo:0 run:50 report").tenant[0]["hostile"] == 1, "it has no more than it had"


def test_who_undoes_its_stops_again_and_again_is_frozen_while_it_is_stopped(play):
    stopped = "flood:0:1000 put:0:100:1000:1 flood:1:1000 put:1:900:1000:1 run:500 suspend:0 run:50 mark"
    undone = " ".join(["undo:0 run:50"] * 20)
    figures = play("hwslice", stopped, undone, "report")
    assert figures.tenant[0]["frozen"] == 1
    assert figures.tenant[0]["hostile"] == 3, "each was seen within 50 ms, and the fourth did not happen"
    assert figures.held(0) < 2
    assert figures.held(1) > 98, "nobody else's share suffers by it"
    figures = play("hwslice", stopped, undone, "resume:0 run:500 mark run:2000 report")
    assert figures.tenant[0]["frozen"] == 0
    assert abs(figures.held(0) - 10) <= 1


@pytest.mark.parametrize("every_ms", [5, 20, 60])
@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
def test_who_is_resumed_by_somebody_else_is_frozen_first_and_not_blamed(play, load, every_ms):
    """Tenant 1 resumes tenant 0 again and again; 20 acts would end it."""
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 300, 200, 200)))
    figures = play("hwslice", f"{tenants} run:2000 meddle:1:0:{every_ms} run:2000 mark run:60000 report")
    assert figures.tenant[0]["hostile"] <= 3
    assert [round(figures.held(i)) for i in range(4)] == pytest.approx([30, 30, 20, 20], abs=1)
    assert figures.tenant[0]["rescued"] > 0 or load.startswith("flood"), "floods are not stopped: they rotate"
    suspended = f"{tenants} run:2000 suspend:0 run:50 meddle:1:0:{every_ms} run:2000"
    figures = play("hwslice", suspended, "mark run:120000 report")
    assert figures.tenant[0]["hostile"] == 3, "and not three in each minute"
    assert figures.held(0) == 0
    figures = play("hwslice", suspended, "run:1000 resume:0 run:500 mark run:5000 report")
    assert abs(figures.held(0) - 30) <= 1, "and it goes on"


def test_what_a_signal_froze_somebody_else_may_have_let_go_so_it_is_blamed(play):
    tenants = " ".join(f"step:{i}:1000:50 put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 300, 200, 200)))
    steps = f"{tenants} run:2000 meddle:1:0:60 run:30000 report"
    assert play("hwslice", "signals", steps).tenant[0]["hostile"] > 20
    assert play("hwslice", steps).tenant[0]["hostile"] == 3


@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
@pytest.mark.parametrize("requests", [(500, 500), (300, 700), (700, 300)])
def test_who_is_stopped_by_somebody_else_goes_on_within_50_ms(play, requests, load):
    """The others keep their shares over that second; where turns are taken, what was left of the turn is lost."""
    points = 2 if load.startswith("flood") else 5  # a turn is up to 50 ms of the second
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate(requests))
    for when_ms in (0, 7, 16, 30):
        steps = f"{tenants} run:{2000 + when_ms} bar:0"
        assert play("hwslice", steps, "run:50 mark run:100 report").held(0) > 0
        figures = play("hwslice", steps, "mark run:1000 report")
        assert figures.held(0) >= requests[0] / 10 - points
        assert figures.held(1) >= requests[1] / 10 - points


@pytest.mark.parametrize("requests", [(500, 500), (300, 700), (700, 300)])
def test_who_is_stopped_by_somebody_else_while_it_waits_is_told_so_within_50_ms(play, requests):
    """In the middle of its time slice it looks as one without work."""
    floods = " ".join(f"flood:{i}:1000 put:{i}:{milli}:1000:1" for i, milli in enumerate(requests))
    told = [play("hwslice", f"{floods} run:{2000 + ms} bar:0 run:50 report") for ms in range(0, 50, 5)]
    assert sum(figures.tenant[0]["rescued"] for figures in told) >= 10 * (1 - requests[0] / 1000) - 2
    assert not any(figures.tenant[1]["rescued"] for figures in told)


def test_time_slices_of_ten_are_long_so_one_that_was_stopped_is_missed_after_a_round(play):
    tenants = " ".join(f"flood:{i}:1000 put:{i}:100:1000:1" for i in range(10))
    for when_ms in (0, 45, 80, 120):  # while it waits
        figures = play("hwslice", f"{tenants} run:{2000 + when_ms} bar:0 run:320 report")
        assert [tenant["rescued"] for tenant in figures.tenant.values()] == [1] + [0] * 9


def test_who_was_stopped_while_it_had_no_work_goes_on_within_a_second(play):
    steps = "latency:0:1000:20000 put:0:300:1000:0 flood:1:1000 put:1:700:1000:1 run:2000 pause:0 run:100 bar:0 go:0"
    assert play("hwslice", steps, "run:1100 mark run:1000 report").tenant[0]["work"] > 4.9


@pytest.mark.parametrize("pause_us", [500, 2000, 7000, 30000, 120000, 700000])
@pytest.mark.parametrize("beside", ["flood:1:1000", "step:1:1000:50"])
def test_who_pauses_is_not_taken_for_one_that_was_stopped(play, pause_us, beside):
    figures = play(
        "hwslice",
        f"burst:0:1000:500:{pause_us} put:0:500:1000:1 {beside} put:1:500:1000:1 run:500 mark run:20000 report",
    )
    assert [tenant["rescued"] for tenant in figures.tenant.values()] == [0, 0]
    assert figures.card["control"] <= 2


def test_a_time_slice_that_a_tenant_sets_for_itself_is_seen_and_set_back(play):
    steps = f"{THIRTY_SEVENTY} run:1000 mark"
    assert play("hwslice", steps, "run:500 report").tenant[0]["hostile"] == 0
    figures = play("hwslice", steps, "widen:0:90000 run:50 report")
    assert figures.tenant[0]["hostile"] == 1, "within 50 ms"
    figures = play("hwslice", steps, "widen:0:90000 run:1000 report")
    assert (figures.tenant[0]["hostile"], figures.tenant[1]["hostile"]) == (1, 0)
    assert figures.held(1) >= 70 - 2
    assert play("hwslice", steps, "widen:0:90000 run:200 mark run:1000 report").held(1) >= 70 - 0.5


FAULTS = {
    "a holder is killed": "kill:2",
    "one takes a while to end": "ending:2 run:300 kill:2",
    "one that is stopped is killed": "suspend:2 run:20 kill:2",
    "one that is stopped exits": "suspend:2 run:20 ending:2 run:300 kill:2",
    "one's context has a fault": "fault:2",
    "one that is stopped has a fault": "suspend:2 run:20 fault:2",
    "one has a fault while it takes its turns, and is killed": "fault:2 run:200 kill:2",
    "one falls idle": "pause:2",
    "one is taken away": "gone:2 kill:2",
    "half of the calls are refused for 50 ms": "fail:2 run:50 fail:0",
    **{
        f"the driver refuses {kind} 3 times": f"refuse:{kind}:3"
        for kind in ("set", "stop", "resume", "preempt", "flush")
    },
    "records come out of order from now on": "shuffle",
    "one undoes its stop": "suspend:2 run:20 undo:2",
    "a checkpoint takes hold of one and lets go": "lock:2 run:300 unlock:2",
    "a checkpoint takes hold of one that is stopped": "suspend:2 run:20 lock:2 run:300 unlock:2",
    "our clock leaps ahead": "leap:10000",
    "the card's clock leaps ahead": "cardleap:3600000",
    "the card's clock is set back": "cardback:2500",
}
PHASES_MS = (0, 17, 60, 132, 155)
"""Turns of three that hop are up to 83 ms in 167: what a fault does depends on whose turn it meets."""


@pytest.mark.parametrize("load", ["flood", "step"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_others_keep_their_shares_in_the_second_of_a_fault(play, load, fault):
    """Nobody else's share suffers by more than 2 points over the second in which it happens."""
    kernel = "1000" if load == "flood" else "1000:50"
    tenants = " ".join(f"{load}:{i}:{kernel} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    words = FAULTS[fault].format(come=f"{load}:2:{kernel}")
    rest_ms = 1000 - sum(int(ms) for ms in re.findall(r"\brun:(\d+)", words))
    for after_ms in PHASES_MS:
        figures = play("hwslice", tenants, f"run:{3000 + after_ms} mark", words, f"run:{rest_ms} report")
        assert figures.held(0) >= 30 - 2
        assert figures.held(1) >= 50 - 2


def short_processes(load, n):
    """One after the other, each with a context for 10 ms of 60: making one takes far longer on a real card."""
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    return f"{tenants} run:3000 mark " + f"kill:2 run:50 {load.format(2)} run:10 " * n


@pytest.mark.parametrize(
    ("load", "n"),
    [
        ("flood:{}:1000", 500),
        ("step:{}:1000:50", 100),
        ("flood:{}:1000", 10_000),
    ],
)
def test_many_short_processes_in_a_row_cost_the_others_nothing_and_leave_nothing(play, load, n):
    steps = short_processes(load, n)
    figures = play("hwslice", steps, "report")
    assert figures.held(0) >= 30 - 2
    assert figures.held(1) >= 50 - 2
    figures = play("hwslice", steps, "run:1000 mark run:5000 report")
    assert [round(figures.held(i)) for i in range(3)] == pytest.approx([30, 50, 20], abs=1)


@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
def test_a_card_that_falls_off_costs_those_of_another_card_nothing(play, load):
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    for after_ms in (0, 17):
        steps = f"cards:2 card:0 {tenants} card:1 {tenants} run:{4000 + after_ms} mark card:1 xid:79 run:1000"
        figures = play("hwslice", steps, "card:0 report")
        assert figures.held(0) >= 30 - 2
        assert figures.held(1) >= 50 - 2
        assert figures.held(2) >= 20 - 2


@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
@pytest.mark.parametrize(
    "act",
    [
        "suspend:2 run:20 lock:2 run:300 unlock:2 resume:2",
        "suspend:2 run:20 lock:2 run:300 resume:2 run:300 unlock:2",
        "leap:10000",
        "cardleap:3600000",
        "cardback:2500",
    ],
)
def test_after_a_checkpoints_hold_or_a_leap_of_a_clock_all_is_as_it_was(play, load, act):
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    figures = play("hwslice", tenants, f"run:3000 {act} run:2000 mark run:3000 report")
    assert [round(figures.held(i)) for i in range(3)] == pytest.approx([30, 50, 20], abs=1)


@pytest.mark.parametrize("act", ["leap:10000", "cardleap:3600000", "cardback:2500"])
def test_a_leap_of_a_clock_is_no_defiance_and_leaves_a_limit_as_it_was(play, act):
    steps = f"flood:0:1000 put:0:300:300:1 step:1:1000:50 put:1:500:1000:1 run:3000 {act} run:7 {act} run:500"
    figures = play("hwslice", steps, "mark run:3000 report")
    assert abs(figures.held(0) - 30) <= 1


@pytest.mark.parametrize(
    ("load", "fault", "points"),
    [
        ("flood:2:1000", "kill:2 run:300 mark flood:2:1000", 2),
        # It takes its first turns as if it filled the card, until it is seen to hop.
        ("step:2:1000:50", "kill:2 run:300 mark step:2:1000:50", 3),
    ],
)
def test_who_comes_costs_the_others_little(play, load, fault, points):
    other = load.replace(":2:", ":{}:")
    tenants = " ".join(f"{other.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    for after_ms in PHASES_MS:
        figures = play("hwslice", tenants, f"run:{3000 + after_ms} mark", fault, "run:1000 report")
        assert figures.held(0) >= 30 - points
        assert figures.held(1) >= 50 - points


@pytest.mark.parametrize("n_lost", [1, 2, 4, 16, 64])
@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
def test_whoever_had_the_card_while_records_were_lost_everybody_keeps_its_share(play, load, n_lost):
    """64 of floods are 600 ms of the second. What nobody knows is shared out, and the smallest pays for its edges."""
    tenants = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in enumerate((300, 500, 200)))
    for after_ms in PHASES_MS:
        figures = play("hwslice", tenants, f"run:{3000 + after_ms} mark lose:{n_lost} run:1000 report")
        assert figures.held(0) >= 30 - 2
        assert figures.held(1) >= 50 - 2
        assert figures.held(2) >= 20 - (3 if n_lost == 64 else 2)
        figures = play("hwslice", tenants, f"run:{3000 + after_ms} lose:{n_lost} run:1000 mark run:2000 report")
        assert [round(figures.held(i)) for i in range(3)] == pytest.approx([30, 50, 20], abs=1)


def test_a_tenant_that_falls_idle_while_the_log_cannot_be_read_is_found_idle_and_pays_for_nothing(play):
    """Until it can be read again it is taken to work on."""
    tenants = "step:0:1000:50 put:0:500:1000:1 step:1:1000:50 put:1:500:1000:1"
    figures = play("hwslice", tenants, "run:3000 refuse:flush:5 pause:0 run:300 mark run:1000 report")
    assert figures.held(1) >= 98
    figures = play("hwslice", tenants, "run:3000 refuse:flush:5 pause:0 run:300 go:0 run:500 mark run:2000 report")
    assert abs(figures.held(0) - 50) <= 1


def test_a_card_that_falls_off_hangs_nothing_and_is_good_again_when_it_recovers(play):
    figures = play(
        "hwslice", f"{THIRTY_SEVENTY} run:1000 xid:79 run:1000 recover:0 kill:0 kill:1",
        "flood:2:1000 put:2:300:1000:1 flood:3:1000 put:3:700:1000:1 run:2500 mark run:3000 report",
    )  # fmt: skip
    assert abs(figures.held(2) - 30) <= 1
    assert abs(figures.held(3) - 70) <= 1


@pytest.mark.parametrize("load", ["flood:{}:1000", "step:{}:1000:50"])
def test_a_changed_request_holds_within_100_ms(play, load):
    both_put = " ".join(f"{load.format(i)} put:{i}:{milli}:1000:1" for i, milli in ((0, 300), (1, 700)))
    figures = play("hwslice", both_put, "run:3000 put:0:500:1000:1 put:1:500:1000:1 run:100 mark run:1000 report")
    assert abs(figures.held(0) - 50) <= 2


def test_a_changed_limit_holds_within_100_ms(play):
    figures = play("hwslice", "flood:0:1000 put:0:300:300:1 run:1000 put:0:600:600:1 run:100 mark run:1000 report")
    assert abs(figures.held(0) - 60) <= 1


@both
def test_a_suspended_tenant_has_nothing(play, backend):
    steps = "flood:0:1000:2 put:0:500:1000:1 flood:1:1000:2 put:1:500:1000:1 run:500 suspend:0 run:50"
    figures = play(backend, steps, "mark run:1000 report")
    assert figures.held(0) == 0
    assert figures.held(1) >= 99
    figures = play(backend, steps, "resume:0 run:200 mark run:2000 report")
    assert abs(figures.held(0) - 50) <= 2


def test_a_holder_that_never_drains_is_passed_over_in_bounded_time(play):
    figures = play(
        "lease",
        "flood:0:1000:2 put:0:500:1000:1 flood:1:1000:2 put:1:500:1000:1 run:500 freeze:0 run:600 mark run:1000 report",
    )
    assert figures.held(1) >= 95


def test_control_calls_take_a_bounded_part_of_the_time(play):
    figures = play(
        "hwslice", "flood:0:1000 put:0:500:1000:1 flood:1:1000 put:1:500:1000:1 run:500 mark run:5000 report"
    )
    assert figures.card["control"] < 2
    figures = play("hwslice", "flood:0:1000 put:0:500:1000:1 run:500 mark run:5000 report")
    assert figures.card["control"] < 0.5
