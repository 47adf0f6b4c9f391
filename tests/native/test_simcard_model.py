"""The simulated card's model: exact, deterministic, as an H200 was measured to behave. Runs under ASan and UBSan."""

import subprocess
from pathlib import Path

import pytest

SIMCARD = Path(__file__).parents[2] / "native" / "simcard"
SOURCES = [
    *sorted((SIMCARD / "model").glob("*.c")),
    SIMCARD / "virtual" / "virtual.c",
    SIMCARD / "tests" / "model_test.c",
]
FLAGS = [
    "-std=c11",
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
    path = tmp_path_factory.mktemp("simcard") / "model_test"
    include = f"-I{SIMCARD.parent / 'include'}"
    subprocess.run(["gcc", *FLAGS, include, "-o", path, *SOURCES], check=True)
    return path


def test_every_case_of_the_model_holds(program):
    cases = subprocess.run([program, "--list"], check=True, capture_output=True, text=True).stdout.split()
    assert len(cases) >= 12
    failed = {}
    for case in cases:
        done = subprocess.run([program, case], check=False, capture_output=True, text=True)
        if done.returncode:
            failed[case] = done.stderr
    assert failed == {}
