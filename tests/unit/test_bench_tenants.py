"""Loads of a tenant: several processes begin and end together, and what they wrote last is told; memory by phases."""

import subprocess
import time

import pytest

from flexai.apps.bench import tenants
from flexai.apps.bench.frame import Run
from flexai.apps.bench.slicing import limits
from flexai.apps.bench.slicing.memory import CALLS, END, START, Phase, split
from flexai.apps.bench.tenants import Load, last_lines, rate_between, rates_per_s, steady


def test_a_job_of_several_processes_ends_when_one_of_them_fails(tmp_path, monkeypatch):
    script = tmp_path / "program"
    script.write_text('#!/bin/sh\ncase "$*" in *bad*) echo no memory >&2; exit 12;; *) exec sleep 60;; esac\n')
    script.chmod(0o755)
    monkeypatch.setattr("flexai.apps.bench.tenants.program", lambda _: script)
    load = Load(500, 1.0, n_processes=2)
    began = time.monotonic()
    with (tmp_path / "wrote").open("w+b") as wrote:
        words = load.job([tmp_path / "good", tmp_path / "bad"])
        done = subprocess.run(words, stderr=wrote, check=False, start_new_session=True)
    assert done.returncode == 1
    assert time.monotonic() - began < 50
    assert last_lines((tmp_path / "wrote").read_bytes()) == "no memory | process 2 of 2 ended with exit code 12"


def test_a_job_of_several_processes_ends_when_all_have(tmp_path, monkeypatch):
    monkeypatch.setattr("flexai.apps.bench.tenants.program", lambda _: "true")
    done = subprocess.run(Load(500, 1.0, n_processes=2).job([tmp_path, tmp_path]), check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_of_what_a_program_wrote_the_last_lines_are_told():
    assert last_lines(b"") == "nothing"
    assert last_lines(b"1\n2\n\n 3\n4\n5\n") == "2 | 3 | 4 | 5"


def test_memory_seen_is_told_by_the_phase_in_which_it_was_seen():
    ms = 1_000_000
    tenant = {"ready_ns": [100 * ms, 200 * ms], "stopped_ns": [500 * ms, 510 * ms]}
    spans = [[0, 5, ms], [150 * ms, 7, 120 * ms], [300 * ms, 9, 3 * ms], [490 * ms, 8, 4 * ms], [505 * ms, 6, 30 * ms]]
    assert split(spans, tenant) == {START: Phase(7, 120.0), CALLS: Phase(9, 4.0), END: Phase(6, 30.0)}


class Program:
    """A tenant that is seen as the clock goes: nothing for ``silent_s``, then faster until ``warm_s``, then 1,000/s."""

    def __init__(self, monkeypatch, silent_s, warm_s, kind="torch-resnet"):
        self.now_s, self.n, self.last_s = 500.0, 0.0, 0.0
        self.silent_s, self.warm_s = 500.0 + silent_s, 500.0 + warm_s
        self.load = Load(1000, 0.0, kind=kind)
        monkeypatch.setattr(tenants.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(tenants.time, "sleep", self._sleep)

    def _sleep(self, seconds):
        for _ in range(round(seconds / 0.005)):
            self.now_s += 0.005
            if self.now_s >= self.silent_s:
                warm = min(1.0, (self.now_s - self.silent_s) / max(self.warm_s - self.silent_s, 1e-9))
                self.n, self.last_s = self.n + 5 * warm**3, self.now_s

    def order(self, order):
        pass

    def counted(self):
        return int(self.n), round(self.last_s * 1e9)


def test_a_program_that_still_warms_up_is_waited_for_and_one_that_is_warm_is_not(monkeypatch):
    program = Program(monkeypatch, silent_s=1.5, warm_s=4.0)
    assert steady(program, 0.5)
    assert 504 < program.now_s <= 505
    assert abs(rates_per_s([program], 1.0, 0.0)[0] - 1000) < 10
    began_s = program.now_s
    assert steady(program, 1.0)
    assert program.now_s - began_s <= 1.01


def test_what_is_never_steady_is_waited_for_no_longer_than_told_and_programs_in_c_not_at_all(monkeypatch):
    assert not steady(program := Program(monkeypatch, silent_s=1.0, warm_s=60.0), 0.5)
    assert program.now_s <= 506.5
    steady(program := Program(monkeypatch, silent_s=1.0, warm_s=60.0, kind="flood"), 1.0)
    assert program.now_s <= 501.25


def test_a_rate_before_the_first_iteration_has_ended_is_not_taken_since_the_machine_began():
    """Of a program that had ended nothing yet this was 1/125 of its rate: the time since the machine's start."""
    assert rate_between((0, 0), (50, 90_000_000_000), 1.0) == 50
    assert rate_between((10, 1_000_000_000), (60, 1_500_000_000), 1.0) == 100
    assert rate_between((10, 1_000_000_000), (10, 1_000_000_000), 1.0) == 0


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("has_torch", [False, True])
def test_who_is_given_limits_has_not_all_of_a_cards_memory_or_its_share_could_not_be_lowered(
    monkeypatch, tmp_path, bare, has_torch
):
    monkeypatch.setattr(limits, "has_torch", lambda: has_torch)
    found = limits._programs(Run(False, 1, print, tmp_path), bare=bare)
    assert len(found) >= 3
    assert all(load.memory_bytes > 0 for _, load, _ in found)
