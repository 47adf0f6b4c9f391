"""The arbiter as a process: real programs on the simulated card, over its real socket."""

import contextlib
import ctypes
import os
import random
import signal
import time
from pathlib import Path

import flexai_native
import pytest

from flexai.model import TenantClass
from flexai.wire import arbiter

from .conftest import eventually

LEASE, HWSLICE = 1, 2


def state(pid):
    """Of a process, as ``ps`` says it: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@contextlib.contextmanager
def debugged(pid):
    """A debugger has all threads of a process in its hand, as ``gdb -p`` does."""
    seize, interrupt, detach, wait_all = 0x4206, 0x4207, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    for thread in threads:
        assert ptrace(seize, thread, None, None) == 0, os.strerror(ctypes.get_errno())
        assert ptrace(interrupt, thread, None, None) == 0
        os.waitpid(thread, wait_all)
    yield
    for thread in threads:
        assert ptrace(detach, thread, None, None) == 0


def shimmed(node, name, request, *arguments, **terms):
    """A tenant whose program has the shim, as the agent starts it."""
    assert node.put(name, None, request, **terms).code == ""
    process = node.run(name, *arguments, shimmed=True)
    assert node.put(name, process, request, **terms).code == ""
    return process


def test_two_floods_get_their_shares_without_taking_part(make_node):
    node = make_node()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    assert node.put("one", one, 300).code == ""
    assert node.put("two", two, 700).code == ""
    node.shares(0.5)
    shares = node.shares(2)
    assert abs(shares["one"] - 30) < 3
    assert abs(shares["two"] - 70) < 3
    assert node.usage().devices[0].backend == "hwslice"


def test_a_limit_holds_on_an_idle_card_and_changes_at_once(make_node):
    node = make_node()
    one = node.run("one", "flood")
    node.put("one", one, 300, 300)
    node.shares(0.3)
    assert abs(node.shares(1.5)["one"] - 30) < 3
    node.put("one", one, 600, 600)
    node.shares(0.2)
    assert abs(node.shares(1.5)["one"] - 60) < 3
    node.put("one", one, 600, 1000)
    node.shares(0.2)
    assert node.shares(1)["one"] > 97


def test_a_program_that_had_the_card_before_the_arbiter_came_is_seen(make_node):
    """Alone on the card it gives no sign by itself."""
    node = make_node()
    one = node.run("one", "flood")
    time.sleep(0.3)
    node.put("one", one, 500)
    node.eventually(lambda: node.usage().tenants and node.usage().tenants[0].held_ns > 0)


def test_idle_share_is_lent_and_taken_back(make_node):
    node = make_node()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 500)
    node.put("two", two, 500)
    node.shares(0.5)
    one.send_signal(signal.SIGSTOP)
    node.shares(0.2)
    assert node.shares(1)["two"] > 95
    one.send_signal(signal.SIGCONT)
    node.shares(0.2)
    assert abs(node.shares(1.5)["one"] - 50) < 4
    two.kill()
    node.shares(0.2)
    assert node.shares(1)["one"] > 95


@pytest.mark.slow
def test_a_suspended_tenant_has_nothing_until_it_is_resumed(make_node):
    node = make_node()
    one = node.run("one", "flood")
    node.put("one", one, 500)
    node.shares(0.3)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.shares(0.2)
    assert node.shares(0.5)["one"] == 0
    node.agent.ask(arbiter.Op.RESUME, tenant="one")
    node.shares(0.2)
    assert node.shares(0.5)["one"] > 95


def test_gates_hold_shares_where_nothing_else_can(make_node):
    node = make_node()
    node.prefer(LEASE)
    shimmed(node, "one", 300, "flood")
    shimmed(node, "two", 700, "flood")
    node.shares(1)
    shares = node.shares(2)
    print(shares, node.log())
    assert abs(shares["one"] - 30) < 3
    assert abs(shares["two"] - 70) < 3
    assert node.usage().devices[0].backend == "lease"


@pytest.mark.slow
def test_a_gated_limit_holds_on_an_idle_card(make_node):
    node = make_node()
    node.prefer(LEASE)
    shimmed(node, "one", 300, "flood", limit=300)
    node.shares(1)
    shares = node.shares(2)
    print(shares)
    assert abs(shares["one"] - 30) < 4


@pytest.mark.slow
def test_best_effort_has_what_is_idle(make_node):
    node = make_node()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 300)
    node.put("two", two, 0, tenant_class=TenantClass.BEST_EFFORT)
    node.shares(0.5)
    assert node.shares(1)["one"] > 95
    one.send_signal(signal.SIGSTOP)
    node.shares(0.3)
    assert node.shares(1)["two"] > 95


@pytest.mark.slow
def test_borrowers_have_what_is_idle_by_the_weights_that_they_were_told(make_node):
    node = make_node()
    small, large = node.run("small", "flood"), node.run("large", "flood")

    def tell(of_small, of_large):
        node.put("small", small, 0, tenant_class=TenantClass.BEST_EFFORT, borrow_weight=of_small)
        node.put("large", large, 0, tenant_class=TenantClass.BEST_EFFORT, borrow_weight=of_large)

    def told():
        table = arbiter.usage((node.run_dir / "usage").read_bytes())
        return {entry.tenant: entry.borrow_weight for entry in table.entries if entry.tenant != arbiter.OUTSIDE}

    tell(250, 750)
    node.shares(0.5)
    assert abs(node.shares(1.5)["small"] - 25) < 4
    tell(800, 200)
    node.shares(0.2)
    assert abs(node.shares(1.5)["small"] - 80) < 4
    node.eventually(lambda: told() == {"small": 800, "large": 200})
    node.arbiter.kill()
    node.arbiter.wait()
    node.start_arbiter()  # an agent sends every tenant again, as it has written it down
    tell(800, 200)
    node.shares(0.5)
    assert abs(node.shares(1.5)["small"] - 80) < 4
    message = node.put_message("small", small, 0, tenant_class=TenantClass.BEST_EFFORT, borrow_weight=1001)
    assert node.agent.send(message).code == "BadMessage"
    assert told() == {"small": 800, "large": 200}


def test_nobody_stays_stopped_when_the_arbiter_is_killed(make_node):
    node = make_node()
    node.start_guardian()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 10, 10)
    node.put("two", two, 100, 100)
    node.shares(0.7)
    node.arbiter.kill()
    node.arbiter.wait()
    node.eventually(lambda: "resumed" in node.log() and "is gone" in node.log(), 2)
    node.start_arbiter()
    assert "resumed" not in node.log().split("ready")[-1]
    node.put("one", one, 10, 10)
    node.put("two", two, 500, 500)
    node.shares(0.5)
    assert abs(node.shares(1.5)["two"] - 50) < 4


@pytest.mark.slow
def test_an_arbiter_that_hangs_is_overruled_by_its_guardian(make_node):
    node = make_node()
    node.start_guardian()
    one = node.run("one", "flood")
    node.put("one", one, 10, 10)
    node.shares(0.5)
    node.arbiter.send_signal(signal.SIGSTOP)
    node.eventually(lambda: "shows no life" in node.log(), 2)
    node.arbiter.send_signal(signal.SIGCONT)
    time.sleep(0.3)
    assert "took us for dead" in node.log()
    assert node.shares(1)["one"] < 5
    assert node.usage().tenants[0].hostile == 0, "it was resumed, and not by itself"


@pytest.mark.slow
def test_a_new_arbiter_resumes_what_the_last_one_had_stopped(make_node):
    node = make_node()
    one = node.run("one", "flood")
    node.put("one", one, 10, 10)
    node.shares(0.5)
    node.arbiter.kill()
    node.arbiter.wait()
    node.start_arbiter()
    assert "resumed 1 groups" in node.log()


@pytest.mark.parametrize("pause_s", [0.02, 0.1])
def test_a_program_that_resumes_itself_is_frozen_and_goes_on_when_it_may(make_node, pause_s):
    node = make_node()
    undo = f"{flexai_native.program('flexai-simcard')} --socket {node.socket} undo 0"
    flood = f"{flexai_native.program('flexai-workload')} flood"
    one = node.run_shell(f"{flood} & while :; do {undo} $!; sleep {pause_s}; done")
    node.put("one", one, 500)
    node.eventually(lambda: node.usage().tenants and node.usage().tenants[0].held_ns > 0)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.eventually(lambda: node.usage().tenants[0].frozen)
    assert node.usage().tenants[0].hostile >= 3
    assert state(one.pid) == "T"
    assert node.shares(0.5)["one"] < 1
    node.agent.ask(arbiter.Op.RESUME, tenant="one")
    node.eventually(lambda: not node.usage().tenants[0].frozen)
    node.eventually(lambda: state(one.pid) != "T")
    assert node.eventually(lambda: node.shares(0.3)["one"] > 80)


@pytest.mark.parametrize("pause_s", [0.02, 0.1])
def test_what_was_frozen_goes_on_when_the_arbiter_is_killed(make_node, pause_s):
    node = make_node()
    node.start_guardian()
    undo = f"{flexai_native.program('flexai-simcard')} --socket {node.socket} undo 0"
    flood = f"{flexai_native.program('flexai-workload')} flood"
    one = node.run_shell(f"{flood} & while :; do {undo} $!; sleep {pause_s}; done")
    node.put("one", one, 500)
    node.eventually(lambda: node.usage().tenants and node.usage().tenants[0].held_ns > 0)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.eventually(lambda: state(one.pid) == "T")
    node.arbiter.kill()
    node.eventually(lambda: state(one.pid) != "T")


@pytest.fixture
def member(cgroup2):
    """A member's group as the agent makes it: its processes are in ``work``."""
    group = (cgroup2 or Path("/nowhere")) / f"flexai-test-{os.getpid()}"
    try:
        (group / "work").mkdir(parents=True)
        assert (group / "work" / "cgroup.freeze").exists()
    except OSError:
        pytest.skip("needs cgroup v2, and the right to make groups")
    yield group
    (group / "cgroup.kill").write_text("1")
    for path in (group / "work", group):
        eventually(lambda path=path: removed(path))


