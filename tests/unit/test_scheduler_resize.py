"""A running job's share grows only where every card has room for all of its members there."""

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Resize
from flexai.scheduling.events import JobResizeAsked, JobSubmitted, NodePut, QueuePut


def two_members_on_one_card():
    scheduler = Scheduler(check=True)
    scheduler.step(QueuePut(0, Queue("q")))
    scheduler.step(NodePut(0, Node("n", (Device("c", "H200", "simulated", 0, 2**36),), 64_000, 2**38)))
    scheduler.step(JobSubmitted(1, Job("j", "ann", "q", SliceRequest(300, 300, 2**30), 2, 2, seq=1)))
    return scheduler


def test_members_that_share_a_card_must_fit_it_together():
    assert two_members_on_one_card().step(JobResizeAsked(2, "j", 600, 600)) == []


def test_members_that_share_a_card_grow_together():
    commands = two_members_on_one_card().step(JobResizeAsked(2, "j", 500, 500))
    assert [one.grants[0].compute_milli for one in commands if isinstance(one, Resize)] == [500, 500]
