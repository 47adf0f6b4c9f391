"""A parked program comes back to another card: it, its limits and all that it starts are there, and nowhere else."""

import contextlib
import itertools
import json
import signal
import subprocess
import sys
from pathlib import Path

import flexai_native
import pytest

from flexai.adapters.nvidia.backend import NvidiaBackend

from .conftest import GIB, Refused, Rig, grant, wait_for
from .test_crashes import DYING, KEY

SIMCARD = flexai_native.program("flexai-simcard")
PROGRAM = """
import ctypes, json, os, subprocess, sys, time, uuid
cuda, nvml = ctypes.CDLL("libcuda.so.1"), ctypes.CDLL("libnvidia-ml.so.1")
bus, word = ctypes.create_string_buffer(32), ctypes.c_uint()
n, raw, index, text = ctypes.c_int(), (ctypes.c_ubyte * 16)(), ctypes.c_uint(), ctypes.create_string_buffer(96)
device, context, at = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_uint64()
free, total = ctypes.c_size_t(), ctypes.c_size_t()
holds = len(sys.argv) > 1

def call(function, *arguments):
    status = function(*arguments)
    assert status == 0, (function.__name__, status)

def look():
    call(cuda.cuDeviceGetCount, ctypes.byref(n))
    call(cuda.cuDeviceGetUuid_v2, ctypes.byref(raw), 0)
    call(nvml.nvmlInit_v2)
    call(nvml.nvmlDeviceGetHandleByIndex_v2, 0, ctypes.byref(device))
    call(nvml.nvmlDeviceGetUUID, device, text, 96)
    call(nvml.nvmlDeviceGetIndex, device, ctypes.byref(index))
    if holds:
        call(cuda.cuMemGetInfo_v2, ctypes.byref(free), ctypes.byref(total))
    named = "GPU-" + str(uuid.UUID(bytes=bytes(raw)))
    call(cuda.cuDeviceGetPCIBusId, bus, 32, 0)
    return {"n": n.value, "cuda": named, "nvml": text.value.decode(), "index": index.value, "total": total.value,
            "bus": bus.value.decode()}

def allocate(n_bytes):
    return cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(n_bytes))

call(cuda.cuInit, 0)
if holds:
    call(cuda.cuCtxCreate_v2, ctypes.byref(context), 0, 0)
    call(allocate, 1 << 29)
    held = ctypes.c_uint64(at.value)
    call(cuda.cuMemsetD32_v2, held, 0xABCD1234, ctypes.c_size_t(1 << 20))
    call(cuda.cuCtxSynchronize)
    print("ready", flush=True)
    while not os.path.exists(sys.argv[1]):
        time.sleep(0.01)
    call(cuda.cuMemcpyDtoH_v2, ctypes.byref(word), held, ctypes.c_size_t(4))
    said = {**look(), "word": hex(word.value), "refused": allocate(3 << 29)}
    call(allocate, 1 << 26)
    child = subprocess.run([sys.executable, os.environ["PROGRAM"]], capture_output=True, text=True)
    child = json.loads(child.stdout) if child.returncode == 0 else child.stderr
    print(json.dumps({**said, "child": child}), flush=True)
    time.sleep(60)
else:
    print(json.dumps(look()))
"""


