"""The shim on the simulated card: the cap by the card's own books, contexts and every allocation path included."""

import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from flexai.wire import region

from .conftest import CAP, HERE, Card, compile_shim, until

MIB, GIB = 1 << 20, 1 << 30


def test_a_context_is_charged_as_the_card_counts_it_and_the_second_before_it_is_made(card):
    out = card.run("print(mem_info()[0] // MIB, mem_info()[1] // MIB, flush=True)")
    context = 2048 - int(out.split()[0])
    assert context == 64  # of the simulated card
    first = card.start("alloc(1950 * MIB); print('up', flush=True); input()")
    first.stdout.readline()
    assert card.charged() == card.used() == (1950 + 64) * MIB
    second = card.run("print('made')")  # 34 MiB are left
    assert second == "", "the context does not fit and is refused"
    assert card.used() == card.charged() == (1950 + 64) * MIB


def run_fuzz(card: Card, seeds, steps: int, kills: int = 0, preload: str = "") -> Counter:
    """Processes of the tenant that take and give by every path; how often each path was taken."""
    folder = card.dir.parent / "shared"
    folder.mkdir()

    def begin(seed: int, steps: int) -> subprocess.Popen[str]:
        argv = [sys.executable, HERE / "fuzz_memory.py", str(seed), str(steps), folder]
        env = card.env | ({"LD_PRELOAD": preload} if preload else {})
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=card.dir
        )
        card.started.append(process)
        return process

    workers = [begin(seed, steps) for seed in seeds]
    for worker in workers:
        assert worker.stdout.readline() == "up\n"  # a late one would find no room for its context
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    chance = random.Random(0)
    for victim in chance.sample(workers, kills):
        time.sleep(chance.uniform(0.2, 1.5))
        victim.kill()
        victim.wait()
        workers.remove(victim)
    taken: Counter[str] = Counter()
    for worker in workers:
        said = worker.stdout.readline()
        assert said.startswith("done "), said
        taken.update(json.loads(said.removeprefix("done ")))
    return taken


def test_every_path_is_held_to_the_cap_by_the_cards_books(card):
    taken = run_fuzz(card, range(4), 1000)
    assert len(taken) >= 17, taken
    most = card.look(1)["most_used_bytes"]  # ever, not only when somebody looked
    assert CAP * 0.5 < most <= CAP
    assert region.decode_ledger((card.dir / "ledger").read_bytes()).n_refused[0] > 0
    assert card.used() == 4 * 64 * MIB  # the contexts
    until(lambda: card.charged() == 4 * 64 * MIB)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_every_path_is_held_to_the_cap_while_processes_are_killed(card, seed):
    run_fuzz(card, range(seed * 100, seed * 100 + 6), 4000, kills=2)
    card.reap()
    assert CAP * 0.5 < card.look(1)["most_used_bytes"] <= CAP
    assert card.used() == 4 * 64 * MIB
    until(lambda: card.charged() == 4 * 64 * MIB)


@pytest.mark.slow
def test_every_path_under_the_sanitizers(card, tmp_path):
    # Without the binding to old glibc names: the sanitizers wrap the current ones.
    flags = ["-g", "-O1", "-DFLEXAI_GLIBC_H", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    shim = compile_shim("shim_cuda", "libcuda.so.1", tmp_path, ["gcc"], *flags)
    runtimes = [
        subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    card.env["ASAN_OPTIONS"] = "detect_leaks=0"
    taken = run_fuzz(card, range(4), 1500, preload=":".join([*runtimes, str(shim)]))
    assert len(taken) >= 17
    assert card.look(1)["most_used_bytes"] <= CAP


def test_nearly_all_of_the_cap_can_be_had_and_a_kill_gives_it_back(card):
    code = "n = 0\nwhile alloc(2 * MIB): n += 1\nprint(n, flush=True); input()"
    first = card.start(code)
    assert int(first.stdout.readline()) * 2 * MIB >= 0.99 * (CAP - 64 * MIB)
    assert 0.99 * CAP <= card.used() <= CAP
    first.kill()
    first.wait()
    second = card.start(code)
    assert int(second.stdout.readline()) * 2 * MIB >= 0.99 * (CAP - 64 * MIB)
    assert card.used() <= CAP


def test_the_end_of_a_context_gives_back_what_was_allocated_in_it(card):
    out = card.run(
        "other = c_void_p(); check(cuda.cuCtxCreate_v2(byref(other), 0, 0)); alloc(500 * MIB)\n"
        "a = mem_info()[0]; check(cuda.cuCtxDestroy_v2(other)); open_card(); print((mem_info()[0] - a) // MIB)"
    )
    assert int(out) == 564


def test_nvidias_own_management_binding_sees_the_slice(card):
    out = card.run(
        "import pynvml as n; n.nvmlInit(); c = n.nvmlDeviceGetHandleByIndex(0); alloc(300 * MIB)\n"
        "m = n.nvmlDeviceGetMemoryInfo(c); print(n.nvmlDeviceGetCount(), m.total // MIB, m.used // MIB)"
    )
    assert out == "1 2048 364\n"


@pytest.mark.parametrize("known_mib", [0, 518])
def test_contexts_made_at_once_by_processes_that_allocate_at_once_stay_within_the_cap(tmp_path_factory, known_mib):
    """As on an H200, where a context is 518 MiB and 0.1 s; the agent knows what one takes, or does not."""
    with tempfile.TemporaryDirectory(prefix="fx") as folder:
        card = Card(Path(folder), (4 * GIB,), "--context-mib", "518", "--context-ms", "100")
        try:
            card.limit(4 * GIB, context_bytes=known_mib * MIB)
            greedy = """
import random, time
chance, until, held = random.Random(), time.monotonic() + 1.5, []
while time.monotonic() < until:
    if held and chance.random() < 0.4:
        free(held.pop())
    elif at := alloc(int(4 * GIB * chance.choice([0.01, 0.1, 0.5]) * chance.random())):
        held.append(at)
print('done', flush=True)
input()  # the simulated card learns of an end a moment after it, the real one before
"""
            workers = [card.start(greedy) for _ in range(4)]
            said = [worker.stdout.readline() for worker in workers]
            assert card.look(1)["most_used_bytes"] <= 4 * GIB
            assert "done\n" in said  # one that found no room for its context was refused it
        finally:
            card.end()