def removed(path):
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


def test_a_program_that_undoes_its_stops_is_frozen_by_its_group_and_nothing_it_forks_or_signals_helps(
    make_node, member
):
    node = make_node()
    node.start_guardian()
    freeze, work = member / "work" / "cgroup.freeze", member / "work" / "cgroup.procs"
    undo = f"{flexai_native.program('flexai-simcard')} --socket {node.socket} undo 0"
    flood = f"{flexai_native.program('flexai-workload')} flood"
    helps = f"while :; do {undo} $!; kill -CONT $!; sleep 0.02; done"
    one = node.run_shell(f"echo $$ > {work}; {flood} & {helps}")
    assert node.agent.send(node.put_message("one", one, 500, cgroup=f"/{member.name}")).code == ""
    node.eventually(lambda: node.usage().tenants and node.usage().tenants[0].held_ns > 0)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.eventually(lambda: node.usage().tenants[0].frozen == "group")
    node.eventually(lambda: "frozen 1" in (member / "work" / "cgroup.events").read_text())
    for pid in work.read_text().split():
        os.kill(int(pid), signal.SIGCONT)
    node.eventually(lambda: node.shares(0.3)["one"] < 1)  # what it undid last is undone once more
    assert freeze.read_text().strip() == "1"
    (member / "cgroup.freeze").write_text("1")  # a pause by its user is another matter, one group above
    node.agent.ask(arbiter.Op.RESUME, tenant="one")
    node.eventually(lambda: freeze.read_text().strip() == "0")
    assert (member / "cgroup.freeze").read_text().strip() == "1"
    (member / "cgroup.freeze").write_text("0")
    assert node.eventually(lambda: node.shares(0.3)["one"] > 80)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.eventually(lambda: freeze.read_text().strip() == "1")
    node.arbiter.kill()
    node.eventually(lambda: freeze.read_text().strip() == "0")


