"""Processes that leave their parent, their session and their environment stay their member's."""

import signal
from pathlib import Path

from .conftest import alive, wait_for

KEY = {"job_id": "1", "member": 0}
DAEMON = "(setsid env -i sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 60' &)"


def pid_in(file):
    return int(wait_for(lambda: file.exists() and file.read_text()))


def test_what_a_job_leaves_behind_is_held_counted_and_ended_with_it(rig):
    file = rig.directory / "daemon"
    rig.submit("1", "sh", "-c", f"{DAEMON.format(file=file)}; exit 0")
    daemon = pid_in(file)
    assert "FLEXAI" not in Path(f"/proc/{daemon}/environ").read_text()
    assert rig.tenant("1")["state"] == "running"
    rig.restart()
    assert rig.tenant("1")["state"] == "running"
    rig.client.call("pause", **KEY)
    state = Path(f"/proc/{daemon}/stat")
    wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] in "TD")
    rig.client.call("unpause", **KEY)
    rig.client.call("signal", signal=signal.SIGTERM, grace_ms=2000, **KEY)
    assert rig.client.wait_event("finished", job_id="1")["exit_code"] == 0, "as its first process ended"
    assert not alive(daemon)


def test_no_process_of_a_job_that_forks_without_end_survives_it(rig):
    count = rig.directory / "count"
    forks = f"fork() {{ echo x >> {count}; sleep 0.01; (setsid env -i sh {rig.directory}/again &); }}; fork"
    (rig.directory / "again").write_text(forks)
    rig.submit("1", "sh", "-c", f"for i in 1 2 3; do (setsid env -i sh {rig.directory}/again &); done; exec sleep 60")
    wait_for(lambda: count.exists() and count.stat().st_size > 40)
    rig.client.call("signal", signal=signal.SIGKILL, grace_ms=0, **KEY)
    rig.client.wait_event("finished", job_id="1", timeout_s=20)
    wait_for(lambda: not [p for p in Path("/proc").glob("[0-9]*") if _runs(p, f"{rig.directory}/again")])


def _runs(process, script):
    try:
        return script.encode() in (process / "cmdline").read_bytes() and alive(process.name)
    except OSError:
        return False
