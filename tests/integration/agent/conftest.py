"""A real agent process with cards that do not exist, and a client of its socket."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

GIB = 1 << 30
CARD = "FAKE-h200-0"


def wait_for(condition, timeout_s=10, what=None):
    until = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < until, what or condition
        time.sleep(0.01)
    return value


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Refused(Exception):
    def __init__(self, reply):
        self.code = reply["code"]
        super().__init__(f"{reply['code']}: {reply['message']}")


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self.file = self.socket.makefile("rb")
        self.events, self.number = [], 0

    def send(self, line):
        self.socket.sendall(line)

    def read(self):
        line = self.file.readline()
        if not line:
            raise ConnectionError("the agent closed the line")
        return json.loads(line)

    def call(self, op, **fields):
        self.number += 1
        self.send(json.dumps({"v": 1, "id": self.number, "op": op, **fields}).encode() + b"\n")
        while True:
            reply = self.read()
            if "event" in reply:
                self.events.append(reply)
            elif reply["id"] == self.number:
                if not reply["ok"]:
                    raise Refused(reply)
                return reply

    def wait_event(self, name, timeout_s=10, **fields):
        until = time.monotonic() + timeout_s
        while True:
            for event in self.events:
                if event["event"] == name and all(event.get(k) == v for k, v in fields.items()):
                    return event
            self.socket.settimeout(max(0.01, until - time.monotonic()))
            reply = self.read()
            if "event" in reply:
                self.events.append(reply)

    def close(self):
        self.file.close()
        self.socket.close()


def grant(job_id="1", device=CARD, compute_milli=500, memory_bytes=GIB, **fields):
    return {"job_id": job_id, "member": 0, "node": "node", "device": device, "compute_milli": compute_milli,
            "limit_milli": 1000, "memory_bytes": memory_bytes, "tenant_class": "guaranteed", **fields}  # fmt: skip


class Rig:
    """Directories, the agent on them, and what it left running."""

    fake_cards = ("--fake-cards", "h200:2")

    def __init__(self, directory, *arguments):
        self.run, self.state, self.arguments = directory / "r", directory / "s", arguments
        self.process = self.client = None
        self.directory = directory

    def start(self, wait=True, env=None):
        argv = [sys.executable, "-m", "flexai.apps.agent", "--run-dir", self.run, "--state-dir", self.state]
        if "--simcard" not in self.arguments:
            argv += self.fake_cards
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen([*argv, *self.arguments], stderr=log, env=os.environ | (env or {}))
        if wait:
            self.connect()
        return self

    def connect(self):
        def answers():
            assert self.process.poll() is None, (self.directory / "agent.log").read_text()
            client = None
            try:
                client = Client(self.run / "agent.sock")
                client.call("subscribe", from_seq=0)
            except OSError:  # also by a socket of the one before, which a child that it forked held for a moment
                if client:
                    client.close()
                return None
            return client

        self.client = wait_for(answers, what="the agent does not answer")
        return self.client

    def kill(self):
        self.process.kill()
        self.process.wait()
        if self.client:
            self.client.close()

    def restart(self):
        self.kill()
        return self.start()

    def prepare(self, job_id="1", run=1, grants=None, **fields):
        fields = {"uid": os.geteuid(), "gid": os.getegid(), "cpu_milli": 0, "ram_bytes": 0} | fields
        return self.client.call(
            "prepare",
            job_id=job_id,
            member=0,
            token=f"{job_id}.0.{run}",
            grants=[grant(job_id)] if grants is None else grants,
            **fields,
        )

    def launch(self, job_id, *argv, run=1, env=None, **fields):
        log = self.state / "jobs" / job_id / "0" / "log"
        log.parent.mkdir(parents=True, exist_ok=True)
        fields = {"time_limit_ms": 0, "idle_timeout_ms": 0, "cwd": "/"} | fields
        return self.client.call(
            "start", job_id=job_id, member=0, token=f"{job_id}.0.{run}", argv=list(argv),
            env={"PATH": "/usr/bin:/bin"} | self.env[job_id] | (env or {}), uid=os.geteuid(), gid=os.getegid(),
            log_path=str(log), **fields,
        )  # fmt: skip

    def submit(self, job_id, *argv, prepare=None, **fields):
        self.env = getattr(self, "env", {}) | {job_id: self.prepare(job_id, **(prepare or {}))["env"]}
        return self.launch(job_id, *argv, **fields)

    def tenant(self, job_id):
        rows = self.client.call("tenants")["tenants"]
        return next((row for row in rows if row["job_id"] == job_id), None)

    def in_state(self, job_id, state):
        return wait_for(lambda: (row := self.tenant(job_id)) and row["state"] == state and row)

    def log(self, job_id):
        path = self.state / "jobs" / job_id / "0" / "log"
        return path.read_text() if path.exists() else ""

    def close(self):
        with contextlib.suppress(Exception):
            if self.process.poll() is None:
                for row in self.client.call("tenants")["tenants"]:
                    if row["state"] == "running":
                        key = {"job_id": row["job_id"], "member": row["member"]}
                        with contextlib.suppress(Refused):
                            self.client.call("signal", signal=signal.SIGKILL, grace_ms=1, **key)
                for row in self.client.call("tenants")["tenants"]:
                    self.in_state(row["job_id"], "finished" if row["state"] == "running" else row["state"])
                    self.client.call("unprepare", job_id=row["job_id"], member=row["member"])
                self.process.terminate()
                self.process.wait(5)
        if self.process:
            self.kill()


@pytest.fixture(params=["cgroups", "trees"])
def rig(request, tmp_path):
    if request.param == "cgroups" and os.geteuid() != 0:
        pytest.skip("cgroups are for root")
    rig = Rig(tmp_path, *(["--cgroups", "off"] if request.param == "trees" else []))
    rig.start()
    yield rig
    rig.close()


@pytest.fixture
def stopped(tmp_path):
    """A rig whose agent is not started yet."""
    rig = Rig(tmp_path)
    yield rig
    rig.close()