def test_a_debugger_on_a_tenant_that_is_stopped_holds_up_nobody(make_node):
    node = make_node()
    one, two = node.run("one", "flood"), node.run("two", "flood")
    node.put("one", one, 300)
    node.put("two", two, 700)
    node.shares(0.5)
    node.agent.ask(arbiter.Op.SUSPEND, tenant="one")
    node.shares(0.1)
    with debugged(one.pid):
        shares = node.shares(1)
        assert shares["one"] == 0
        assert shares["two"] > 90
        node.agent.ask(arbiter.Op.RESUME, tenant="one")
        assert node.shares(1)["two"] > 70 - 2, "what the other had queued runs, and no more comes"
    node.eventually(lambda: abs(node.shares(0.7)["one"] - 30) < 6, 6)
    assert not any(entry.hostile for entry in node.usage().tenants)


def test_malformed_messages_are_refused_and_change_nothing(make_node):
    node = make_node()
    good = arbiter.message(arbiter.Op.HELLO, 1)
    for bad in (b"", b"x", good[:-1], b"\xff" * len(good), good[:4] + b"\x7f" + good[5:]):
        if bad:
            assert node.agent.send(bad).code == "BadVersion"
    assert node.agent.ask(arbiter.Op.SUSPEND, tenant="nobody").code == "UnknownTenant"
    assert node.agent.ask(arbiter.Op.HELLO).code == ""


