"""flexai-simcard meets requests and rings full of nonsense, orders of its owner, and clients that die in odd ways."""

import contextlib
import json
import mmap
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import flexai_native
import pytest

NATIVE = Path(__file__).parents[2] / "native"
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
WORKLOAD = flexai_native.program("flexai-workload")
LIBRARIES = flexai_native.library("simcard/libcuda.so.1").parent
REQUEST = struct.Struct("<IIIiiIQQ64I")
REGION_EVENTS = 16 * 65536
RING = 128 + 64 * 1024


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The daemon under AddressSanitizer and UBSan."""
    path = tmp_path_factory.mktemp("simcard") / "flexai-simcard"
    card = NATIVE / "simcard"
    sources = [*card.glob("model/*.c"), *card.glob("daemon/*.c"), card / "client" / "connection.c"]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", *SANITIZED, f"-I{NATIVE / 'include'}", f"-I{card / 'client'}"]
    subprocess.run(["gcc", *flags, "-o", path, *sources], check=True)
    return path


@pytest.fixture
def daemon(program):
    """A running one: (process, socket)."""
    with tempfile.TemporaryDirectory(prefix="fx") as folder, Path(folder, "errors").open("w+") as errors:
        at = Path(folder) / "s"
        process = subprocess.Popen(
            [program, "--socket", at, "--cards", "h200:2"], stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert "2 simulated cards" in process.stdout.readline()
        yield process, at
        alive = process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        errors.seek(0)
        said = errors.read()
        assert alive, said
        assert said == ""


def order(program, at, *words):
    return subprocess.run([program, "--socket", at, *map(str, words)], capture_output=True, text=True, check=False)


def cards_of(program, at):
    return [json.loads(line) for line in order(program, at, "show").stdout.splitlines()]


def workload(at, *arguments):
    env = dict(os.environ, FLEXAI_SIMCARD=str(at), LD_LIBRARY_PATH=str(LIBRARIES))
    return subprocess.Popen([WORKLOAD, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def connect(at):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    one.settimeout(0.01)
    one.connect(str(at))
    return one


def request(op, a=0, b=0, v=(0, 0), contexts=()):
    listed = [*contexts, *[0] * (64 - len(contexts))]
    return REQUEST.pack(0x44524353, 1, op, a, b, len(contexts), *v, *listed)


def test_random_requests_and_rings_full_of_nonsense_harm_nothing(daemon):
    process, at = daemon
    draw = random.Random(int(os.environ.get("FLEXAI_FUZZ_SEED", "20261124")))
    first = connect(at)
    first.send(request(1, 1))
    _, descriptors, _, _ = socket.recv_fds(first, 4096, 1)
    region = mmap.mmap(descriptors[0], 0)
    os.close(descriptors[0])
    connections = [first, *(connect(at) for _ in range(3))]
    operations = [
        2,
        3,
        3,
        3,
        4,
        5,
        5,
        5,
        6,
        7,
        8,
        9,
        10,
        11,
        12,
        13,
        13,
        64,
        65,
        66,
        67,
        68,
        69,
        70,
        71,
        72,
        73,
        74,
        99,
    ]
    odd = [0, 1, 2, 3, 63, 2**31, 2**32, 2**63, 2**64 - 1]
    for _ in range(4000):
        i = draw.randrange(len(connections))
        if draw.random() < 0.4:
            ring = REGION_EVENTS + RING * draw.randrange(4)
            slot = ring + 128 + 64 * draw.randrange(64)
            region[slot : slot + 64] = struct.pack(
                "<QIIQQII3Q", draw.choice(odd), draw.randrange(8), draw.choice([0, 1, 2, 3, 70000, 2**32 - 1]),
                draw.choice([*odd, 1000, 5000, 100000]), 1, draw.randrange(5), 1, 0, 0, 0,
            )  # fmt: skip
            head = draw.choice([draw.randrange(64), draw.randrange(64), draw.choice(odd)])
            region[ring : ring + 16] = struct.pack("<QQ", head, draw.choice([0, 5, 2**64 - 1]))
        op = draw.choice(operations)
        low = draw.choice([-1, 0, 0, 0, 1, 1, 2, 3, 5, 1023, 1024, 2**31 - 1])
        contexts = [draw.randrange(1, 40) for _ in range(draw.choice([0, 1, 1, 1, 1, 2, 8, 64]))]
        v = draw.choice([*odd, 1000000, 2000000])
        if op == 72:
            v, low = draw.choice([0, 79]), 1  # card 0 stays good for the rest
        with contextlib.suppress(OSError):
            connections[i].send(request(op, low, draw.choice([-5, os.getpid(), 7]), (v, 0), contexts))
        try:
            reply = connections[i].recv(65536)
        except TimeoutError:
            reply = b"?"  # it waits for a ring that will not get there
        except OSError:
            reply = b""
        if not reply or (reply == b"?" and draw.random() < 0.5):
            connections[i].close()
            connections[i] = connect(at)
            if not any(c is first for c in connections):
                connections[i].send(request(1, 1))
                with contextlib.suppress(TimeoutError):
                    connections[i].recv(4096)
        assert process.poll() is None
    for one in connections:
        one.close()


def test_the_owner_fails_and_recovers_a_card(daemon, program):
    _, at = daemon
    flood = workload(at, "flood", "--seconds", "30")
    until(lambda: any(p["pid"] == flood.pid for p in cards_of(program, at)[0]["processes"]))
    assert order(program, at, "fail", 0).returncode == 0
    _, errors = flood.communicate(timeout=10)
    assert flood.returncode == 1
    assert "unspecified launch failure" in errors
    assert [card["xid"] for card in cards_of(program, at)] == [79, 0]
    refused = workload(at, "flood", "--iterations", "3")
    assert refused.communicate(timeout=10)[0] == ""
    assert refused.returncode == 1
    assert order(program, at, "recover", 0).returncode == 0
    again = workload(at, "flood", "--iterations", "3")
    assert json.loads(again.communicate(timeout=10)[0])["iterations"] == 3


@pytest.mark.parametrize(
    "words", [["fail"], ["fail", "x"], ["fail", "-1"], ["refuse", "stop", "5"], ["refuse", "dance", "5", "1"], ["sing"]]
)
def test_an_order_that_makes_no_sense_is_explained(daemon, program, words):
    _, at = daemon
    done = order(program, at, *words)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_an_order_for_a_card_that_is_not_there_says_so(daemon, program):
    _, at = daemon
    assert "no such card" in order(program, at, "fail", 7).stderr


def test_a_forked_child_does_not_keep_the_memory_of_its_dead_parent(daemon, program):
    _, at = daemon
    code = """
