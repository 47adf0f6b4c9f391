"""Who had the card, as the arbiter tells it while it runs: the same as its accounts say."""

import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict

import pytest

from flexai.adapters.shm import TimelineFile
from flexai.wire.timeline import Kind, spans

LEASE = 1


@pytest.fixture
def node(make_node):
    return make_node()


def watched(node, seconds):
    """(what it did, tenant) -> ns, and the account's card time of each tenant, over the same seconds."""
    ring = TimelineFile(node.run_dir / "timeline")
    told = ring.read()
    before = node.usage()
    time.sleep(seconds)
    after = node.usage()
    told += ring.read()
    did = defaultdict(int)
    for span in spans(told, before.heartbeat_ns, after.heartbeat_ns):
        did[span.what, span.tenant] += span.end_ns - span.begin_ns
    was = {entry.tenant: entry.held_ns for entry in before.tenants}
    held = {entry.tenant: entry.held_ns - was.get(entry.tenant, 0) for entry in after.tenants}
    return did, held, after.heartbeat_ns - before.heartbeat_ns


def test_the_timeline_adds_up_to_the_accounts(node):
    node.put("one", node.run("one", "flood"), 300)
    node.put("two", node.run("two", "flood"), 700)
    node.shares(0.5)
    did, held, took_ns = watched(node, 1.5)
    for tenant in ("one", "two"):
        # The account is published every 100 ms and charged up to the last reading of the log.
        assert abs(did["runs", tenant] - held[tenant]) < 60_000_000
        # Tenants that fill the card share it by the hardware's own turns.
        assert did["stopped", tenant] == 0
    assert did["runs", "one"] + did["runs", "two"] + did["idle", ""] <= took_ns


def test_tenants_that_do_not_fill_the_card_take_turns_and_are_stopped_between(node):
    node.put("one", node.run("one", "step", "--kernel-us", 1000), 300)
    node.put("two", node.run("two", "step", "--kernel-us", 1000), 700)
    node.shares(1)
    did, _, took_ns = watched(node, 2)
    for tenant in ("one", "two"):
        assert did["turn", tenant] > 0
        # While the one has its turn the other is stopped.
        assert did["stopped", tenant] > 0.1 * took_ns


def test_with_gates_it_is_whose_turn_it_is(node):
    node.prefer(LEASE)
    for name in ("one", "two"):
        node.put(name, None, 500)
        node.put(name, node.run(name, "flood", shimmed=True), 500)
    node.shares(0.5)
    did, held, took_ns = watched(node, 1.0)
    for tenant in ("one", "two"):
        assert abs(did["runs", tenant] - held[tenant]) < 0.25 * took_ns
        assert did["stopped", tenant] > 0.1 * took_ns


def test_nothing_is_stopped_any_more_when_a_new_arbiter_began(node):
    one = node.run("one", "flood")
    node.put("one", one, 100, 100)
    node.shares(0.5)
    ring = TimelineFile(node.run_dir / "timeline")
    told = ring.read()
    node.arbiter.send_signal(signal.SIGKILL)
    node.arbiter.wait()
    node.start_arbiter()
    node.eventually(lambda: told.extend(ring.read()) or told[-1].kind is Kind.BEGAN)
    began_ns = told[-1].at_ns
    stops = [span for span in spans(told, 0, began_ns + 10**9) if span.what == "stopped"]
    assert stops
    assert max(span.end_ns for span in stops) <= began_ns


def test_a_process_that_died_while_stopped_is_not_shown_as_stopped(node):
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 300)
    node.put("two", two, 700)
    node.shares(0.5)
    one.kill()
    one.wait()
    node.shares(0.5)
    told = TimelineFile(node.run_dir / "timeline").read()
    now_ns = time.monotonic_ns()
    assert not [span for span in spans(told, now_ns, now_ns + 1) if span.what == "stopped"]


def test_the_arbiter_goes_on_without_room_for_a_timeline(node):
    node.arbiter.send_signal(signal.SIGTERM)
    node.arbiter.wait()
    (node.run_dir / "timeline").unlink()
    (node.run_dir / "timeline").mkdir()
    node.start_arbiter()
    assert "no timeline" in node.log()
    node.put("one", node.run("one", "flood"), 1000)
    node.shares(0.3)
    assert node.shares(0.5)["one"] > 50


def test_time_slices_that_are_set_are_told(node):
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 300)
    node.put("two", two, 700)
    node.shares(0.5)
    told = TimelineFile(node.run_dir / "timeline").read()
    sliced = {record.pid for record in told if record.kind is Kind.SLICED}
    assert {one.pid, two.pid} <= sliced
    assert all(record.context > 0 for record in told if record.kind is Kind.SLICED)


def test_when_a_process_can_be_stopped_is_told_once(node):
    one = node.run("one", "flood")
    node.put("one", one, 300)
    node.shares(0.5)
    told = TimelineFile(node.run_dir / "timeline").read()
    assert [(r.tenant, r.pid, r.context > 0) for r in told if r.kind is Kind.FOUND] == [("one", one.pid, True)]


THREADS = """
import ctypes, mmap, sys, threading
cuda, context, ending = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), threading.Event()
assert not cuda.cuInit(0) and not cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
threads = [threading.Thread(target=ending.wait) for _ in range(2)]
for thread in threads: thread.start()
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
print("ready", flush=True); sys.stdin.readline(); ending.set()
for thread in threads: thread.join()
print("alone", flush=True); sys.stdin.readline()
"""


def with_threads(node, ring, told, host_bytes):
    """A tenant's process with two threads beside its first, known to the arbiter."""
    words = [sys.executable, "-c", THREADS, str(host_bytes)]
    process = subprocess.Popen(
        words, env=node.environment("one", shimmed=False), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    node.programs.append(process)
    assert process.stdout.readline() == "ready\n"
    node.put("one", process, 500)
    node.eventually(lambda: told.extend(ring.read()) or any(r.kind is Kind.FOUND for r in told))
    return process


def threads_are_watched():
    """Whether the kernel tells of the end of single threads (Linux 6.9)."""
    try:
        os.close(os.pidfd_open(os.getpid(), os.O_EXCL))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not threads_are_watched(), reason="a kernel that tells of whole processes only")
def test_a_process_is_let_go_when_it_is_dying_before_it_is_gone(node):
    ring, told = TimelineFile(node.run_dir / "timeline"), []
    process = with_threads(node, ring, told, 1 << 30)  # which the kernel takes down with it, in a tenth of a second
    end = os.pidfd_open(process.pid)
    try:
        process.kill()
        assert select.select([end], [], [], 20)[0]
        gone_ns = time.monotonic_ns()
    finally:
        os.close(end)
        process.stdin.close()
    node.eventually(lambda: told.extend(ring.read()) or any(r.kind is Kind.RESUMED for r in told))

    assert next(r.at_ns for r in told if r.kind is Kind.RESUMED) < gone_ns


def test_a_process_goes_on_that_lost_the_threads_by_which_its_end_is_seen(node):
    ring, told = TimelineFile(node.run_dir / "timeline"), []
    process = with_threads(node, ring, told, 4096)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "alone\n"
    node.shares(0.3)
    told.extend(ring.read())
    assert not [r for r in told if r.kind is Kind.RESUMED]
    process.kill()
    node.eventually(lambda: told.extend(ring.read()) or any(r.kind is Kind.RESUMED for r in told))
    process.stdin.close()