def test_no_message_stops_the_arbiter(make_node):
    node = make_node()
    one = node.run("one", "flood")
    node.put("one", one, 300, 300)
    chance = random.Random(int(os.environ.get("FLEXAI_FUZZ_SEED", "7")))
    for _ in range(400):
        message = bytearray(node.put_message("one", one, 300))
        for _ in range(chance.randint(1, 6)):
            at = chance.choice(
                [chance.randrange(16, len(message)), chance.randrange(12, 100), chance.randrange(650, 768)]
            )
            message[at] = chance.choice([0, 1, 2, 5, 0x2F, 0x7F, 0xFF, chance.randrange(256)])
        node.agent.send(bytes(message))
    assert node.arbiter.poll() is None
    for name in {entry.tenant for entry in node.usage().tenants} - {"outside"}:
        node.agent.ask(arbiter.Op.TENANT_GONE, tenant=name)
    node.put("one", one, 300, 300)
    node.shares(0.4)
    assert abs(node.shares(1)["one"] - 30) < 4


@pytest.mark.slow
def test_cards_whose_control_fails_are_given_gates_and_tried_again(make_node):
    node = make_node()
    one = node.run("one", "flood")
    node.put("one", one, 300, 300)
    node.shares(0.5)
    node.simcard.kill()
    node.simcard.wait()
    node.eventually(lambda: node.usage().devices[0].backend == "lease")
    assert "control failed" in node.usage().devices[0].note
    node.start_simcard()
    node.eventually(lambda: node.usage().devices[0].backend == "hwslice", 8)
    two = node.run("two", "flood")
    node.put("two", two, 400, 400)
    node.shares(0.3)
    assert abs(node.shares(1.5)["two"] - 40) < 4


def test_one_thread_holds_the_shares_of_four_cards(make_node):
    node = make_node("h200:4")
    for card in range(4):
        for name, share in (("a", 300), ("b", 700)):
            tenant = f"{name}{card}"
            node.put(tenant, node.run(tenant, "flood", "--device", card, "--kernel-us", 4000), share, card=card)
    node.shares(0.7)

    def all_near():
        shares = node.shares(2)
        return all(abs(shares[f"a{card}"] - 30) < 4 for card in range(4))

    node.eventually(all_near, 12)  # eight programs on a busy machine: some do not keep their queues full


@pytest.mark.slow
def test_eight_idle_cards_cost_next_to_nothing(make_node):
    node = make_node("h200:8")
    for card in range(8):
        node.put(
            f"idle{card}", node.run(f"idle{card}", "latency", "--period-us", 60e6, "--device", card), 500, card=card
        )
    node.shares(1)
    before = node.cpu_s()
    time.sleep(5)
    used = (node.cpu_s() - before) / 5
    print("cpu", used)
    assert used < 0.02
