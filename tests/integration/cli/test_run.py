"""`flexai run` is the command's parent as a shell would be: terminal, signals, exit code, directory, environment."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal import Terminal, until

FLEXAI = str(Path(sys.executable).with_name("flexai"))
in_a_cgroup = pytest.mark.parametrize("pool", ["/flexai/pool/7.0"], indirect=True)
both_ways = pytest.mark.parametrize("pool", ["/flexai/pool/7.0", None], indirect=True, ids=["cgroup", "tree"])
"""Held by a cgroup, or by the child that stays above the command."""


@both_ways
@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_commands(pool, flexai, code):
    result = flexai("run", "--", "sh", "-c", f"exit {code}")
    assert result.returncode == code, result.stderr
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": code}]


@both_ways
def test_standard_streams_directory_and_environment_are_the_callers(pool, flexai, tmp_path, environment):
    environment["MINE"] = "kept"
    result = flexai("run", "--", "sh", "-c", "cat; pwd; echo $MINE $FLEXAI_TENANT_DIR; echo err >&2", input="typed\n")
    assert result.stdout.splitlines() == ["typed", str(tmp_path), "kept /t/7"]
    assert result.stderr.splitlines()[-1] == "err"


def test_it_asks_for_what_the_options_say(pool, flexai, tmp_path):
    flexai(
        "run", "--share", "30%", "--memory", "16Gi", "--limit=60%", "--class", "latency", "-q", "team-a", "--devices",
        "2", "--cpus", "0.5", "--ram", "1Gi", "--time", "2h", "--idle-timeout", "30m", "true", "--share", "x",
    )  # fmt: skip
    (body,) = pool.asked_for("/v1/jobs")
    assert body == {
        "kind": "run", "command": ["true", "--share", "x"], "cwd": str(tmp_path), "env": {}, "name": "true",
        "queue": "team-a", "compute_milli": 300, "limit_milli": 600, "memory_bytes": 16 << 30,
        "tenant_class": "latency", "n_devices": 2, "cpu_milli": 500, "ram_bytes": 1 << 30,
        "time_limit_ms": 7_200_000, "idle_timeout_ms": 1_800_000,
    }  # fmt: skip


@in_a_cgroup
def test_the_child_is_attached_before_it_becomes_the_command(pool, flexai, tmp_path):
    started = tmp_path / "started"
    seen = {}

    def attach(body):
        time.sleep(0.2)  # time enough for a child that would not wait
        seen.update(pid=body["pid"], started=started.exists(), ppid=Path(f"/proc/{body['pid']}/stat").read_text())
        return 200, {}

    pool.answers["POST", "/v1/jobs/7/attach"] = attach
    result = flexai("run", "--", "sh", "-c", f"echo $$ > {started}")
    assert result.returncode == 0
    assert seen["started"] is False
    assert int(started.read_text()) == seen["pid"]


def test_a_refused_attach_runs_nothing(pool, flexai, tmp_path):
    pool.answers["POST", "/v1/jobs/7/attach"] = lambda _: (403, {"code": "NotYours", "message": "not your process"})
    result = flexai("run", "--", "touch", str(tmp_path / "ran"))
    assert result.returncode == 125
    assert "not your process" in result.stderr
    assert not (tmp_path / "ran").exists()
    assert len(pool.asked_for("/v1/jobs/7/cancel")) == 1


def test_why_it_waits_is_said_on_standard_error(pool, flexai):
    reason = {"code": "NotEnoughCompute", "message": "2 of 4 cards have 30% left."}
    pool.grants = [[{"state": "queued", "reason": reason}, {"state": "queued", "reason": reason}, {"state": "granted"}]]
    result = flexai("run", "--", "true")
    assert result.stderr.splitlines() == ["flexai: job 7 waits: 2 of 4 cards have 30% left."]
    pool.grants = [[{"state": "queued", "reason": reason}, {"state": "granted"}]]
    assert flexai("run", "--quiet", "--", "true").stderr == ""


def test_a_job_cancelled_while_it_waits_starts_nothing(pool, flexai):
    pool.grants = [[{"state": "cancelled", "cause": "by ann"}]]
    result = flexai("run", "--", "true")
    assert result.returncode == 125
    assert "by ann" in result.stderr


def test_it_reconnects_after_the_pool_restarted_while_it_waited(pool, environment):
    pool.grants = [[{"state": "queued", "reason": {"message": "full"}}]]
    process = subprocess.Popen(
        [FLEXAI, "run", "--", "sh", "-c", "exit 5"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert "full" in process.stderr.readline()
    pool.close()
    assert "the pool is away" in process.stderr.readline()
    pool.grants = [[{"state": "granted"}]]
    pool.open()
    assert process.wait(20) == 5
    process.stderr.close()
    assert len(pool.asked_for("/v1/jobs")) == 1
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 5}]


def test_a_pool_that_restarts_while_the_command_runs_is_told_the_end(pool, environment, tmp_path):
    gate = tmp_path / "gate"
    process = subprocess.Popen(
        [FLEXAI, "run", "--", "sh", "-c", f"while [ ! -e {gate} ]; do sleep 0.05; done; exit 4"], env=environment
    )
    until(lambda: pool.asked_for("/v1/jobs/7/attach"))
    pool.close()
    gate.touch()
    time.sleep(0.3)
    pool.open()
    assert process.wait(20) == 4
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 4}]


@both_ways
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_sent_to_run_reaches_the_command_once(pool, environment, number, tmp_path):
    program = (
        "import signal, sys, time\n"
        "got = []\n"
        f"signal.signal({int(number)}, lambda *_: got.append(1))\n"
        "print('ready', flush=True)\n"
        "while not got: time.sleep(0.02)\n"
        "time.sleep(0.3)\n"
        "sys.exit(10 + len(got))\n"
    )
    process = subprocess.Popen(
        [FLEXAI, "run", "--", sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.wait(20) == 11
    process.stdout.close()


@both_ways
def test_a_command_that_dies_by_a_signal_ends_run_in_the_same_way(pool, flexai):
    assert flexai("run", "--", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 143}]
    pool.grants = [[{"state": "granted"}]]
    assert flexai("run", "--", "sh", "-c", "kill -KILL $$").returncode == -signal.SIGKILL


@both_ways
def test_python_leaves_no_ignored_signal_behind(pool, flexai):
    result = flexai("run", "--", "sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status")
    plain = subprocess.check_output(["sh", "-c", "grep -E 'SigIgn|SigBlk' /proc/self/status"], text=True)
    assert result.stdout == plain


@both_ways
def test_no_descriptor_of_ours_reaches_the_command(pool, flexai):
    assert flexai("run", "--", "ls", "/proc/self/fd").stdout.split() == ["0", "1", "2", "3"]  # 3 is the listing itself


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["no-such-command"], 127, "no such command. Give a program on PATH"),
        (["/etc/passwd"], 126, "cannot be executed. Name its interpreter before it"),
        (["/"], 126, "cannot be executed. Name the program in it"),
        (["docker", "run", "image"], 125, "a daemon of containers"),
        (["sudo", "-E", "podman", "run", "image"], 125, "a daemon of containers"),
        (["sh", "-c", "cd / && docker run image"], 125, "a daemon of containers"),
        ([], 125, "is missing"),
        (["--share", "0", "true"], 125, "'0' is not above 0"),
        (["--share", "101%", "true"], 125, "101%"),
        (["--class", "royal", "true"], 125, "royal"),
        (["--nonsense", "true"], 125, "--nonsense"),
        (["--share"], 125, "has no value"),
        (["--time", "soon", "true"], 125, "soon"),
        (["--share", "30%", "true"], 125, "--memory"),
    ],
)
def test_what_cannot_run_is_named_before_anything_starts(pool, flexai, words, code, says):
    pool.answers["POST", "/v1/jobs"] = lambda body: (
        400, {"code": "BadInput", "message": f"tenant_class: {body.get('tenant_class')!r} is unknown"},
    )  # fmt: skip
    result = flexai("run", *words)
    assert result.returncode == code
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


@both_ways
def test_a_script_without_a_line_that_names_its_interpreter_is_reported_as_the_kernel_says(pool, flexai, tmp_path):
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    result = flexai("run", "--", str(script))
    assert result.returncode == 126
    assert "Exec format error" in result.stderr
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 126}]


@both_ways
def test_ctrl_c_in_a_terminal_reaches_the_command_once_and_its_answer_is_the_exit_code(pool, environment):
    program = (
        "import signal, sys, time\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda *_: got.append(1))\n"
        "print('ready', sys.stdin.isatty(), sys.stdout.isatty(), flush=True)\n"
        "while not got: time.sleep(0.02)\n"
        "time.sleep(0.3)\n"
        "sys.exit(10 + len(got))\n"
    )
    terminal = Terminal([FLEXAI, "run", "--", sys.executable, "-c", program], environment)
    terminal.until(b"ready True True")
    terminal.type(b"\x03")
    assert terminal.wait() == 11
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 11}]


@both_ways
def test_a_command_that_does_not_catch_ctrl_c_ends_run_as_interrupted(pool, environment):
    terminal = Terminal([FLEXAI, "run", "--", "sh", "-c", "echo ready; exec sleep 60"], environment)
    terminal.until(b"ready")
    terminal.type(b"\x03")
    assert terminal.wait() == -signal.SIGINT


def test_the_size_of_the_terminal_is_the_commands_and_a_change_reaches_it(pool, environment):
    program = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGWINCH, lambda *_: (print('now', *os.get_terminal_size(0), flush=True), sys.exit(0)))\n"
        "print('size', *os.get_terminal_size(0), flush=True)\n"
        "time.sleep(20)\n"
    )
    terminal = Terminal(["/bin/sh", "-c", 'stty rows 24 cols 80; exec "$@"', "sh", FLEXAI, "run", "--",
                         sys.executable, "-c", program], environment)  # fmt: skip
    terminal.until(b"size 80 24")
    terminal.resize(40, 132)
    terminal.until(b"now 132 40")
    assert terminal.wait() == 0


def test_the_line_that_says_why_is_rewritten_in_place_and_gone_when_the_command_starts(pool, environment):
    pool.grants = [
        [{"state": "queued", "reason": {"message": "first"}},
         {"state": "queued", "reason": {"message": "second " * 60}}, {"state": "granted"}]
    ]  # fmt: skip
    terminal = Terminal(["/bin/sh", "-c", 'stty rows 24 cols 80; exec "$@"', "sh", FLEXAI, "run", "--", "echo",
                         "output"], environment)  # fmt: skip
    assert terminal.wait() == 0
    # The second takes four rows of the screen at most: three up, to where it began, and all below is gone.
    before, _, after = terminal.screen.rpartition(b"\r\x1b[3A\x1b[J")
    assert after == b"output\r\n"
    assert b"\n" not in before
    first, _, second = before.partition(b"\r\x1b[J")
    assert first.endswith(b"waits: first")
    assert (second.count(b"second"), len(second)) == (42, 4 * 80 - 1)


def test_ctrl_c_while_it_waits_takes_the_job_back(pool, environment):
    pool.grants = [[{"state": "queued", "reason": {"message": "full"}}]]
    terminal = Terminal([FLEXAI, "run", "--", "true"], environment)
    terminal.until(b"full")
    terminal.type(b"\x03")
    assert terminal.wait() == 130
    assert len(pool.asked_for("/v1/jobs/7/cancel")) == 1


@both_ways
def test_ctrl_z_stops_both_and_they_go_on_together(pool, environment):
    program = "print('ready', flush=True); input(); print('went on')"
    terminal = Terminal([FLEXAI, "run", "--", sys.executable, "-c", program], environment)
    terminal.until(b"ready")
    (body,) = pool.asked_for("/v1/jobs/7/attach")
    os.kill(terminal.pid, 0)
    for pid in (terminal.pid, body["pid"]):
        os.kill(pid, signal.SIGSTOP)
    until(lambda: " T " in Path(f"/proc/{terminal.pid}/stat").read_text())
    os.killpg(os.getpgid(terminal.pid), signal.SIGCONT)
    terminal.type(b"\n")
    terminal.until(b"went on")
    assert terminal.wait() == 0


def test_json_of_a_run_says_how_it_went_on_standard_error(pool, flexai):
    result = flexai("run", "--json", "--", "echo", "output")
    assert result.stdout == "output\n"
    assert json.loads(result.stderr.splitlines()[-1]) == {"id": "7", "exit_code": 0}


def test_what_the_pool_ended_is_told_why(pool, flexai):
    pool.answers["GET", "/v1/jobs/7/wait"] = {"state": "failed", "cause": "time limit"}
    result = flexai("run", "--", "sh", "-c", "kill -TERM $$")
    assert result.returncode == -signal.SIGTERM
    assert "job 7 was ended: time limit" in result.stderr
