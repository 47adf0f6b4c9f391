"""Stops and time slices that somebody undoes or sets, and who is blamed, in one virtual time with a model of a card."""

import pytest

THIRTY_SEVENTY = "flood:0:1000 put:0:300:1000:1 flood:1:1000 put:1:700:1000:1"


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
    for when_ms in (0, 45, 80, 100):  # while it waits
        figures = play("hwslice", f"{tenants} run:{2000 + when_ms} bar:0 run:350 report")
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
