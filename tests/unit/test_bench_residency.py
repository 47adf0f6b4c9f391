"""Card time of windows by the card's log: exact at the edges, told as such where the log cannot know it."""

import pytest

from flexai.apps.bench.slicing import windows
from flexai.apps.bench.slicing.residency import between_stops, by_log
from flexai.apps.bench.slicing.windows import measure, over
from flexai.ports import DeviceUsage, TenantUsage, Usage
from flexai.wire.timeline import Kind, Record

MS = 1_000_000
START = 10_000 * MS
AHEAD = 5_000_000 * MS
"""Of our clock: the card's own is another one."""


def record(kind, at_ms, tenant="a", context=1):
    at_ns = START + round(at_ms * MS)
    card_ns = at_ns + AHEAD if kind in {Kind.RUNS, Kind.LEFT} else 0
    return Record(at_ns, card_ns, 1, context, "GPU", tenant, kind)


def edges(*at_ms):
    return [START + one * MS for one in at_ms]


def held_ms(told, tenants, *at_ms):
    found = by_log(told, tenants, edges(*at_ms))
    return [[one / MS for one in window] for window in found.held_ns], found.doubt


def limited(period_ms, part, n, tenant="a"):
    """What is told of a lone tenant under a limit: it comes with each resume and leaves with each stop."""
    told = []
    for number in range(n):
        began_ms = number * period_ms
        told += [record(Kind.RESUMED, began_ms, tenant), record(Kind.RUNS, began_ms + 0.02, tenant)]
        ended_ms = began_ms + 0.02 + period_ms * part
        told += [record(Kind.LEFT, ended_ms, tenant), record(Kind.STOPPED, ended_ms + 0.1, tenant)]
    return told


def test_what_is_cut_by_an_edge_belongs_to_both_windows():
    told = [
        record(Kind.RUNS, 0, "a"), record(Kind.LEFT, 30, "a"), record(Kind.RUNS, 30, "b"), record(Kind.LEFT, 90, "b"),
        record(Kind.RUNS, 90, "a"),
    ]  # fmt: skip
    assert held_ms(told, ["a", "b"], 10, 50, 100) == ([[20, 20], [10, 40]], "")


def test_who_has_the_card_since_long_before_the_window_has_it():
    told = [record(Kind.RUNS, -60_000, "a"), record(Kind.LEFT, 40, "a"), record(Kind.RUNS, 40, "b")]
    assert held_ms(told, ["a", "b"], 0, 100) == ([[40, 60]], "")


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.9])
def test_a_lone_tenant_under_a_limit_is_told_exactly_between_its_stops_wherever_the_window_begins(part):
    told = limited(90, part, 80)
    cuts = []
    for first_ms in range(500, 590, 7):
        from_ns, to_ns = edges(first_ms, first_ms + 5000)
        (window,), doubt = held_ms(told, ["a"], first_ms, first_ms + 5000)
        found = between_stops(told, "a", from_ns, to_ns)
        cuts.append(window[0] / 50)
        assert doubt == ""
        assert found.n in {54, 55}
        assert 100 * found.part == pytest.approx(100 * part, abs=1e-6)
    assert max(cuts) - min(cuts) > 0.15  # points, by where the window is cut alone


def test_a_tenant_that_is_hardly_stopped_has_no_whole_periods():
    told = [record(Kind.RUNS, 0), record(Kind.LEFT, 2000), record(Kind.STOPPED, 2000), record(Kind.RESUMED, 2050)]
    assert between_stops(told, "a", *edges(0, 5000)) is None
    assert between_stops([], "a", *edges(0, 5000)) is None


def test_of_a_context_alone_on_the_card_that_nobody_stops_the_log_says_nothing():
    alone = [record(Kind.RUNS, -500)]
    assert held_ms(alone, ["a"], 0, 100)[1].startswith("one context alone")
    assert held_ms(limited(50, 0.5, 100), ["a"], 0, 1000)[1] == ""


