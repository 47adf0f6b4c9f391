"""The cap holds over all processes of a tenant, by the stub driver's own books."""

import selectors
import signal
import subprocess
import time
from pathlib import Path

import pytest

MIB = 1 << 20
GIB = 1 << 30


def until(condition, timeout_s: float = 10.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def test_the_slice_is_shown_as_the_card(tenant):
    done = tenant.python(
        "check(cuda.cuInit(0)); t = c_size_t(); check(cuda.cuDeviceTotalMem_v2(byref(t), 0))\n"
        "print(mem_info(), t.value); alloc(256 * MIB); print(mem_info()[0])"
    )
    assert done.stdout.splitlines() == [f"({GIB}, {GIB}) {GIB}", f"{768 * MIB}"], done.stderr


def test_what_is_over_the_cap_is_refused_and_a_free_gives_it_back(tenant):
    done = tenant.python(
        "check(cuda.cuInit(0)); a = alloc(GIB); print(a is not None, alloc(1), alloc(2 * MIB))\n"
        "free(a); print(alloc(GIB) is not None, alloc(1 << 60))"
    )
    assert done.stdout.splitlines() == ["True None None", "True None"], done.stderr
    ledger = tenant.ledger()
    assert ledger.peak_bytes[0] == GIB
    assert ledger.n_refused[0] >= 3


def test_a_refusal_of_the_driver_is_refunded(tenant):
    tenant.limit(100 * GIB)
    done = tenant.python(
        "check(cuda.cuInit(0)); print(alloc(5 * GIB), alloc(3 * GIB) is not None, mem_info()[1] // GIB)"
    )
    assert done.stdout == "None True 4\n", done.stderr
    assert tenant.ledger().peak_bytes[0] >= 5 * GIB


def test_four_processes_at_random_never_hold_more_than_the_cap_and_can_hold_all_of_it(tenant):
    code = """
import os, random, sys
check(cuda.cuInit(0)); chance = random.Random(int(sys.stdin.readline())); held = []
for _ in range(4000):
    if held and chance.random() < 0.45:
        free(held.pop(chance.randrange(len(held))))
    else:
        size = int(2 ** chance.uniform(8, 28))
        at = alloc(size)
        if at is None and held:
            free(held.pop())
        elif at: held.append(at)
for at in held: free(at)
print("done", flush=True); sys.stdin.readline()
n = 0
while alloc(2 * MIB): n += 1
print(n, flush=True); sys.stdin.readline()
"""
    workers = [tenant.start(code) for _ in range(4)]
    for seed, worker in enumerate(workers):
        worker.stdin.write(f"{seed}\n")
        worker.stdin.flush()
    most = 0
    done = [False] * 4
    with selectors.DefaultSelector() as ready:
        for n, worker in enumerate(workers):
            ready.register(worker.stdout, selectors.EVENT_READ, n)
        end = time.monotonic() + 50
        while not all(done):
            assert time.monotonic() < end
            most = max(most, tenant.held())
            for key, _ in ready.select(0.001):
                done[key.data] = bool(workers[key.data].stdout.readline())
                ready.unregister(key.fileobj)
    assert most <= GIB
    assert most > GIB // 2  # the cap was met
    assert tenant.ledger().n_refused[0] > 0
    assert tenant.held() == 0
    assert tenant.ledger().charged_bytes[0] == 0
    for worker in workers:  # one after the other fills up: together they get the whole
        worker.stdin.write("go\n")
        worker.stdin.flush()
        worker.stdout.readline()
    assert 0.99 * GIB <= tenant.held() <= GIB
    for worker in workers:
        worker.communicate("end\n", timeout=10)


def test_a_killed_process_frees_its_charge_for_the_next(tenant):
    first = tenant.start("check(cuda.cuInit(0)); print(alloc(GIB) is not None, flush=True); input()")
    assert first.stdout.readline() == "True\n"
    second = tenant.start(
        "check(cuda.cuInit(0)); print(alloc(GIB), flush=True); input(); print(alloc(GIB) is not None)"
    )
    assert second.stdout.readline() == "None\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert second.communicate("\n", timeout=10)[0] == "True\n"


def test_the_agent_takes_back_what_a_dead_process_charged(tenant):
    one = tenant.start("check(cuda.cuInit(0)); alloc(512 * MIB); print('up', flush=True); input()")
    one.stdout.readline()
    ledger = tenant.ledger()
    assert ledger.charged_bytes[0] == 512 * MIB
    assert [slot.pid for slot in ledger.slots] == [one.pid]
    one.kill()
    one.wait()
    assert tenant.reap(ledger.slots) == 1
    assert tenant.ledger().charged_bytes[0] == 0
    assert tenant.ledger().slots == ()
    assert tenant.reap(ledger.slots) == 0  # not twice: the slot may be another's by then


def test_a_charge_that_died_half_way_is_put_right(tenant):
    with (tenant.dir / "ledger").open("r+b") as file:  # the ledger's word was raised, the slot's not yet
        file.seek(16)
        file.write((300 * MIB).to_bytes(8, "little"))
    done = tenant.python("check(cuda.cuInit(0)); print(alloc(GIB) is not None)")
    assert done.stdout == "True\n", done.stderr


def test_exec_gives_back_what_the_image_before_held(tenant):
    code = (
        "check(cuda.cuInit(0)); alloc(GIB); import os, sys\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'from driver import *; check(cuda.cuInit(0));"
        " print(alloc(GIB) is not None)'])"
    )
    # The stub's own slot goes by pid and is taken anew as well.
    done = tenant.python(code)
    assert len(tenant.ledger().slots) <= 1
    assert done.stdout == "True\n", done.stderr


def test_a_child_of_fork_is_a_process_of_its_own(tenant):
    code = """
import os
check(cuda.cuInit(0)); a = alloc(600 * MIB)
pid = os.fork()
if pid == 0:
    check(cuda.cuInit(0))
    ok = alloc(600 * MIB) is None and alloc(400 * MIB) is not None
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])); free(a); print(alloc(1000 * MIB) is not None)
"""
    assert tenant.python(code).stdout.split() == ["0", "True"]


def test_a_program_that_unloads_the_preload_is_held_all_the_same(tenant):
    """What was preloaded stays however often its handle is closed; what is opened anew by its name is the same."""
    code = """
import _ctypes
check(cuda.cuInit(0)); a = alloc(600 * MIB)
handle = cuda._handle
for _ in range(50):
    try: _ctypes.dlclose(handle)
    except OSError: break
import ctypes
again = ctypes.CDLL("libcuda.so.1")
p = ctypes.c_uint64()
print(again.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(600 * MIB)))
print(again.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(400 * MIB)))
"""
    assert tenant.python(code).stdout.split() == ["2", "0"]


def test_the_heartbeat_beats_and_launches_are_counted(tenant):
    one = tenant.start(
        "check(cuda.cuInit(0))\n"
        "for _ in range(100): check(cuda.cuLaunchKernel(*[0]*11))\n"
        "print('up', flush=True); input()"
    )
    one.stdout.readline()
    first = tenant.ledger().slots[0]
    assert first.n_launches == 100
    until(lambda: tenant.ledger().slots[0].heartbeat_ns > first.heartbeat_ns, 2.0)
    one.communicate("\n", timeout=10)


def test_a_region_of_another_version_is_refused_and_named(tenant):
    data = bytearray((tenant.dir / "policy").read_bytes())
    data[8] = 7
    (tenant.dir / "policy").write_bytes(data)
    done = tenant.python("print(cuda.cuInit(0))")
    assert done.stdout == "802\n"
    assert "version 7" in done.stderr
    assert "version 1" in done.stderr


def test_a_cut_region_is_refused(tenant):
    (tenant.dir / "ledger").write_bytes(b"")
    done = tenant.python("print(cuda.cuInit(0))")
    assert done.stdout == "802\n"
    assert "0 bytes" in done.stderr


def test_a_new_cap_counts_at_once(tenant):
    one = tenant.start(
        "check(cuda.cuInit(0)); print(alloc(900 * MIB) is not None, flush=True)\n"
        "input(); print(alloc(2 * MIB), mem_info())"
    )
    one.stdout.readline()
    tenant.limit(800 * MIB)
    assert one.communicate("\n", timeout=10)[0] == f"None (0, {800 * MIB})\n"


@pytest.mark.slow
def test_ten_thousand_short_processes_leave_no_charge_and_take_no_slot(tenant):
    """Each takes memory and ends without giving it back, one in three by a kill; eight at a time."""
    program = tenant.dir / "short"
    source = (
        "#include <dlfcn.h>\n#include <stdint.h>\n#include <stdlib.h>\n#include <signal.h>\n#include <unistd.h>\n"
        'int main(int n, char **v) { void *d = dlopen("libcuda.so.1", RTLD_NOW); uint64_t at;\n'
        'int (*init)(unsigned) = (int (*)(unsigned))dlsym(d, "cuInit");\n'
        'int (*get)(uint64_t *, size_t) = (int (*)(uint64_t *, size_t))dlsym(d, "cuMemAlloc_v2");\n'
        "if (init(0) || get(&at, 64 << 20)) return 1; if (n > 1) kill(getpid(), SIGKILL); return 0; (void)v; }\n"
    )
    subprocess.run(["gcc", "-O1", "-x", "c", "-", "-o", program], input=source, text=True, check=True)
    script = f"""
one() {{ {program} $1; rc=$?; [ $rc = 0 ] || [ $rc = 137 ] || echo $rc >> {tenant.dir}/bad; }}
for i in $(seq 1250); do
    for k in 1 2 3 4 5 6 7 8; do
        if [ $(((i + k) % 3)) = 0 ]; then one kill & else one & fi
    done
    wait
done
"""
    env = {**tenant.env, "LD_PRELOAD": ""}
    done = subprocess.run(
        ["bash", "-c", script.replace(f"{{ {program}", f"{{ LD_PRELOAD={tenant.env['LD_PRELOAD']} {program}")],
        env=env, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert not (tenant.dir / "bad").exists(), (tenant.dir / "bad").read_text()[:200]
    tenant.reap(tenant.ledger().slots)
    assert tenant.ledger().slots == ()
    assert tenant.ledger().charged_bytes[0] == 0
    assert tenant.python("check(cuda.cuInit(0)); print(alloc(GIB) is not None)").stdout == "True\n"


def test_slots_of_many_short_processes_are_used_again(tenant):
    for _ in range(20):
        assert tenant.python("check(cuda.cuInit(0)); alloc(2 * MIB); print('ok')").stdout == "ok\n"
    assert len(tenant.ledger().slots) <= 2
    assert Path(tenant.dir / "ledger").stat().st_size == 512 + 576 * 256
