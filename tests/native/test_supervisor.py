"""The supervisor as the agent starts it: real processes, no agent."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from flexai_native import program


class Run:
    def __init__(self, tmp_path):
        self.dir = tmp_path
        self.token, self.exit, self.log = tmp_path / "token", tmp_path / "exit.json", tmp_path / "log"

    def start(self, *command, env=None, **options):
        environment = self.dir / "env"
        plain = {"PATH": "/usr/bin:/bin"} | (env or {})
        environment.write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in plain.items()))
        flags = {
            "token-file": self.token,
            "exit-file": self.exit,
            "log-file": self.log,
            "env-file": environment,
            **options,
        }
        argv = [str(program("flexai-supervisor"))]
        for name, value in flags.items():
            argv += [f"--{name.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen([*argv, "--", *command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.process.stdout.close()
        return line.strip()

    def ended(self, timeout_s=10):
        self.process.wait(timeout_s)
        return json.loads(self.exit.read_text())


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    yield run
    with contextlib.suppress(AttributeError):
        run.process.kill()
        run.process.wait()


def wait_for(condition, timeout_s=5):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def stat_of(pid):
    """Fields of /proc/<pid>/stat from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def alive(pid):
    try:
        return stat_of(pid)[0] != "Z"
    except OSError:
        return False


def test_it_records_the_exit_code_and_the_output(run):
    assert run.start("sh", "-c", "echo out; echo err >&2; exit 3").startswith("began ")
    ending = run.ended()
    assert (ending["exit_code"], ending["signal"], ending["cause"]) == (3, 0, "exited")
    assert run.log.read_text() == "out\nerr\n"


def test_the_token_names_the_supervisor_and_a_used_token_starts_nothing(run):
    run.start("sleep", "60")
    pid, ticks = run.token.read_text().split()
    assert int(pid) == run.process.pid
    assert stat_of(pid)[19] == ticks
    second = Run(run.dir)
    assert second.start("sh", "-c", f"touch {run.dir}/twice") == "used"
    assert second.process.wait(5) == 75
    assert not (run.dir / "twice").exists()


def test_of_many_supervisors_with_one_token_one_starts(tmp_path):
    runs = [Run(tmp_path) for _ in range(8)]
    lines = [r.start("sh", "-c", f"echo x >> {tmp_path}/starts") for r in runs]
    for r in runs:
        r.process.wait(5)
    assert sorted(line.split()[0] for line in lines) == ["began"] + ["used"] * 7
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_command_that_does_not_exist_says_so(run):
    run.start("no-such-command-here")
    ending = run.ended()
    assert ending["exit_code"] == 127
    assert "no-such-command-here" in ending["cause"]
    assert "PATH" in ending["cause"]


def test_a_directory_that_does_not_exist_says_so(run):
    run.start("true", cwd="/no/such/place")
    ending = run.ended()
    assert ending["exit_code"] == 126
    assert "/no/such/place" in ending["cause"]


def test_an_odd_command_name_still_makes_a_record(run):
    run.start('no"such\n\\ünïcode')
    assert run.ended()["exit_code"] == 127


def test_the_command_gets_its_environment_and_nothing_of_the_supervisors(run):
    run.start("env", env={"A": "1", "B": "x y"})
    run.ended()
    lines = run.log.read_text().splitlines()
    assert sorted(line for line in lines if not line.startswith("PWD")) == ["A=1", "B=x y", "PATH=/usr/bin:/bin"]


def test_it_waits_for_what_the_command_leaves_behind(run):
    run.start("sh", "-c", "(setsid sh -c 'sleep 0.4; echo late') & exit 0")
    assert run.ended()["exit_code"] == 0
    assert run.log.read_text() == "late\n"


def test_sigterm_reaches_a_daemonised_descendant(run):
    run.start("sh", "-c", "setsid sleep 60 & echo up; sleep 60")
    wait_for(lambda: run.log.exists() and run.log.read_text())
    run.process.send_signal(signal.SIGTERM)
    assert run.ended()["signal"] == signal.SIGTERM


def test_the_time_limit_ends_it_and_says_so(run):
    run.start("sh", "-c", "trap '' TERM; while :; do sleep 0.05; done", time_limit_ms=200, grace_ms=200)
    ending = run.ended()
    assert ending["cause"] == "time limit"
    assert ending["signal"] == signal.SIGKILL


def test_the_log_is_rotated_at_its_size(run):
    run.start("sh", "-c", "i=0; while [ $i -lt 300 ]; do echo 012345678901234567890123456789; i=$((i+1)); done",
              log_bytes=4096)  # fmt: skip
    run.ended()
    assert run.log.stat().st_size <= 4096
    assert (run.dir / "log.1").stat().st_size <= 4096


def test_it_goes_on_when_nobody_reads_its_word(run):
    """The agent was killed between the fork and the answer."""
    read, write = os.pipe()
    argv = [str(program("flexai-supervisor")), "--token-file", str(run.token), "--exit-file", str(run.exit),
            "--log-file", str(run.log), "--", "/bin/sh", "-c", "exit 5"]  # fmt: skip
    run.process = subprocess.Popen(argv, stdout=write)
    os.close(write)
    os.close(read)
    assert run.ended()["exit_code"] == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a command as somebody else")
def test_the_command_runs_as_its_user_with_none_of_our_groups(run):
    run.dir.chmod(0o755)
    run.start("sh", "-c", "id -u; id -g; id -G", uid=65534, gid=65534)
    run.ended()
    assert run.log.read_text().split()[:2] == ["65534", "65534"]
    assert "0" not in run.log.read_text().split()


def test_when_the_supervisor_is_killed_the_command_goes_on(run):
    run.start("sh", "-c", "echo $$; exec sleep 60")
    wait_for(lambda: run.log.exists() and run.log.read_text())
    pid = int(run.log.read_text())
    run.process.kill()
    run.process.wait()
    assert alive(pid)
    assert not run.exit.exists()
    os.kill(pid, signal.SIGKILL)
