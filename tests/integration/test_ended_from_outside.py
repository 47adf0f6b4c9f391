"""Demo and benchmarks that are ended while they run: nothing that they began outlives them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

FLEXAI = str(Path(sys.executable).with_name("flexai"))


def _processes_of(folder):
    """Command lines of what runs on pools below a folder."""
    lines = [_words(entry) for entry in Path("/proc").glob("[0-9]*")]
    return [line for line in lines if folder in line]


def _words(process):
    try:
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _wait_until(true, what, within_s=60.0):
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.05)


@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        pytest.param(("bench", "pool", "--case", "idle"), signal.SIGTERM, 128 + signal.SIGTERM, id="bench-terminated"),
        pytest.param(("demo", "--simulate", "h200:1"), signal.SIGKILL, -signal.SIGKILL, id="demo-killed"),
        pytest.param(("demo", "--simulate", "h200:1"), signal.SIGTERM, 128 + signal.SIGTERM, id="demo-terminated",
                     marks=pytest.mark.slow),
        pytest.param(("demo", "--simulate", "h200:1"), signal.SIGINT, 130, id="demo-interrupted",
                     marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_ends_a_command_ends_its_pool_too(words, number, code, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEXAI_")}
    with tempfile.TemporaryDirectory(prefix="fx") as folder:  # short: a Unix socket's path has 107 bytes
        with subprocess.Popen(
            [FLEXAI, *words], env=environment | {"TMPDIR": folder}, cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as command:  # fmt: skip
            try:
                _wait_until(lambda: any("flexai.apps.pool" in line for line in _processes_of(folder)), "no pool began")
            finally:
                command.send_signal(number)
            assert command.wait(timeout=60) == code
        # Killed, it could not wait for the end of its pool; but that is under way.
        allowed_s = 60.0 if number == signal.SIGKILL else 0.0
        _wait_until(lambda: not _processes_of(folder), f"still there: {_processes_of(folder)}", allowed_s)
        assert list(Path(folder).iterdir()) == []


def test_a_simulation_that_is_terminated_ends_at_once(tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("submit_s,duration_s,devices\n" + "".join(f"{at},100000,1\n" for at in range(200_000)))
    with subprocess.Popen([FLEXAI, "simulate", str(jobs)], cwd=tmp_path, stderr=subprocess.DEVNULL) as command:
        _wait_until(lambda: "flexai.apps.simulator" in _words(Path(f"/proc/{command.pid}")), "it did not begin")
        command.terminate()
        assert command.wait(timeout=20) == -signal.SIGTERM
