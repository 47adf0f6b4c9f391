"""`flexai up` keeps processes alive, and what a killed `up` left running is taken over, not started twice."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from flexai_native import program

from flexai.adapters.settings import Settings
from flexai.apps.cli.up.going_on import jobs_that_go_on
from flexai.apps.cli.up.keeper import Keeper, start_ticks, stop_process
from flexai.apps.cli.up.lock import AlreadyUp, lock_holder, take_lock
from flexai.apps.cli.up.machine import accelerators
from flexai.apps.cli.up.plan import MODELS, Process, check_cards, check_socket_path, processes
from flexai.node import Phase, Tenant
from flexai.wire import checkpoint
from flexai.wire.errors import BadInput

SLEEPS = "import time; time.sleep(600)"
DIES = "raise SystemExit(3)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def part(name, program=SLEEPS, holds_jobs=False, socket=None):
    return Process(name, (sys.executable, "-c", program), socket, holds_jobs)


@pytest.fixture
def keep(tmp_path):
    made, said = [], []

    def make(*parts):
        keeper = Keeper(parts, tmp_path, said.append)
        made.append(keeper)
        return keeper

    make.said = said
    yield make
    for keeper in made:
        keeper.stop(leave_holders=False)


def pid_of(tmp_path, name):
    return json.loads((tmp_path / "up.json").read_text())[name]["pid"]


def until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def start_all(keeper):
    keeper.adopt()
    for one in keeper.processes:
        keeper.start(one)


def test_a_process_that_is_killed_is_started_again_and_the_reason_is_said(keep, tmp_path):
    keeper = keep(part("pool"))
    start_all(keeper)
    first = pid_of(tmp_path, "pool")
    os.kill(first, signal.SIGKILL)
    assert keeper.wait(5.0) == {"pool": "by SIGKILL"}
    until(lambda: keeper.wait(0.05) == {} and keeper.alive("pool"))
    assert pid_of(tmp_path, "pool") != first
    assert any("SIGKILL" in line and "pool.log" in line for line in keep.said)


def test_a_process_that_was_told_to_shut_down_is_not_started_again(keep, tmp_path):
    keeper = keep(Process("pool", (sys.executable, "-c", ""), None, holds_jobs=False, may_end=True))
    start_all(keeper)
    assert keeper.wait(5.0) == {"pool": "exit code 0"}
    assert keeper.wait(0.5) == {}
    assert not keeper.alive("pool")


def test_the_pause_before_a_restart_grows_with_each_early_death(keep, tmp_path):
    keeper = keep(part("pool", DIES))
    start_all(keeper)
    n_ends, began = 0, time.monotonic()
    while n_ends < 3:
        n_ends += len(keeper.wait(1.0))
    assert time.monotonic() - began > 0.2 + 0.4
    pauses = [line.partition("again in ")[2].partition(" ")[0] for line in keep.said if "again in" in line]
    assert pauses[:3] == ["0.2", "0.4", "0.8"]
    assert all("exit code 3" in line for line in keep.said if "again in" in line)


def test_what_a_killed_up_left_running_is_taken_over_and_still_watched(keep, tmp_path):
    script = (
        "import sys; from pathlib import Path; from flexai.apps.cli.up.keeper import Keeper\n"
        "from flexai.apps.cli.up.plan import Process\n"
        f"parts = [Process(name, ({sys.executable!r}, '-c', {SLEEPS!r}), None, True) for name in ('arbiter', 'pool')]\n"
        f"keeper = Keeper(tuple(parts), Path({str(tmp_path)!r}), print); keeper.adopt()\n"
        "[keeper.start(part) for part in parts]\n"
        "print('started', flush=True); sys.stdin.read()\n"
    )
    killed = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stdout.readline() == "started\n"
    killed.kill()
    killed.communicate()
    left = pid_of(tmp_path, "arbiter")
    keeper = keep(part("arbiter", holds_jobs=True), part("pool", holds_jobs=True))
    assert keeper.adopt() == ["arbiter", "pool"]
    keeper.start(keeper.processes[0])
    assert pid_of(tmp_path, "arbiter") == left
    os.kill(left, signal.SIGKILL)
    assert keeper.wait(5.0) == {"arbiter": "of an earlier `up`"}
    until(lambda: keeper.wait(0.05) == {} and keeper.alive("arbiter"))


def test_a_process_of_an_earlier_up_with_other_words_is_replaced(keep, tmp_path):
    first = keep(part("simcard", SLEEPS + " # h200:2"))
    start_all(first)
    old = pid_of(tmp_path, "simcard")
    second = keep(part("simcard", SLEEPS + " # h200:4"))
    assert second.adopt() == []
    assert start_ticks(old) is None
    assert any("replaced" in line for line in keep.said)
    first.wait(1.0)


def test_a_recorded_pid_that_now_belongs_to_someone_else_is_left_alone(keep, tmp_path):
    (tmp_path / "up.json").write_text(json.dumps({"pool": {"pid": os.getpid(), "start_ticks": 1, "argv": []}}))
    assert keep(part("pool")).adopt() == []
    (tmp_path / "up.json").write_text("{broken")
    assert keep(part("pool")).adopt() == []


def test_holders_of_jobs_stay_when_jobs_go_on(keep, tmp_path):
    keeper = keep(part("arbiter", holds_jobs=True), part("pool"))
    start_all(keeper)
    arbiter, pool = pid_of(tmp_path, "arbiter"), pid_of(tmp_path, "pool")
    keeper.stop(leave_holders=True)
    assert start_ticks(pool) is None
    assert start_ticks(arbiter) is not None
    assert list(json.loads((tmp_path / "up.json").read_text())) == ["arbiter"]


def test_a_process_that_ignores_the_request_to_end_is_killed():
    process = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    process.stdout.readline()
    stop_process(process.pid, 0.2)
    assert process.wait(5) == -signal.SIGKILL
    process.stdout.close()


def test_only_one_up_holds_a_state_and_a_dead_ones_lock_is_free(tmp_path):
    assert lock_holder(tmp_path) is None
    handle = take_lock(tmp_path, tmp_path)
    with pytest.raises(AlreadyUp, match=rf"pid {os.getpid()}.*flexai status"):
        take_lock(tmp_path, tmp_path)
    assert lock_holder(tmp_path) == os.getpid()
    os.close(handle)
    assert lock_holder(tmp_path) is None
    os.close(take_lock(tmp_path, tmp_path))


def test_without_a_pool_jobs_go_on_whose_supervisor_lives_or_whose_owner_started_them(tmp_path):
    alive = f"{os.getpid()} {start_ticks(os.getpid())}\n"
    for job, token in (("1", alive), ("2", f"{os.getpid()} 7\n"), ("3_0", alive), ("4", "0 0\n"), ("5", "")):
        folder = tmp_path / "jobs" / job / "0"
        folder.mkdir(parents=True)
        (folder / f"{job}.0.1.token").write_text(token)
    tenant = Tenant("6", 0, "6.0.1", 0, 0, (), phase=Phase.RUNNING, attached=True)
    ended = replace(tenant, job_id="7", phase=Phase.FINISHED)
    (tmp_path / "agent.json").write_bytes(checkpoint.encode([tenant, ended], 0))
    assert jobs_that_go_on(Settings(tmp_path, tmp_path)) == ["1", "3_0", "6"]


def test_simulated_pools_have_a_card_daemon_and_real_ones_have_not(tmp_path):
    def names(cards):
        return [one.name for one in processes(tmp_path, tmp_path, cards, "python", lambda name: Path("/bin") / name)]

    assert names("h200:2") == ["simcard", "arbiter", "guardian", "agent", "pool"]
    assert names("") == ["arbiter", "guardian", "agent", "pool"]


@pytest.mark.parametrize("text", ["", "h200", "h200:", ":2", "h200:0", "h200:65", "h200:2,", "h200:-1", "h 200:1"])
def test_wrong_lists_of_cards_are_refused_with_a_remedy(text):
    with pytest.raises(BadInput, match="h200:2"):
        check_cards(text)


def test_the_models_offered_are_those_of_the_simulated_card():
    argv = [str(program("flexai-simcard")), "--socket", "/nowhere/s", "--cards", "nosuch:1"]
    said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stderr
    assert said.partition("models are ")[2].split() == list(MODELS)
    with pytest.raises(BadInput, match=r"'nosuch' is not a card.*h200"):
        check_cards("h200:1,nosuch:1")


def test_a_folder_whose_sockets_would_have_too_long_a_path_is_refused(tmp_path):
    check_socket_path(Path("/" + 93 * "x"))
    with pytest.raises(BadInput, match="1 bytes too long"):
        check_socket_path(Path("/" + 94 * "x"))


def test_what_says_that_it_was_given_something_wrong_is_not_tried_again_until_it_was_ready_once(keep):
    one = part("simcard", "import sys; print('--cards: no', flush=True); sys.exit(2)")
    keeper = keep(one)
    keeper.adopt()
    keeper.start(one)
    assert keeper.wait(20) == {"simcard": "exit code 2"}
    assert keeper.last_words("simcard") == ["--cards: no"]
    assert keeper.wait(0.4) == {}
    keeper.ready("simcard")
    keeper.start(one)
    assert keeper.wait(20) == {"simcard": "exit code 2"}
    assert keeper.wait(20) == {}  # its pause is over
    assert keeper.wait(20) == {"simcard": "exit code 2"}


def test_cards_are_counted_on_the_bus_and_by_device_file_where_the_bus_is_hidden(tmp_path):
    pci, dev = tmp_path / "pci", tmp_path / "dev"
    dev.mkdir()
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300"), ("c", "0x19e5", "0x120000")):
        (pci / name).mkdir(parents=True)
        (pci / name / "vendor").write_text(vendor + "\n")
        (pci / name / "class").write_text(kind + "\n")
    assert accelerators(pci, dev) == {"nvidia": 1, "ascend": 1}
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (dev / name).touch()
    assert accelerators(tmp_path / "none", dev) == {"nvidia": 2}
