"""A whole pool of a user that is not root: what it started stays held, in a cgroup of the user's or by its descent."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from flexai.adapters.pool_client import PoolClient

UID = 54321
FLEXAI = str(Path(sys.executable).with_name("flexai"))
READS = "-all,+dac_read_search"  # what is installed here may be root's to read; no other right is left
BECOME = [
    "sh", "-c", '[ -z "$0" ] || echo $$ > "$0/cgroup.procs" && exec setpriv "$@"', "{group}",
    f"--reuid={UID}", f"--regid={UID}", "--clear-groups", f"--inh-caps={READS}", f"--ambient-caps={READS}",
    f"--bounding-set={READS}", FLEXAI,
]  # fmt: skip
DAEMON = "(setsid env -i sh -c 'echo $$ > {file}.new; mv {file}.new {file}; exec sleep 120' > /dev/null 2>&1 &)"
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, of util-linux"),
]


def until(condition, what, timeout_s=40):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


class Group:
    """A group of cgroup v2 that is the user's, as systemd delegates one; the pool runs in it, or in a leaf of it."""

    def __init__(self, mount):
        self.top = Path(mount) / f"flexai-test-{os.getpid()}"
        self.leaf = self.top / "flexai-daemons"
        self.leaf.mkdir(parents=True)
        for folder in (self.top, self.leaf):
            for file in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"):
                os.chown(file, UID, UID)

    def remove(self):
        for folder in sorted([self.top, *self.top.rglob("*/")], key=lambda path: -len(path.parts)):
            folder.rmdir()


class Pool:
    def __init__(self, group):
        self.folder = Path(tempfile.mkdtemp(prefix="fxu"))
        os.chown(self.folder, UID, UID)
        self.group = group
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLEXAI_", "XDG_"))}
        self.environment = clean | {
            "FLEXAI_RUN_DIR": str(self.folder / "r"), "FLEXAI_STATE_DIR": str(self.folder / "s"),
            "HOME": str(self.folder),
        }  # fmt: skip

    def flexai(self, *words, code=0, group=""):
        result = subprocess.run(
            [*(word.format(group=group) for word in BECOME), *words], env=self.environment, cwd="/",
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert code is None or result.returncode == code, (
            f"{words}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        return result

    def ask(self, path):
        """As root, which may look at everybody's pool."""
        return PoolClient(self.folder / "r").get(path)

    def state(self, job_id):
        return self.ask(f"/v1/jobs/{job_id}")["state"]

    def daemon(self, words, name):
        file = self.folder / name
        said = self.flexai(*words, "-s", "20%", "-m", "1Gi", "--", "sh", "-c", f"{DAEMON.format(file=file)}; exit 0")
        until(file.exists, f"{name} runs")
        return int(file.read_text()), said.stdout.strip()


@pytest.fixture(scope="module", params=["delegated", pytest.param("none", marks=pytest.mark.slow)])
def pool(request, cgroup2):
    if request.param == "delegated" and cgroup2 is None:
        pytest.skip("needs cgroup v2")
    group = Group(cgroup2) if request.param == "delegated" else None
    pool = Pool(group)
    pool.flexai("up", "--simulate", "h200:1", "--detach", group=group.leaf if group else "")
    yield pool
    pool.flexai("down", "--jobs", "cancel")
    shutil.rmtree(pool.folder)
    if group:
        until(lambda: not (group.leaf / "cgroup.procs").read_text(), "all of it has ended")
        group.remove()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_daemonises_keeps_its_grant_and_is_ended_with_its_job(pool):
    of_run, _ = pool.daemon(["run"], "run")
    of_submit, submitted = pool.daemon(["submit"], "submit")
    (running,) = [job["id"] for job in pool.ask("/v1/jobs")["items"] if job["id"] != submitted]
    for pid, job_id in ((of_run, running), (of_submit, submitted)):
        assert Path(f"/proc/{pid}").stat().st_uid == UID
        assert b"FLEXAI" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert pool.state(job_id) == "running"
    assert pool.ask("/v1/devices")["items"][0]["compute_granted_milli"] == 400
    place = Path(f"/proc/{of_submit}/cgroup").read_text()
    if pool.group:
        assert f"/{pool.group.top.name}/flexai/" in place, "the supervisor began in the pool's group"
        # `run` began in a group that is not the user's: only root may move it, and its descent holds it.
        assert pool.group.top.name not in Path(f"/proc/{of_run}/cgroup").read_text()
    notes = " ".join(pool.ask("/v1/status")["agent"]["notes"])
    assert ("without cgroups" in notes) == (pool.group is None)
    agent = json.loads((pool.folder / "s" / "up.json").read_text())["agent"]["pid"]
    os.kill(agent, signal.SIGKILL)
    until(lambda: not pool.ask("/v1/status")["agent"]["connected"], "the agent is gone")
    until(lambda: pool.ask("/v1/status")["agent"]["connected"], "another agent is there")
    pool.flexai("cancel", running, submitted)
    until(lambda: not is_alive(of_run) and not is_alive(of_submit), "the daemons are ended")
    for job_id in (running, submitted):
        until(lambda job_id=job_id: pool.state(job_id) == "cancelled", f"{job_id} is over")


def test_a_run_that_begins_in_the_users_group_is_put_into_its_own(pool):
    if not pool.group:
        pytest.skip("there is none")
    words = ["run", "-s", "20%", "-m", "1Gi", "--", "cat", "/proc/self/cgroup"]
    assert f"/{pool.group.top.name}/flexai/" in pool.flexai(*words, group=pool.group.leaf).stdout
