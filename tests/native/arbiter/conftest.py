"""One node for tests: simulated cards, an arbiter, its guardian, tenants that run real programs."""

import contextlib
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import flexai_native
import pytest

from flexai.adapters.shm import RegionFiles, UsageFile
from flexai.model import Grant, TenantClass
from flexai.wire import arbiter

NATIVE = Path(__file__).parents[3] / "native"
SOURCES = [
    NATIVE / "arbiter" / "tests" / "scenario.c",
    *sorted((NATIVE / "arbiter" / "core").glob("*.c")),
    *sorted((NATIVE / "simcard" / "model").glob("*.c")),
    NATIVE / "simcard" / "virtual" / "virtual.c",
]
INCLUDES = [f"-I{NATIVE / 'include'}", f"-I{NATIVE.parent / 'api'}", f"-I{NATIVE / 'arbiter' / 'core'}"]
FLAGS = [
    "-std=gnu11",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wshadow",
    "-Wconversion",
    "-fsanitize=address,undefined",
]


SIMCARD_LIBRARIES = flexai_native.library("simcard/libcuda.so.1").parent
SHIM = flexai_native.library("shim/libcuda.so.1")


def eventually(condition, within_s=5.0, every_s=0.01):
    """What the condition answers, as soon as it is true."""
    until = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < until, "it did not come true"
        time.sleep(every_s)
    return answer


class Agent:
    """The agent's end of the arbiter's line."""

    def __init__(self, path):
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.line.settimeout(5)
        try:
            self.line.connect(str(path))
        except OSError as error:
            self.line.close()
            raise ConnectionError(str(error)) from error
        self.seq = itertools.count(1)
        self.ask(arbiter.Op.HELLO)

    def ask(self, op, **fields):
        return self.send(arbiter.message(op, next(self.seq), **fields))

    def send(self, message):
        self.line.send(message)
        answer = self.line.recv(arbiter.REPLY_BYTES + 1)
        if not answer:
            raise ConnectionError("the arbiter is gone")
        return arbiter.reply(answer)


