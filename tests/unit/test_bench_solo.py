"""Solo runs: what stands between two that agree counts, what does not is measured again and told."""

from pathlib import Path

import pytest

from flexai.apps.bench.frame import Run
from flexai.apps.bench.slicing import solo, whole
from flexai.apps.bench.slicing.solo import Alone, Around, Solos, alone
from flexai.apps.bench.tenants import IDLE, RUN, Load, rest


class Machine:
    """A clock; programs that are told to run have ended so many iterations a second as the machine lets them."""

    def __init__(self, monkeypatch):
        self.now_s, self.programs = 900.0, []
        monkeypatch.setattr(solo.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(solo.time, "sleep", self._sleep)
        monkeypatch.setattr(solo, "stolen_s", lambda: 0.25 * self.now_s)

    def _sleep(self, seconds):
        for _ in range(max(1, round(seconds / 0.001))):
            self.now_s += 0.001
            for program in self.programs:
                program.goes_on(self.now_s)


class Program:
    def __init__(self, machine, kind="flood", rate=1000.0, queued=0):
        self.load, self.per_s, self.order_, self._n, self._at_s = Load(500, 500.0, kind=kind), rate, IDLE, 0.0, 0.0
        self.queued, self.ran_s, self._machine = queued, 0.0, machine
        machine.programs.append(self)

    def goes_on(self, now_s):
        if self.order_ == RUN or self.queued > 0:
            self._n, self._at_s = self._n + self.per_s / 1000, now_s
            self.queued -= self.order_ == IDLE
            self.ran_s += 0.001

    def order(self, order):
        self.order_ = order

    def counted(self):
        return int(self._n), round(self._at_s * 1e9)


def run(*, quick=False):
    return Run(quick, 1, print, Path())


def test_a_solo_run_tells_its_rate_its_scatter_and_what_the_host_took(monkeypatch):
    program = Program(Machine(monkeypatch))
    found = alone(program, 1.0)
    assert found.rate == pytest.approx(1000, rel=0.01)
    assert found.error < 5
    assert [stolen for _, _, stolen in found.samples] == pytest.approx([0.25] * 4, rel=0.02)
    assert program.order_ == IDLE


def test_what_stands_between_solo_runs_that_agree_counts_at_once(monkeypatch):
    machine = Machine(monkeypatch)
    pair = [Program(machine), Program(machine, "step", 400.0)]
    got, around = Solos(run(), pair).between(lambda: "measured")
    assert (got, around.void, around.left_out) == ("measured", "", ())
    assert around.work([500, 100]) == pytest.approx([50, 25], rel=0.01)
    assert "measured again" not in around.note


def test_what_a_machine_that_changed_makes_void_is_measured_again_from_the_later_solo_run_on(monkeypatch):
    program = Program(Machine(monkeypatch), "torch-gpt", 50.0)
    calls = []

    def take():
        calls.append(program.per_s)
        program.per_s = 60.0  # once, during the first
        return len(calls)

    got, around = Solos(run(), [program]).between(take)
    assert (got, around.void) == (2, "")
    assert around.left_out == pytest.approx([0.2], abs=0.02)
    assert around.rate(program) == pytest.approx(60, rel=0.02)
    assert "measured again, as solo rates had drifted by" in around.note


def test_what_never_agrees_is_void_after_so_many_tries_and_in_a_quick_run_after_one(monkeypatch):
    program = Program(Machine(monkeypatch), "torch-gpt", 50.0)
    calls = []

    def take():
        calls.append(1)
        program.per_s *= 1.1

    solos = Solos(run(), [program])
    _, around = solos.between(take)
    assert "drifted by" in around.void
    assert len(calls) == 1 + solo.MOST_REPEATS
    assert "drifted by" in solos.between(take)[1].void
    assert len(calls) == 2 + solo.MOST_REPEATS, "the tries are those of a program, not of each of its limits"
    calls.clear()
    assert Solos(run(quick=True), [program]).between(take)[1].void
    assert len(calls) == 1


def test_nothing_is_measured_again_that_there_is_no_time_for(monkeypatch):
    machine = Machine(monkeypatch)
    program = Program(machine, "torch-gpt", 50.0)
    calls = []

    def take():
        calls.append(1)
        machine._sleep(10.0)
        program.per_s *= 1.1

    short = run()
    short.spare.left_s = 15.0  # one more, with its solo run, not two
    assert "drifted by" in Solos(short, [program]).between(take)[1].void
    assert len(calls) == 2
    assert short.spare.left_s < 5


def test_tenants_rest_once_all_their_queues_are_empty(monkeypatch):
    machine = Machine(monkeypatch)
    short, long = Program(machine, queued=10), Program(machine, queued=700)
    rest([short, long])
    assert long.queued <= 0
    assert 900.9 < machine.now_s < 901.1
    rest([Program(machine, queued=10**6)], most_s=1.0)
    assert machine.now_s < 902.3


def rates(*per_s):
    return [Alone(rate, 0.0, 1980.0) for rate in per_s]


def loss(helds, frees, n=3):
    return whole._loss("launch-bound (step)", 1.0, whole._Turns(n, 16, 0.6, 0.3), rates(*helds), rates(*frees))


def test_turns_in_which_the_machine_changed_are_left_out_of_a_loss_and_too_few_make_it_void():
    row = loss((99, 99, 120, 119, 99), (100, 100, 120, 120, 120, 100))
    assert row.samples == pytest.approx((1, 0, 0.833), abs=0.01)
    assert row.got == pytest.approx(0.833, abs=0.01)
    assert not row.void
    assert "3 of 5 turns count" in row.note
    row = loss((99, 99, 120), (100, 110, 120, 120))
    assert "1 of 3 turns count, 3 are needed" in row.void
    assert row.got == pytest.approx(5.71, abs=0.01), "shown, of all turns, though not judged"


def test_a_loss_whose_scatter_is_greater_than_what_is_judged_is_void():
    assert "standard error" in loss((90, 110, 95), (100, 100, 100, 100)).void
    assert not loss((99.9, 100, 100.1), (100, 100, 100, 100)).void


def test_turns_go_on_until_enough_of_them_count(monkeypatch):
    machine = Machine(monkeypatch)
    inside, free = Program(machine, rate=990.0), Program(machine)
    turns = whole._Turns(2, 9, 0.5, 0.1)
    helds, frees = whole._by_turns(inside, free, turns)
    assert (len(helds), len(frees)) == (2, 3)
    assert whole._losses(helds, frees) == pytest.approx([1, 1], abs=0.2)


def test_a_card_that_changed_in_between_makes_void_whatever_program_shows_it():
    class Tenant:
        load = Load(500, 500.0)

    name = Tenant.load.program
    same = Around((Tenant(),), {name: rates(100)[0]}, {name: rates(100.9)[0]})
    other = Around((Tenant(),), {name: rates(100)[0]}, {name: rates(98.9)[0]})
    assert (same.void, other.void) == ("", "a solo rate drifted by 1.1 %")
