"""Loads of a tenant: several processes begin and end together, and what they wrote last is told; memory by phases."""

import subprocess
import time

from flexai.apps.bench.slicing.memory import CALLS, END, START, Phase, split
from flexai.apps.bench.tenants import Load, last_lines


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