def test_lost_records_no_log_and_another_arbiter_are_told():
    two = [record(Kind.RUNS, 0, "a"), record(Kind.LEFT, 30, "a"), record(Kind.RUNS, 30, "b")]
    assert held_ms([*two, record(Kind.LOST, 120, context=7)], ["a"], 0, 100)[1].startswith("7 records")
    assert held_ms([record(Kind.LOST, -10, context=7), *two], ["a"], 0, 100)[1] == ""
    assert held_ms([record(Kind.TURN, 0)], ["a"], 0, 100)[1] == "the card has no log"
    assert held_ms([*two, record(Kind.BEGAN, 50)], ["a"], 0, 100)[1] == "the arbiter began anew"


class Stand:
    """A pool whose tenants are on the card by turns; the arbiter's accounts are 20 ms older than their date."""

    def __init__(self, monkeypatch, *, overwrites=0, reads_the_log=True):
        self.now_ns, self.n_missed, self.ring, self.usage, self.told = START, 0, self, self, []
        self._overwrites, self._reads, self._listened_ns = overwrites, reads_the_log, START
        self.overwritten = "records were overwritten"
        monkeypatch.setattr(windows.time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(windows.time, "monotonic", lambda: self.now_ns / 1e9)
        monkeypatch.setattr(windows.time, "sleep", self._sleep)
        monkeypatch.setattr(windows, "begin", lambda _running, settle_s: self._sleep(settle_s))

    def _sleep(self, seconds):
        self.now_ns += round(seconds * 1e9) + 50_000

    def read(self):
        published_ns = self.now_ns - self.now_ns % (100 * MS)
        held_ns = round(0.3 * (published_ns - 20 * MS - START))
        card = DeviceUsage("GPU", "hwslice", "log", 0, 0, 0, 0, "")
        return Usage(self.now_ns, 1, published_ns, (card,), (TenantUsage("1.0", "GPU", held_ns, *[0] * 8),))

    def hear_out(self, until_ns):
        self.now_ns = max(self.now_ns, until_ns + 30 * MS)
        return self._reads

    def listen(self):
        self.n_missed += self._overwrites
        n = round((self.now_ns - START) / MS) // 10
        self.told = []
        for number in range(n):
            tenant = "1.0" if number % 10 < 3 else "2.0"
            self.told += [record(Kind.RUNS, 10 * number, tenant), record(Kind.LEFT, 10 * number + 10, tenant)]
        return self.told


class Program:
    def __init__(self, job, on):
        self.job_id, self._on = job, on

    def counted(self):
        return (self._on.now_ns - START) // MS, self._on.now_ns

    def order(self, order):
        pass


def test_windows_are_a_second_long_and_judged_by_the_log_with_the_accounts_beside_it(monkeypatch):
    on = Stand(monkeypatch)
    found = measure(on, [Program("1", on), Program("2", on)], 3.0)
    assert [window.seconds for window in found] == pytest.approx([1.0, 1.0, 1.0], abs=1e-3)
    together = over(found)
    assert together.parts == pytest.approx((0.3, 0.7), abs=1e-3)
    assert together.accounts[0] == pytest.approx(0.3, abs=1e-3)
    assert together.rates == pytest.approx((1000, 1000), rel=1e-3)
    assert (together.doubt, together.told_by) == ("", "")
    assert together.ended_ns - together.began_ns == pytest.approx(3e9, abs=1e6)


@pytest.mark.parametrize(("how", "why"), [({"overwrites": 3}, "overwritten"), ({"reads_the_log": False}, "not read")])
def test_where_the_log_has_holes_the_accounts_are_taken_and_that_is_said(monkeypatch, how, why):
    on = Stand(monkeypatch, **how)
    together = over(measure(on, [Program("1", on), Program("3", on)], 2.0))
    assert together.parts == together.accounts
    assert together.parts[1] == 0
    assert why in together.told_by
