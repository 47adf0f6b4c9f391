"""On cgroup v2, a device node that was not granted cannot be opened; what was granted can, also after a change."""

import os
import subprocess
import sys

import pytest

from flexai.adapters.local import device_filter
from flexai.adapters.local.cgroups import Cgroups

OPENS = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
for file in sys.argv[2:]:
    try:
        open(file, "rb").close(); print("open")
    except PermissionError:
        print("refused")
"""
NULL, ZERO, FULL = "/dev/null", "/dev/zero", "/dev/full"


def may_filter() -> bool:
    try:
        os.close(device_filter._load(device_filter.instructions([])))
    except OSError:
        return False
    return os.geteuid() == 0


@pytest.fixture
def groups(cgroup2):
    if cgroup2 is None or not may_filter():
        pytest.skip("needs cgroup v2 and the right to load BPF programs")
    made = Cgroups(f"test-{os.getpid()}", cgroup2)
    yield made
    made.remove("1.0")
    made.close()


def opened(place, *files: str) -> list[str]:
    argv = [sys.executable, "-c", OPENS, place.join_files[0], *files]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.split()


def test_only_what_is_denied_is_refused_and_a_change_replaces_what_was_said_before(groups, cgroup2):
    place = groups.make("1.0", 0, 0, [NULL], [ZERO, FULL, "/dev/no-such-card"])
    assert opened(place, NULL, ZERO, FULL) == ["open", "refused", "refused"]
    place = groups.make("1.0", 0, 0, [ZERO], [FULL])
    assert opened(place, NULL, ZERO, FULL) == ["open", "open", "refused"]
    assert not [note for note in groups.notes() if "cards" in note]
    directory = os.open(cgroup2 / place.cgroup.lstrip("/"), os.O_RDONLY)
    assert len(device_filter._attached(directory)) == 1
    os.close(directory)


def test_a_kernel_that_refuses_is_said_and_stops_nothing(groups, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(device_filter, "deny", refuse)
    place = groups.make("1.0", 0, 0, [], [ZERO])
    assert opened(place, ZERO) == ["open"]
    assert any("cards not granted can be opened" in note for note in groups.notes())
