"""Consolidation: scattered free cards are gathered, at a price."""

import pytest

from flexai.model import Device, Job, Node, Queue, Role, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import (
    DeviceChanged,
    JobCancelled,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodePut,
    QueuePut,
    Tick,
)

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


@pytest.mark.parametrize("leads_first", [True, False])
def test_jobs_move_to_make_room_for_a_gang_of_roles(leads_first):
    scheduler = scattered()
    scheduler.step(JobCancelled(1001, "wide"))
    slice_, pair = SliceRequest(500, 500, 10 * GIB), SliceRequest(1000, 1000, 0, n_devices=2)
    lead, work = Role("lead", slice_, cpu_milli=1000), Role("work", pair)
    roles = (lead, work) if leads_first else (work, lead)
    gang = Job("gang", "ann", "a", roles[0].request, 2, 2, submitted_at_ms=2000, seq=20, roles=roles)
    assert not [each for each in scheduler.step(JobSubmitted(2000, gang)) if isinstance(each, Start)]
    moved = evicted(scheduler.step(Tick(LATE)))
    assert len(moved) == 1, "two nodes have a card each left: one takes the leader, and one is emptied for the worker"
    began = scheduler.step(MemberFinished(LATE + 1, moved[0], 0, 143))
    assert sorted(each.job_id for each in began if isinstance(each, Start)) == sorted(["gang", "gang", *moved])


def test_nothing_moves_before_the_waiting_job_has_waited_for_what_the_move_costs():
    scheduler = scattered()
    assert evicted(scheduler.step(Tick(30_000))) == []
    assert len(evicted(scheduler.step(Tick(120_000)))) == 1


def test_a_move_is_charged_what_stops_and_starts_were_seen_to_cost():
    scheduler = scattered()
    for _ in range(100):  # jobs of the class came to take 200 s to stop and start again
        scheduler.state.move_costs.stopped("a/ann", 1, 150_000)
        scheduler.state.move_costs.started("a/ann", 1, 50_000)
    assert evicted(scheduler.step(Tick(120_000))) == []
    assert len(evicted(scheduler.step(Tick(140_000)))) == 1


def test_the_scheduler_sees_by_itself_how_long_jobs_take_to_stop_and_to_start():
    scheduler = scattered(moves=0)
    for turn in range(8):
        now_ms = LATE * (turn + 1)
        held = scheduler.state.jobs["j1"].members[0].grants[0].device
        assert evicted(scheduler.step(DeviceChanged(now_ms, held, drain=True))) == ["j1"]
        scheduler.step(MemberFinished(now_ms + 7_000, "j1", 0, 143))
        scheduler.step(MemberStarted(now_ms + 9_000, "j1", 0))
    assert scheduler.state.move_costs.move_ms("a/ann", 1, -1) == pytest.approx(9_000, rel=0.1)
    assert scheduler.state.move_costs.move_ms("b/bob", 8, -1) == pytest.approx(9_000, rel=0.1), "all jobs stand in"


def test_without_steps_left_nothing_is_searched():
    assert evicted(scattered().step(Tick(LATE, steps=0))) == []
    assert len(evicted(scattered().step(Tick(LATE, steps=100)))) == 1


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
