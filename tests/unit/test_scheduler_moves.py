"""Consolidation: scattered free cards are gathered, at a price."""

import pytest

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut, Tick

GIB = 2**30
LATE = 3_600_000


def job(name, seq, n_devices=1, checkpointable=True, at_ms=0, **more):
    request = SliceRequest(1000, 1000, 0, n_devices=n_devices)
    return Job(name, "ann", "a", request, seq=seq, submitted_at_ms=at_ms, checkpointable=checkpointable, **more)


def scattered(moves=4, **more):
    """Three nodes of two cards; on each one card is taken, and a job for two cards waits."""
    scheduler = Scheduler(SchedulerSettings(scorer="spread", consolidate_moves=moves), check=True)
    scheduler.step(QueuePut(0, Queue("a")))
    for name in ("n0", "n1", "n2"):
        cards = tuple(Device(f"{name}/{card}", "H200", "simulated", card, 100 * GIB) for card in range(2))
        scheduler.step(NodePut(0, Node(name, cards, 64_000, 64 * GIB)))
    for seq in range(1, 4):
        for command in scheduler.step(JobSubmitted(0, job(f"j{seq}", seq, **more))):
            if isinstance(command, Start):
                scheduler.step(MemberStarted(0, command.job_id, command.member))
    assert len({record.members[0].grants[0].node for record in scheduler.state.jobs.values()}) == 3
    scheduler.step(JobSubmitted(1000, job("wide", 9, n_devices=2, at_ms=1000)))
    return scheduler


def evicted(commands):
    return [command.job_id for command in commands if isinstance(command, Evict)]


def test_one_job_moves_and_the_waiting_one_and_it_both_run():
    scheduler = scattered()
    moved = evicted(scheduler.step(Tick(LATE)))
    assert len(moved) == 1
    began = [
        each.job_id for each in scheduler.step(MemberFinished(LATE + 1, moved[0], 0, 143)) if isinstance(each, Start)
    ]
    assert sorted(began) == sorted([*moved, "wide"])


def test_nothing_moves_before_the_waiting_job_has_waited_for_what_the_move_costs():
    scheduler = scattered()
    assert evicted(scheduler.step(Tick(30_000))) == []
    assert len(evicted(scheduler.step(Tick(120_000)))) == 1


def test_a_job_that_moved_stays_for_a_while():
    scheduler = scattered()
    moved = evicted(scheduler.step(Tick(LATE)))
    scheduler.step(MemberFinished(LATE + 1, moved[0], 0, 143))
    scheduler.step(JobSubmitted(LATE + 2, job("wide2", 10, n_devices=2, at_ms=LATE + 2)))
    assert evicted(scheduler.step(Tick(LATE + 600_000))) == []


@pytest.mark.parametrize("more", [{"checkpointable": False}, {"preemptible": False}, {"min_runtime_ms": 10 * LATE}])
def test_only_restartable_jobs_that_have_run_long_enough_move(more):
    assert evicted(scattered(**more).step(Tick(LATE))) == []


def test_without_a_budget_nothing_moves():
    assert evicted(scattered(moves=0).step(Tick(LATE))) == []
