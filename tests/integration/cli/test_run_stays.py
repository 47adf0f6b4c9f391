"""Where no cgroup holds a command, `flexai run` leaves a process above it until all that it started has ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from terminal import until

FLEXAI = str(Path(sys.executable).with_name("flexai"))
DAEMON = (
    "setsid env -i sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 60' > /dev/null 2>&1 < /dev/null &"
)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.fixture
def daemon(pool, flexai, tmp_path):
    """Pid of what a command left behind, without parent, session and environment of it; and the run."""
    file = tmp_path / "daemon"
    began = time.monotonic()
    result = flexai("run", "--", "sh", "-c", f"({DAEMON.format(file=file)}); exit 3", input="")
    assert time.monotonic() - began < 30, "it does not wait for the daemon"
    until(file.exists)
    pid = int(file.read_text())
    yield pid, result
    if is_alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_the_caller_has_the_exit_code_at_once_and_the_daemon_descends_from_what_was_attached(pool, daemon):
    pid, result = daemon
    (attached,) = pool.asked_for("/v1/jobs/7/attach")
    assert (result.returncode, result.stderr) == (3, "")
    assert pool.asked_for("/v1/jobs/7/finish") == [{"exit_code": 3}]
    assert parent_of(pid) == attached["pid"]
    open_files = [str(file.readlink()) for file in Path(f"/proc/{attached['pid']}/fd").iterdir()]
    assert {name for name in open_files if not name.startswith("pipe:")} == {"/dev/null"}, "nothing of the caller's"
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(attached["pid"]))


def test_what_stays_ends_by_sigkill_only(pool, daemon):
    pid, _ = daemon
    (attached,) = pool.asked_for("/v1/jobs/7/attach")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.kill(attached["pid"], number)
    time.sleep(0.2)
    assert is_alive(attached["pid"])
    assert is_alive(pid), "nor are signals of others passed on"


def test_a_run_that_is_killed_leaves_its_command_held(pool, environment, tmp_path):
    file = tmp_path / "pid"
    run = subprocess.Popen([FLEXAI, "run", "--", "sh", "-c", f"echo $$ > {file}; exec sleep 60"], env=environment)
    until(lambda: file.exists() and file.read_text())
    command = int(file.read_text())
    run.kill()
    run.wait()
    (attached,) = pool.asked_for("/v1/jobs/7/attach")
    assert parent_of(command) == attached["pid"]
    os.kill(command, signal.SIGTERM)
    until(lambda: not is_alive(attached["pid"]))


def test_what_is_ended_as_soon_as_it_is_attached_ends_the_run_in_the_same_way(pool, flexai):
    def end(body):
        os.kill(body["pid"], signal.SIGKILL)
        until(lambda: not is_alive(body["pid"]))
        return 200, {}

    pool.answers["POST", "/v1/jobs/7/attach"] = end
    result = flexai("run", "--", "true")
    assert (result.returncode, result.stderr) == (-signal.SIGKILL, "")
