"""What tenants do to themselves and to us, with real processes: nobody else notices, and nothing hangs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flexai.wire import arbiter

from .conftest import Agent

LEASE = 1


@pytest.mark.slow
def test_a_tenant_that_is_killed_while_our_side_is_stopped_leaves_nothing(make_node):
    """Arbiter and guardian are stopped as by a debugger, with the tenant stopped on its card; then they go on."""
    node = make_node()
    node.start_guardian()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 500)
    node.put("two", two, 500)
    node.shares(0.5)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    time.sleep(0.1)
    for ours in (node.arbiter, node.guardian):
        ours.send_signal(signal.SIGSTOP)
    one.kill()
    one.wait()
    time.sleep(0.3)
    for ours in (node.guardian, node.arbiter):
        ours.send_signal(signal.SIGCONT)
    node.shares(0.3)
    assert node.eventually(lambda: node.shares(0.5)["two"] > 95)
    three = node.run("three", "flood")
    node.put("three", three, 500)
    assert node.eventually(lambda: abs(node.shares(1)["three"] - 50) < 4)


def test_a_ledger_that_its_tenant_cuts_or_spoils_hurts_nobody_else(make_node):
    """With gates the arbiter reads it while it takes turns."""
    node = make_node()
    node.prefer(LEASE)
    for name, request in (("good", 400), ("cut", 300), ("noise", 300)):
        assert node.put(name, None, request).code == ""
        process = node.run(name, "flood", shimmed=True)
        assert node.put(name, process, request).code == ""
    node.shares(0.7)
    os.truncate(Path(node.regions.directory("cut")) / "ledger", 100)
    noise = Path(node.regions.directory("noise")) / "ledger"
    with noise.open("r+b") as ledger:
        ledger.write(os.urandom(noise.stat().st_size))
    node.shares(0.5)
    assert node.shares(1.5)["good"] >= 40 - 2
    assert node.arbiter.poll() is None


@pytest.mark.slow
def test_a_tenant_stopped_with_work_in_flight_holds_up_nobody(make_node):
    """SIGSTOP: what it has queued runs, within its share; then the other has the card, until it goes on."""
    node = make_node()
    one, two = node.run("one", "flood", "--depth", 64), node.run("two", "flood")
    node.put("one", one, 300)
    node.put("two", two, 700)
    node.shares(0.5)
    one.send_signal(signal.SIGSTOP)
    assert node.shares(1)["two"] >= 70 - 2
    assert node.shares(0.5)["two"] > 95
    one.send_signal(signal.SIGCONT)
    assert node.eventually(lambda: abs(node.shares(1)["one"] - 30) < 4)


def two_floods(make_node):
    """Two programs that fill the card, 30 and 70, in the hardware's own turns."""
    node = make_node()
    for name, request in (("one", 300), ("two", 700)):
        node.put(name, node.run(name, "flood"), request)
    node.shares(0.7)
    return node


def at_their_requests(shares):
    return shares["one"] >= 30 - 2 and shares["two"] >= 70 - 2


def test_an_agent_that_is_killed_costs_nobody_its_share(make_node):
    node = two_floods(make_node)
    node.agent.line.close()
    assert at_their_requests(node.shares(1))
    assert len(node.usage().tenants) == 2, "they are held as before, until another agent says otherwise"


FLOOD = """
import socket, sys, time
n, until = 0, time.monotonic() + float(sys.argv[2])
print("begins", flush=True)
while time.monotonic() < until:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
            line.connect(sys.argv[1])
            for _ in range(20):
                line.send(b"x" * 700)
                n += 1
    except OSError:
        pass
print(n)
"""


def test_a_process_that_floods_the_arbiters_socket_costs_nobody_its_share(make_node):
    """As one of our own user can; any other is turned away as it connects."""
    node = two_floods(make_node)
    flood = [sys.executable, "-c", FLOOD, str(node.run_dir / "arbiter.sock"), "1.8"]
    with subprocess.Popen(flood, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begins\n"
        assert at_their_requests(node.shares(1))
        assert int(process.stdout.readline()) > 100
    assert node.arbiter.poll() is None
    agent = Agent(node.run_dir / "arbiter.sock")
    assert agent.ask(arbiter.Op.SUSPEND, tenant="one").code == ""
    agent.line.close()
    assert node.eventually(lambda: node.shares(0.5)["two"] > 95)
