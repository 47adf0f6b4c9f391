"""The same events give the same commands, in another process with another hash seed too."""

import functools
import hashlib
import os
import subprocess
import sys

import pytest

from flexai.model import Device, Job, Node, Queue, SliceRequest, TenantClass, TopologyLevel
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut, Tick, UsageMeasured

GIB = 2**30


@functools.cache
def digest(scorer="fragmentation"):
    """Play a busy afternoon; answer the hash of all commands and reasons."""
    scheduler, out, running = Scheduler(SchedulerSettings(scorer=scorer, reclaim="fair_share")), hashlib.sha256(), {}
    for name, quota in (("a", 6_000), ("b", 0), ("a/x", 2_000), ("a/y", 0)):
        scheduler.step(QueuePut(0, Queue(name, name.rpartition("/")[0], quota, weight=1000 + len(name))))
    for index in range(12):
        cards = tuple(
            Device(f"n{index}/{card}", ("H200", "L40S")[index % 2], "simulated", card, 100 * GIB, card // 2)
            for card in range(4)
        )
        rack = TopologyLevel("rack", f"r{index // 4}", 2)
        scheduler.step(NodePut(0, Node(f"n{index}", cards, 32_000, 256 * GIB, (rack,))))
    value = 12345
    for now in range(1, 250):
        value = value * 1103515245 + 12345 & 0x7FFFFFFF
        commands = []
        if running and value % 5 == 0:
            key = sorted(running)[value // 7 % len(running)]
            commands = scheduler.step(MemberFinished(now * 1000, *key, 143 if running.pop(key) else 0))
        elif value % 11 == 0:
            used = tuple((*key, "n0/0", value % 300) for key in sorted(running)[:5])
            commands = scheduler.step(UsageMeasured(now * 1000, 1000, used)) + scheduler.step(Tick(now * 1000))
        else:
            milli = (250, 500, 1000, 333)[value // 16 % 4]
            request = SliceRequest(
                milli, 1000, 0 if milli == 1000 else (value // 64 % 40 + 1) * GIB, list(TenantClass)[value // 128 % 3],
                (1, 1, 2, 4)[value // 256 % 4], ((), (), ("L40S",))[value // 512 % 3],
            )  # fmt: skip
            members = (1, 1, 1, 3)[value // 1024 % 4]
            job = Job(
                f"job{now}", f"user{value % 3}", ("a/x", "a/y", "b")[value // 2048 % 3], request, members,
                (1, members)[value // 4096 % 2], 1000, GIB, value // 8192 % 3, submitted_at_ms=now * 1000, seq=now,
                required_level=("", "rack")[value // 16384 % 2],
            )  # fmt: skip
            commands = scheduler.step(JobSubmitted(now * 1000, job))
        for command in commands:
            out.update(repr(command).encode())
            if isinstance(command, Start):
                running[command.job_id, command.member] = False
                out.update(repr(scheduler.step(MemberStarted(now * 1000, command.job_id, command.member))).encode())
            elif isinstance(command, Evict) and (command.job_id, command.member) in running:
                running[command.job_id, command.member] = True
        out.update(repr([scheduler.reason_for(f"job{seq}") for seq in range(max(1, now - 5), now)]).encode())
    return out.hexdigest()


def test_another_hash_seed_in_another_process_decides_the_same():
    code = "import runpy, sys; print(runpy.run_path(sys.argv[1])['digest']())"
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], env={**os.environ, "PYTHONHASHSEED": "4242"}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == digest()


@pytest.mark.parametrize("scorer", ["binpack", "spread"])
def test_another_score_decides_otherwise(scorer):
    assert digest(scorer) != digest()
