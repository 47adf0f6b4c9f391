"""Loads of a tenant: several processes begin and end together, and what they wrote last is told."""

import subprocess
import time

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
