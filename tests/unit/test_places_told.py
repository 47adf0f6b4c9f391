"""What a new scheduler is told of places that were booked before it: kept if they may be had, and else not minded."""

import pytest

from flexai.model import Device, Grant, Job, Node, Queue, SliceRequest, TenantClass
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Book, Start
from flexai.scheduling.events import GrantsFound, JobSubmitted, MemberFinished, NodePut, PlaceBooked, QueuePut

GIB = 2**30
WHOLE = SliceRequest(1000, 1000, 0)


def node(name):
    return Node(name, (Device(f"{name}/0", "H200", "simulated", 0, 80 * GIB),), 64_000, 512 * GIB)


def grant(job_id, name, member=0):
    return Grant(job_id, member, name, f"{name}/0", 1000, 1000, 80 * GIB, TenantClass.GUARANTEED)


def started_again(*told, nodes=("m",)):
    """A job that is being stopped on ``m``, one that waits, what is told of its place, and then the nodes."""
    scheduler = Scheduler(check=True)
    victim = Job("victim", "ann", "a", WHOLE, seq=0)
    events = [
        QueuePut(0, Queue("a")),
        GrantsFound(0, victim, (grant("victim", "m"),), evicted=(0,)),
        JobSubmitted(0, Job("mine", "ann", "a", WHOLE, priority=1, seq=1)),
        *told,
        *(NodePut(0, node(name)) for name in nodes),
    ]
    return scheduler, [each for event in events for each in scheduler.step(event)]


def test_a_place_that_was_told_is_booked_again_and_had_by_its_job():
    scheduler, out = started_again(PlaceBooked(0, "mine", (grant("mine", "m"),), (), (("victim", 0),)))
    assert list(scheduler.state.booked) == ["mine"]
    assert not [each for each in out if isinstance(each, Book)], "that was known already"
    scheduler.step(JobSubmitted(1, Job("other", "bob", "a", WHOLE, priority=1, seq=2)))
    out = scheduler.step(MemberFinished(2, "victim", 0, 143))
    assert [each.job_id for each in out if isinstance(each, Start)] == ["mine"]


@pytest.mark.parametrize(
    "told",
    [
        PlaceBooked(0, "nobody", (grant("nobody", "m"),)),
        PlaceBooked(0, "victim", (grant("victim", "m"),)),
        PlaceBooked(0, "mine"),
        PlaceBooked(0, "mine", (grant("mine", "m", member=7),)),
        PlaceBooked(0, "mine", (), (("0", "m"),), (("nobody", 3),)),
        PlaceBooked(0, "mine", (grant("mine", "gone"),), (), (("victim", 0),)),
    ],
    ids=["unknown job", "a job that runs", "no place", "no such member", "claims nobody", "a node that is not back"],
)
def test_what_is_told_wrongly_books_nothing_and_keeps_nobody(told):
    scheduler, _ = started_again(told)
    assert not scheduler.state.booked
    out = scheduler.step(MemberFinished(2, "victim", 0, 143))
    assert [each.job_id for each in out if isinstance(each, Start)] == ["mine"]


def test_a_place_on_a_node_that_comes_back_later_is_booked_then():
    scheduler, _ = started_again(PlaceBooked(0, "mine", (grant("mine", "m"),), (), (("victim", 0),)), nodes=())
    scheduler.step(JobSubmitted(0, Job("other", "bob", "a", WHOLE, seq=2)))
    out = scheduler.step(NodePut(1, node("n")))
    assert [each.job_id for each in out if isinstance(each, Start)] == ["mine"], "or elsewhere, if it fits"
    out = scheduler.step(NodePut(2, node("m")))
    assert not scheduler.state.booked
    assert not scheduler.state.places_told


def test_a_booking_is_said_once_and_its_end_too():
    scheduler = Scheduler(check=True)
    for event in (QueuePut(0, Queue("a")), NodePut(0, node("m"))):
        scheduler.step(event)
    scheduler.step(JobSubmitted(0, Job("victim", "ann", "a", WHOLE, seq=0)))
    out = scheduler.step(JobSubmitted(1, Job("mine", "ann", "a", WHOLE, priority=1, seq=1)))
    (said,) = [each for each in out if isinstance(each, Book)]
    assert (said.job_id, [each.device for each in said.grants], said.claimed) == ("mine", ["m/0"], (("victim", 0),))
    out = scheduler.step(JobSubmitted(2, Job("more", "ann", "a", WHOLE, seq=2)))
    assert not [each for each in out if isinstance(each, Book)]
    out = scheduler.step(NodePut(3, node("n")))
    assert [each.job_id for each in out if isinstance(each, Start)] == ["mine"]
    assert not [each for each in out if isinstance(each, Book)], "its start says so"