class Moving(Rig):
    """An agent over two cards, and a program of job 1 that holds half a GiB of the first of them."""

    cap_bytes = GIB

    def begin(self, place=None, nth=1):
        self.find_cards()
        self.start_dying(place, nth) if place else self.start()
        (self.directory / "program.py").write_text(PROGRAM)
        environment = {"PROGRAM": str(self.directory / "program.py"), "PATH": "/usr/bin:/bin"}
        self.submit(
            "1", sys.executable, environment["PROGRAM"], str(self.directory / "go"), env=environment,
            prepare={"grants": [grant("1", self.first, memory_bytes=self.cap_bytes)]},
        )  # fmt: skip
        wait_for(lambda: "ready" in self.log("1"), 30, what=self.log("1"))
        return self

    def start_dying(self, place, nth):
        argv = [sys.executable, DYING, place, str(nth), "--run-dir", self.run, "--state-dir", self.state]
        with (self.directory / "agent.log").open("ab") as log:
            self.process = subprocess.Popen([*argv, *self.arguments], stderr=log)
        self.connect()

    def find_cards(self):
        self.socket = self.directory / "sim"
        self.daemon = subprocess.Popen(
            [SIMCARD, "--socket", self.socket, "--cards", "h200:2"], stdout=subprocess.PIPE, text=True
        )
        self.daemon.stdout.readline()
        self.arguments = (*self.arguments, "--simcard", str(self.socket))
        self.first, self.second = (row["uuid"] for row in self.shown())

    def shown(self):
        done = subprocess.run([SIMCARD, "--socket", self.socket, "show"], check=True, capture_output=True, text=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def holders(self):
        """Programs on each card that hold more than a rest."""
        return [sum(row["memory_bytes"] > GIB // 4 for row in card["processes"]) for card in self.shown()]

    def wake_on(self, card):
        return self.client.call("wake", grants=[grant("1", card, memory_bytes=self.cap_bytes)], **KEY)

    def answer(self):
        (self.directory / "go").touch()
        return json.loads(wait_for(lambda: self.log("1").splitlines()[1:], 20, what=self.log("1"))[0])

    def close(self):
        super().close()
        self.daemon.kill()
        self.daemon.wait()
        self.daemon.stdout.close()


@pytest.fixture
def moving(tmp_path):
    rig = Moving(tmp_path)
    yield rig
    rig.close()


def test_a_parked_program_goes_on_on_another_card_with_its_slice_and_so_does_what_it_starts(moving):
    rig = moving.begin()
    assert all(each["can_move_when_parked"] for each in rig.client.call("hello")["node"]["devices"])
    with pytest.raises(Refused, match="OtherDevices"):
        rig.wake_on(rig.second)  # it is not parked
    rig.client.call("park", **KEY)
    assert rig.holders() == [0, 0]
    with pytest.raises(Refused, match="NoSuchDevice"):
        rig.wake_on("GPU-nowhere")
    rig.wake_on(rig.second)
    assert rig.holders() == [0, 1]
    said = rig.answer()
    there = {"n": 1, "cuda": rig.second, "nvml": rig.second, "index": 0}
    assert said.items() >= {**there, "refused": 2, "total": GIB, "word": "0xabcd1234"}.items(), "its cap goes with it"
    assert said["child"].items() >= there.items()
    assert said["bus"] == said["child"]["bus"], "as a program says it that began there"


@pytest.mark.slow
def test_the_next_agent_knows_where_it_is_and_it_can_be_moved_again(moving):
    rig = moving.begin()
    rig.client.call("park", **KEY)
    rig.restart()
    rig.wake_on(rig.second)
    rig.restart()
    rig.client.call("resize", grants=[grant("1", rig.second, compute_milli=300)], **KEY)
    rig.client.call("park", **KEY)
    rig.client.call("wake", **KEY)
    assert rig.holders() == [0, 1], "that is its own card now"
    rig.client.call("park", **KEY)
    rig.wake_on(rig.first)
    assert rig.holders() == [1, 0]
    assert rig.answer()["cuda"] == rig.first


def test_what_does_not_fit_on_the_other_card_stays_parked_and_comes_back_to_its_own(moving):
    rig = moving.begin()
    rig.client.call("park", **KEY)
    fails = [SIMCARD, "--socket", rig.socket, "fail", "1", "79"]
    subprocess.run(fails, check=True, capture_output=True)
    with pytest.raises(Refused, match="cannot be woken"):
        rig.wake_on(rig.second)
    assert (rig.tenant("1")["parked"], rig.holders()) == (True, [0, 0])
    rig.client.call("wake", **KEY)
    assert rig.holders() == [1, 0]
    assert rig.answer()["nvml"] == rig.first


PLACES = [
    ("before:park", 1),
    ("after:park", 1),
    ("before:Wake", 1),
    ("before:wake", 1),
    ("after:wake", 1),
    ("after:Wake", 1),
]


@pytest.mark.parametrize(
    "place",
    [pytest.param(each, marks=[] if each[0] == "after:wake" else pytest.mark.slow) for each in PLACES],
    ids=lambda place: f"{place[0]}-{place[1]}",
)
def test_a_program_is_on_one_card_whenever_the_agent_is_killed_while_it_moves(moving, place):
    rig = moving.begin(*place)
    with contextlib.suppress(ConnectionError):
        rig.client.call("park", **KEY)
        rig.wake_on(rig.second)
    assert rig.process.wait(10) == -signal.SIGKILL
    rig.client.close()
    rig.start()
    if "park" in place[0]:  # the pool asks for what its book says, once more
        rig.client.call("park", **KEY)
        assert rig.holders() == [0, 0]
    rig.wake_on(rig.second)
    assert rig.holders() == [0, 1]
    assert rig.answer()["cuda"] == rig.second


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_there_and_back_it_is_on_one_card_whichever_write_or_request_the_agent_is_killed_before(moving):
    rig, n_points = moving.begin(), 0
    here, there = rig.first, rig.second
    for number in itertools.count(1):
        rig.kill()
        asked, died = "", False
        try:
            rig.start_dying("any", number)
            asked = "park"
            rig.client.call("park", **KEY)
            asked = "wake"
            rig.wake_on(there)
            asked = ""
            rig.tenant("1")
        except (OSError, AssertionError):
            assert rig.process.wait(10) == -signal.SIGKILL
            died = True
            rig.client.close()
            rig.start()
        if asked == "park":  # as the pool does, whose book says what is wanted
            rig.client.call("park", **KEY)
            assert rig.holders() == [0, 0], number
        if asked:
            rig.wake_on(there)
        if died and not asked and rig.holders() == [here == rig.first, here == rig.second]:
            continue  # it died before it was asked for anything
        assert rig.holders() == [there == rig.first, there == rig.second], number
        here, there = there, here
        n_points += died
        if not died:
            break
    assert n_points > 10
    assert rig.answer()["cuda"] == here


@pytest.mark.slow
def test_an_agent_that_ended_while_it_brought_one_elsewhere_is_told_to_park_it_or_to_bring_it_home(moving):
    rig = moving.begin("after:wake", 1)
    rig.client.call("park", **KEY)
    with pytest.raises(ConnectionError):
        rig.wake_on(rig.second)
    rig.process.wait(10)
    rig.client.close()
    rig.start()
    assert rig.holders() == [0, 1]
    rig.client.call("park", **KEY)
    assert rig.holders() == [0, 0]
    rig.client.call("wake", **KEY)
    assert rig.holders() == [1, 0], "the card that it is booked on"
    assert rig.answer()["nvml"] == rig.first


class OnRealCards(Moving):
    """The same on two real cards of one model, those of which the least is in use."""

    cap_bytes = 2 * GIB
    fake_cards = ()

    def find_cards(self):
        self.backend = NvidiaBackend()
        used = {reading.uuid: reading.used_bytes for reading in self.backend.readings()}
        by_model = {}
        for device in sorted(self.backend.devices(), key=lambda each: used[each.uuid]):
            by_model.setdefault(device.model, []).append(device.uuid)
        self.first, self.second = next((uuids for uuids in by_model.values() if len(uuids) > 1), (None, None))[:2]
        can, why_not = self.backend.can_move()
        if not can or self.second is None:
            pytest.skip(why_not or "no two cards of one model")

    def holders(self):
        inside = {
            int(pid)
            for path in Path("/proc").iterdir()
            if path.name.isdigit() and _carries(path, self.run)
            for pid in [path.name]
        }
        seen = [(one.uuid, one.pid) for one in self.backend.processes() if one.pid in inside]
        return [sum(uuid == card for uuid, _ in seen) for card in (self.first, self.second)]

    def close(self):
        Rig.close(self)
        self.backend.close()


def _carries(path, run_dir):
    try:
        return f"FLEXAI_TENANT_DIR={run_dir}/".encode() in (path / "environ").read_bytes()
    except OSError:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="no NVIDIA card")
def test_a_program_moves_between_two_real_cards(tmp_path):
    rig = OnRealCards(tmp_path)
    rig.client = None
    try:
        rig.begin()
        for card, where in ((rig.second, [0, 1]), (rig.first, [1, 0]), (rig.second, [0, 1])):
            out_s = rig.client.call("park", **KEY)["seconds"]
            assert rig.holders() == [0, 0]
            print(f"out {out_s:.2f} s, in on another card {rig.wake_on(card)['seconds']:.2f} s")
            assert rig.holders() == where
        said = rig.answer()
        print(said)
        there = {"n": 1, "cuda": rig.second, "nvml": rig.second, "index": 0}
        assert said.items() >= {**there, "refused": 2, "total": rig.cap_bytes, "word": "0xabcd1234"}.items()
        assert said["child"].items() >= there.items(), said["child"]
        assert said["bus"] == said["child"]["bus"], "as a program says it that began there"
    finally:
        rig.close()
