"""Where members' processes are in cgroup v2, and who freezes what: on files alone, and on the kernel where we may."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexai.adapters.local import processes
from flexai.adapters.local.cgroups import Cgroups
from flexai.adapters.local.delegated import OWN_LEAF, Group, own_group

from .conftest import wait_for

TICK = "import os, sys, time\nopen(sys.argv[1], 'w').write('0')\nwhile 1: print(1, flush=True); time.sleep(0.01)"


@pytest.fixture
def files(tmp_path):
    """A directory that looks like the root of a cgroup v2 mount; nothing in it is a kernel's."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    return tmp_path


def test_processes_go_one_group_below_the_one_that_is_limited_and_frozen_for_users(files):
    groups = Cgroups("pool", files)
    place = groups.make("7.0", 500, 1 << 30, [], [])
    member = files / "flexai/pool/7.0"
    assert place.cgroup == "/flexai/pool/7.0"
    assert groups.hostile_frozen_by == "group"
    assert place.join_files == (str(member / "work/cgroup.procs"),)
    assert (member / "cpu.max").read_text() == "50000 100000"
    assert (member / "memory.max").read_text() == str(1 << 30)
    groups.freeze("7.0", frozen=True)
    assert (member / "cgroup.freeze").read_text() == "1"
    assert not (member / "work/cgroup.freeze").exists(), "that one is the arbiter's"
    groups.admit("7.0", 123)
    assert (member / "work/cgroup.procs").read_text() == "123\n"
    assert groups.pids("7.0") == [123]


def test_groups_below_one_that_was_given_to_a_user_have_its_path_before_theirs(files):
    groups = Cgroups("pool", files, "/user.slice/flexai.service")
    assert groups.make("7.0", 0, 0, [], []).cgroup == "/user.slice/flexai.service/flexai/pool/7.0"


def test_the_group_given_to_a_user_is_that_above_the_leaf_of_its_daemons_where_it_may_be_written(tmp_path, monkeypatch):
    given = tmp_path / "user.slice/flexai.service"
    given.mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"30 23 0:26 / /proc rw - proc proc rw\n31 23 0:27 /user.slice {tmp_path}/user.slice rw - cgroup2 c rw\n"
    )
    lines = [("freezer", "/x"), ("", f"/user.slice/flexai.service/{OWN_LEAF}")]
    monkeypatch.setattr(processes, "cgroup_lines", lambda _: lines)
    assert own_group(mounts) == f"{given} is not this user's", "its processes may not be moved"
    (given / "cgroup.procs").touch()
    assert own_group(mounts) == f"no cgroup v2 at {given} and no freezer hierarchy", "nothing can be made there"
    (given / "cgroup.controllers").touch()
    assert own_group(mounts) == Group("/user.slice/flexai.service", given)
    lines[1] = ("", "/user.slice/flexai.service")
    assert own_group(mounts) == Group("/user.slice/flexai.service", given)
    lines[1] = ("", "/elsewhere")
    assert own_group(mounts) == "no cgroup v2 is mounted"


@pytest.fixture
def groups(cgroup2):
    if os.geteuid() != 0 or cgroup2 is None:
        pytest.skip("needs cgroup v2 and root")
    made = Cgroups(f"test-v2-{os.getpid()}", cgroup2)
    yield made
    made.remove("1.0")
    made.close()
    assert not Path(cgroup2, f"flexai/test-v2-{os.getpid()}").exists()


def test_a_member_goes_on_only_when_neither_its_user_nor_the_arbiter_freezes_it(groups):
    place = groups.make("1.0", 0, 0, [], [])
    member = subprocess.Popen([sys.executable, "-c", TICK, place.join_files[0]], stdout=subprocess.PIPE)
    os.set_blocking(member.stdout.fileno(), False)
    work = Path(place.join_files[0]).parent

    def is_frozen():
        wait_for(lambda: "frozen 1" in (work / "cgroup.events").read_text())
        member.stdout.read()
        time.sleep(0.2)
        return not member.stdout.read()

    assert wait_for(member.stdout.read)
    assert groups.holder(member.pid) == "1.0"
    groups.freeze("1.0", frozen=True)
    assert is_frozen()
    (work / "cgroup.freeze").write_text("1")
    groups.freeze("1.0", frozen=False)
    assert is_frozen()
    (work / "cgroup.freeze").write_text("0")
    assert wait_for(member.stdout.read)
    (work / "cgroup.freeze").write_text("1")
    assert groups.signal("1.0", 9) == 1, "what is frozen can still be killed"
    assert member.wait(timeout=10) == -9
    member.stdout.close()
