"""What would have to end for a job to start: ending just that starts it; and why it is not evicted for it."""

import random

import pytest

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobCancelled, JobSubmitted, MemberFinished, NodePut, QueuePut, Tick

GIB = 2**30


def job(name, seq, milli=1000, **more):
    request = SliceRequest(milli, 1000, 0 if milli == 1000 else 20 * GIB, n_devices=more.pop("n_devices", 1))
    return Job(name, "ann", more.pop("queue", "a"), request, seq=seq, submitted_at_ms=seq, **more)


def pool(n_nodes=1, n_cards=2, **queues):
    scheduler = Scheduler(check=True)
    for name in ("a", "b"):
        scheduler.step(QueuePut(0, Queue(name, quota_milli=queues.get(name, 0))))
    for node in range(n_nodes):
        cards = tuple(Device(f"{node}-{i}", "H200", "simulated", i, 100 * GIB) for i in range(n_cards))
        scheduler.step(NodePut(0, Node(f"n{node}", cards, 64_000, 64 * GIB)))
    return scheduler


@pytest.mark.parametrize("seed", range(12))
def test_ending_what_is_named_starts_the_job(seed):
    chance = random.Random(seed)
    scheduler = pool(n_nodes=3, n_cards=4)
    for seq in range(1, 40):
        scheduler.step(JobSubmitted(seq, job(f"j{seq}", seq, chance.choice((300, 500, 700)), preemptible=False)))
    scheduler.step(JobSubmitted(100, job("big", 100, n_devices=chance.choice((1, 2, 4)), preemptible=False)))
    waiting = [name for name, record in scheduler.state.jobs.items() if not record.is_placed and name != "big"]
    blockers = scheduler.what_must_end("big")
    assert blockers
    assert not {blocker.job_id for blocker in blockers} & set(waiting)
    for name in waiting:
        scheduler.step(JobCancelled(101, name))
    started = set()
    for blocker in blockers:
        assert "big" not in started, "one of those named need not have ended"
        commands = scheduler.step(MemberFinished(102, blocker.job_id, 0, 0))
        started |= {command.job_id for command in commands if isinstance(command, Start)}
    assert "big" in started


def why(scheduler, name):
    (blocker,) = scheduler.what_must_end(name)
    return blocker.kept_because


def test_each_rule_that_protects_a_job_is_named():
    scheduler = pool(n_cards=1, a=1000)
    scheduler.step(JobSubmitted(1, job("holds", 1)))
    scheduler.step(JobSubmitted(2, job("same", 2)))
    assert why(scheduler, "same") == "same queue, and its priority 0 is not below 0"
    scheduler.step(JobSubmitted(3, job("other", 3, queue="b")))
    assert "queue b holds 0 cards and is entitled to 0 cards" in why(scheduler, "other")
    scheduler.step(QueuePut(4, Queue("b", quota_milli=1000)))
    assert why(scheduler, "other") == "queue a would be left 0 cards, and is entitled to 1 card"
    scheduler = pool(n_cards=1)
    scheduler.step(JobSubmitted(1, job("holds", 1, preemptible=False)))
    scheduler.step(JobSubmitted(2, job("urgent", 2, priority=5)))
    assert "--no-preempt" in why(scheduler, "urgent")


def test_a_job_that_is_being_evicted_is_ending_already():
    scheduler = pool(n_cards=1)
    scheduler.step(JobSubmitted(1, job("holds", 1)))
    scheduler.step(JobSubmitted(2, job("urgent", 2, priority=5)))
    scheduler.step(Tick(3))
    assert why(scheduler, "urgent") == "it is ending already"


def test_nothing_is_named_for_a_job_that_runs_or_is_not_known():
    scheduler = pool()
    scheduler.step(JobSubmitted(1, job("runs", 1)))
    assert scheduler.what_must_end("runs") == scheduler.what_must_end("nobody") == ()
