"""Gangs whose members are unlike: a leader and its workers start together, grow, shrink and end as one."""

import pytest

from flexai.model import Device, Job, Node, Queue, Role, SliceRequest, TopologyLevel
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import (
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodePut,
    QueuePut,
)

GIB = 2**30
NO_CARD = SliceRequest(1, 1, 0, n_devices=0)


def node(name, n_cards=4, rack="r0", cpus=64):
    cards = tuple(Device(f"{name}/{card}", "H200", "simulated", card, 100 * GIB) for card in range(n_cards))
    return Node(name, cards, 1000 * cpus, 512 * GIB, (TopologyLevel("rack", rack, 2),))


def cards(n_devices=1, milli=1000):
    return SliceRequest(milli, milli, 0 if milli == 1000 else 10 * GIB, n_devices=n_devices)


def role(name, n_members=1, min_member=None, request=None, cpus=0, **more):
    least = n_members if min_member is None else min_member
    return Role(name, cards() if request is None else request, n_members, least, 1000 * cpus, **more)


def gang(name, seq, *roles, queue="a", **more):
    request = next((each.request for each in roles if each.request.n_devices), roles[0].request)
    return Job(
        name, "ann", queue, request, sum(each.n_members for each in roles), sum(each.min_member for each in roles),
        seq=seq, submitted_at_ms=seq, roles=roles, **more,
    )  # fmt: skip


def one(name, seq, n_devices=1, queue="a", **more):
    return Job(name, "ann", queue, cards(n_devices), seq=seq, submitted_at_ms=seq, **more)


TWO_QUEUES = (Queue("a"), Queue("b"))


def pool(*nodes, queues=TWO_QUEUES, **settings):
    scheduler = Scheduler(SchedulerSettings(**settings), check=True)
    for queue in queues:
        scheduler.step(QueuePut(0, queue))
    for each in nodes:
        scheduler.step(NodePut(0, each))
    return scheduler


def submit(scheduler, job):
    return scheduler.step(JobSubmitted(job.submitted_at_ms, job))


def starts(commands):
    return [(each.job_id, each.member) for each in commands if isinstance(each, Start)]


def evictions(commands):
    return [(each.job_id, each.member) for each in commands if isinstance(each, Evict)]


def places(commands):
    return {each.member: [grant.node for grant in each.grants] for each in commands if isinstance(each, Start)}


def started(scheduler, commands):
    for each in commands:
        if isinstance(each, Start):
            scheduler.step(MemberStarted(0, each.job_id, each.member))


LEADER, WORKERS = role("leader", request=NO_CARD, cpus=8), role("worker", 3)


def test_a_leader_without_a_card_and_its_workers_start_together():
    commands = submit(pool(node("n0")), gang("train", 1, LEADER, WORKERS))
    assert starts(commands) == [("train", 0), ("train", 1), ("train", 2), ("train", 3)]
    assert [len(grants) for grants in places(commands).values()] == [0, 1, 1, 1]


def test_none_starts_while_one_role_has_no_place():
    scheduler = pool(node("n0"))
    submit(scheduler, one("other", 1, n_devices=2))
    assert starts(submit(scheduler, gang("train", 2, LEADER, WORKERS))) == []
    assert int(scheduler.state.books.granted_milli.sum()) == 2000
    assert len(starts(scheduler.step(MemberFinished(3, "other", 0, 0)))) == 4


def test_each_role_gets_what_it_asks_for():
    small, large = role("small", 2, request=cards(milli=250), cpus=1), role("large", request=cards(2), cpus=16)
    commands = submit(pool(node("n0")), gang("mixed", 1, small, large))
    granted = [[grant.compute_milli for grant in each.grants] for each in commands if isinstance(each, Start)]
    assert sorted(granted) == [[250], [250], [1000, 1000]]


def test_workers_that_must_share_a_rack_do_while_the_leader_may_be_elsewhere():
    nodes = [node("n0", 1, "r0"), node("n1", 2, "r1", cpus=8), node("n2", 2, "r1", cpus=8), node("n3", 3, "r2", cpus=8)]
    leader = role("leader", request=cards(milli=500), cpus=60)
    at = places(submit(pool(*nodes), gang("train", 1, leader, role("worker", 4, required_level="rack"))))
    assert at.pop(0) == ["n0"]
    assert {where for (where,) in at.values()} == {"n1", "n2"}


@pytest.mark.parametrize(("level", "n"), [("", 3), ("rack", 0)])
def test_a_level_of_the_gang_holds_for_all_its_roles_together(level, n):
    scheduler = pool(node("n0", 2, "r0"), node("n1", 1, "r1"))
    commands = submit(scheduler, gang("train", 1, role("one"), role("two", 2), required_level=level))
    assert len(starts(commands)) == n


def test_a_leader_that_could_stand_in_the_workers_way_does_not():
    leader, worker = role("leader", request=NO_CARD, cpus=6), role("worker", request=cards(), cpus=8)
    scheduler = pool(node("n0", 1, cpus=8), node("n1", 0, cpus=8))
    at = {each.member: each for each in submit(scheduler, gang("train", 1, leader, worker)) if isinstance(each, Start)}
    assert at[1].grants[0].node == "n0"
    assert int(scheduler.state.books.cpu_milli[1]) == 2000
