"""Each row of the table of faults names tests that there are."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "crash-safety.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("| fault |")[1].splitlines()
    if line.startswith("| ")
]


@cache
def names(path):
    """The tests of a file."""
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


def file_of(name):
    return ROOT / (name if name.startswith("tests/") else f"tests/native/arbiter/{name}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_a_fault_is_held_by_tests_that_there_are(row):
    _, _, _, held_by = row
    told = re.findall(r"`([^`:]+)::(\w+)`", held_by)
    assert told, "every fault has its test"
    for file, name in told:
        assert name in names(file_of(file)), f"{file} has no {name}"


def test_the_table_is_read_whole():
    assert len(ROWS) > 20
