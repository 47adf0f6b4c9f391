"""cc_nvidia's parts against a driver made of memory, under ASan and UBSan; on a real card, see tests/gpu."""

import json
import subprocess
from pathlib import Path

import flexai_native
import pytest

NVIDIA = Path(__file__).parents[2] / "native" / "arbiter" / "nvidia"
SOURCES = [
    *sorted(p for p in NVIDIA.glob("*.c") if not p.name.startswith("probe")),
    *sorted((NVIDIA / "tests").glob("*.c")),
]
FLAGS = [
    "-std=gnu11",
    "-D_GNU_SOURCE",
    "-g",
    "-O1",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-Wall",
    "-Wextra",
    "-Werror",
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("nvidia") / "nvidia_test"
    include = [f"-I{NVIDIA}", f"-I{NVIDIA.parents[1] / 'include'}"]
    subprocess.run(["gcc", *FLAGS, *include, "-o", path, *SOURCES], check=True)
    return path


def test_every_case_against_the_driver_of_memory_holds(program):
    cases = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert len(cases) >= 40
    failed = {}
    for case in cases:
        done = subprocess.run([program, case], check=False, capture_output=True, text=True)
        if done.returncode:
            failed[case] = done.stderr[-2000:]
    assert not failed


def test_nvprobe_explains_itself_and_says_that_there_is_no_card():
    nvprobe = flexai_native.program("flexai-nvprobe")
    wrong = subprocess.run([nvprobe, "dance"], check=False, capture_output=True, text=True)
    assert wrong.returncode != 0
    assert "usage" in wrong.stderr or "no card" in wrong.stderr
    done = subprocess.run([nvprobe], check=False, capture_output=True, text=True)
    for line in done.stdout.splitlines():
        assert "check" in json.loads(line)
    if not done.stdout:
        assert done.returncode == 1
        assert "no NVIDIA card" in done.stderr


def test_free_memory_without_a_card_is_told_and_nothing_is_waited_for():
    words = [flexai_native.program("flexai-nvprobe"), "memory"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20)
    if done.returncode:
        assert "no card" in done.stderr or "free memory" in done.stderr
    else:
        assert [json.loads(line)["free_bytes"] > 0 for line in done.stdout.splitlines()] == [True, True]