class Node:
    eventually = staticmethod(eventually)

    def __init__(self, folder, cards):
        self.run_dir = Path(folder)
        self.socket = self.run_dir / "simcard.sock"
        self.programs, self.sessions = [], []
        self.kinds = cards
        self.start_simcard()
        self.regions = RegionFiles(self.run_dir / "tenants")
        self.usage_file = UsageFile(self.run_dir / "usage")
        self.cards = self._uuids()
        self.arbiter = self.guardian = self.agent = None

    def start_simcard(self):
        self.socket.unlink(missing_ok=True)
        self.simcard = self.start("flexai-simcard", "--socket", self.socket, "--cards", self.kinds)
        eventually(self.socket.exists)

    def start(self, name, *arguments, **more):
        log = (self.run_dir / f"{name}.log").open("ab")
        process = subprocess.Popen(
            [flexai_native.program(name), *arguments], stderr=log, stdout=log, env=os.environ | more
        )
        log.close()
        self.programs.append(process)
        return process

    def _uuids(self):
        code = (
            "import pynvml as n; n.nvmlInit();"
            "print(*[n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i)) for i in range(n.nvmlDeviceGetCount())])"
        )
        env = dict(os.environ, FLEXAI_SIMCARD=str(self.socket), LD_LIBRARY_PATH=str(SIMCARD_LIBRARIES))
        python = Path(os.sys.executable)
        return subprocess.run([python, "-c", code], env=env, check=True, capture_output=True, text=True).stdout.split()

    def start_arbiter(self, **more):
        """Raises ConnectionError when it dies at once; ``more`` is for its environment."""
        path = self.run_dir / "arbiter.sock"
        path.unlink(missing_ok=True)
        if self.agent is not None:
            self.agent.line.close()
        self.arbiter = self.start("flexai-arbiter", "--run-dir", self.run_dir, "--simcard", self.socket, **more)
        eventually(lambda: path.exists() or self.arbiter.poll() is not None)
        self.agent = Agent(path)

    def start_guardian(self, **more):
        arguments = ("--guardian", "--run-dir", self.run_dir, "--simcard", self.socket)
        self.guardian = self.start("flexai-arbiter", *arguments, **more)

    def cpu_s(self):
        """Processor time that the arbiter has had."""
        fields = Path(f"/proc/{self.arbiter.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self, name="flexai-arbiter"):
        return (self.run_dir / f"{name}.log").read_text()

    def run(self, name, *arguments, shimmed=False):
        """A program of a tenant; its own command line is the workload's."""
        process = subprocess.Popen(
            [flexai_native.program("flexai-workload"), *map(str, arguments)], env=self.environment(name, shimmed),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.programs.append(process)
        return process

    def environment(self, name, shimmed):
        """What a tenant's program needs to find the cards, and the shim."""
        env = dict(os.environ, FLEXAI_SIMCARD=str(self.socket), LD_LIBRARY_PATH=str(SIMCARD_LIBRARIES))
        if shimmed:
            env |= {
                "LD_PRELOAD": str(SHIM),
                "FLEXAI_TENANT_DIR": self.regions.directory(name),
                "FLEXAI_REAL_CUDA": str(SIMCARD_LIBRARIES / "libcuda.so.1"),
            }
        return env

    def run_pair(self, name, *arguments, script=""):
        """A tenant of two processes of the same command line, or of a script whose $0 is the workload, with the shim;
        what they print comes by its stdout."""
        workload = str(flexai_native.program("flexai-workload"))
        words = shlex.join([workload, *map(str, arguments)])
        process = subprocess.Popen(
            ["sh", "-c", script or f"{words} & {words} & wait", workload], env=self.environment(name, shimmed=True),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self.programs.append(process)
        self.sessions.append(process.pid)
        return process

    def run_shell(self, script):
        """A tenant of several processes; all of them end with the node."""
        env = dict(os.environ, FLEXAI_SIMCARD=str(self.socket), LD_LIBRARY_PATH=str(SIMCARD_LIBRARIES))
        out = subprocess.DEVNULL
        process = subprocess.Popen(["sh", "-c", script], env=env, stdout=out, stderr=out, start_new_session=True)
        self.programs.append(process)
        self.sessions.append(process.pid)
        return process

    def put(self, name, process, request, limit=1000, tenant_class=TenantClass.GUARANTEED, card=0, **more):
        """Tell the arbiter of a tenant whose first process this is."""
        return self.agent.send(self.put_message(name, process, request, limit, tenant_class, card, **more))

    def put_message(
        self,
        name,
        process,
        request,
        limit=1000,
        tenant_class=TenantClass.GUARANTEED,
        card=0,
        cards=(),
        job="",
        cgroup="",
        borrow_weight=0,
    ):
        grants = tuple(
            Grant(
                job_id=job or name, member=0, node="here", device=self.cards[at], memory_bytes=8 << 30,
                compute_milli=request, limit_milli=limit, tenant_class=tenant_class, borrow_weight=borrow_weight,
            )
            for at in cards or (card,)
        )  # fmt: skip
        directory = self.regions.put(name, os.getuid(), os.getgid(), grants)
        return arbiter.message(
            arbiter.Op.TENANT_PUT, next(self.agent.seq), tenant=name, directory=directory,
            root_pid=process.pid if process else 0, grants=grants, cgroup=cgroup,
        )  # fmt: skip

    def prefer(self, backend, card=0):
        assert self.agent.ask(arbiter.Op.DEVICE_PUT, device=(self.cards[card], backend)).code == ""

    def usage(self):
        table = self.usage_file.read()
        assert table is not None
        return table

    def held(self):
        return {entry.tenant: entry.held_ns for entry in self.usage().tenants}

    def shares(self, seconds):
        """Card time of each tenant over the next seconds, in points of the card."""
        before, began = self.usage(), time.monotonic()
        time.sleep(seconds)
        after = self.usage()
        assert after.heartbeat_ns > before.heartbeat_ns, f"no figures for {time.monotonic() - began} s"

        def told_until(usage, entry):
            return next((d.known_ns for d in usage.devices if d.uuid == entry.uuid and d.known_ns), usage.heartbeat_ns)

        was = {(e.tenant, e.uuid): e.held_ns for e in before.tenants}
        return {
            e.tenant: 100
            * (e.held_ns - was.get((e.tenant, e.uuid), 0))
            / (told_until(after, e) - told_until(before, e))
            for e in after.tenants
        }

    def close(self):
        if self.agent is not None:
            self.agent.line.close()
        for session in self.sessions:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(session, signal.SIGKILL)
        for process in reversed(self.programs):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


@pytest.fixture
def make_node():
    """Answers a function that makes a node with these cards."""
    with contextlib.ExitStack() as stack:

        def make(cards="h200:1"):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fxa"))
            node = Node(folder, cards)
            stack.callback(node.close)
            node.start_arbiter()
            return node

        yield make


class Figures:
    """What a report says: per tenant, and of the card, each name with its number."""

    def __init__(self, text):
        self.card = {}
        self.tenant = {}
        for line in text.splitlines():
            numbers = {name: float(value) for name, value in re.findall(r"([a-z][a-z0-9_]*) (-?[\d.]+)", line)}
            if line.startswith("tenant"):
                self.tenant[int(numbers.pop("tenant"))] = numbers
            else:
                self.card = numbers

    def held(self, i):
        return self.tenant[i]["held"]

    @property
    def sum(self):
        return sum(t["held"] for t in self.tenant.values())


@pytest.fixture(scope="session")
def play(tmp_path_factory):
    """Answers a function that plays a scenario and gives the figures of its last report, or of its last n."""
    path = tmp_path_factory.mktemp("arbiter") / "scenario"
    subprocess.run(["gcc", *FLAGS, "-fno-sanitize-recover=all", *INCLUDES, "-o", path, *SOURCES], check=True)

    def run(backend, *steps, n_reports=0):
        words = " ".join(steps).split()
        done = subprocess.run([path, f"backend:{backend}", *words], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        reports = [Figures(text) for text in re.findall(r"(?:tenant .*\n)*card .*\n", done.stdout)]
        if not any(word.startswith(("undo:", "widen:", "meddle:")) for word in words):
            assert not any(t["hostile"] for one in reports for t in one.tenant.values()), (
                f"{words}: nobody did anything"
            )
        return reports[-n_reports:] if n_reports else reports[-1]

    return run