import ctypes, os, sys, time
c = ctypes.CDLL("libcuda.so.1")
context, memory = ctypes.c_void_p(), ctypes.c_uint64()
assert c.cuInit(0) == 0 and c.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
assert c.cuCtxSetCurrent(context) == 0 and c.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(1 << 30)) == 0
child = os.fork()
if child == 0:
    time.sleep(60)
print(child, flush=True)
time.sleep(60)
"""
    env = dict(os.environ, FLEXAI_SIMCARD=str(at), LD_LIBRARY_PATH=str(LIBRARIES))
    parent = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    try:
        assert cards_of(program, at)[0]["used_bytes"] > 1 << 30
        parent.kill()
        until(lambda: cards_of(program, at)[0]["used_bytes"] == 0)
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


def test_the_arbiters_controls_do_on_a_running_card_what_they_do_on_a_real_one(daemon, program, tmp_path):
    _, at = daemon
    control = tmp_path / "control_test"
    card = NATIVE / "simcard"
    sources = [card / "tests" / "control_test.c", card / "control" / "cc_simcard.c", card / "client" / "connection.c"]
    flags = ["-std=gnu11", "-D_GNU_SOURCE", *SANITIZED, f"-I{NATIVE / 'include'}", f"-I{card / 'client'}"]
    subprocess.run(["gcc", *flags, "-Wall", "-Wextra", "-Werror", "-o", control, *sources], check=True)
    floods = [workload(at, "flood", "--seconds", "60", "--depth", "500") for _ in "ab"]
    try:
        until(lambda: len(cards_of(program, at)[0]["processes"]) == 2)
        until(lambda: all(p["n_kernels"] > 10 for p in cards_of(program, at)[0]["processes"]))
        uuid = cards_of(program, at)[0]["uuid"]
        env = dict(os.environ, FLEXAI_SIMCARD=str(at))
        words = [control, uuid, *(str(flood.pid) for flood in floods)]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        for flood in floods:
            flood.kill()
            flood.communicate()


def test_a_parked_program_gives_its_memory_to_others_and_goes_on_when_it_is_back(daemon, program):
    _, at = daemon
    flood = workload(at, "flood", "--iterations", "2500", "--memory", str(2**30))

    def park(*calls):
        code = f"""
import ctypes
c = ctypes.CDLL("libcuda.so.1")
assert c.cuInit(0) == 0
state = ctypes.c_int(-1)
for call in {calls!r}:
    assert getattr(c, "cuCheckpointProcess" + call)({flood.pid}, None) == 0, call
assert c.cuCheckpointProcessGetState({flood.pid}, ctypes.byref(state)) == 0
print(state.value)
"""
        env = dict(os.environ, FLEXAI_SIMCARD=str(at), LD_LIBRARY_PATH=str(LIBRARIES))
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        return int(done.stdout)

    def kernels():
        return next(p["n_kernels"] for p in cards_of(program, at)[0]["processes"] if p["pid"] == flood.pid)

    until(lambda: any(p["n_kernels"] > 10 for p in cards_of(program, at)[0]["processes"]))
    assert park("Lock", "Checkpoint") == 2
    assert cards_of(program, at)[0]["used_bytes"] == 4 << 20
    assert flood.pid not in {p["pid"] for p in cards_of(program, at)[0]["processes"]}, "as on a real card"
    time.sleep(0.2)
    assert park("Restore") == 1
    before = kernels()
    time.sleep(0.1)
    assert kernels() == before < 2500
    assert park("Unlock") == 0
    out, errors = flood.communicate(timeout=20)
    assert errors == ""
    assert json.loads(out)["iterations"] == 2500
