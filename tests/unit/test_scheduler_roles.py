"""Gangs whose members are unlike: a leader and its workers start together, grow, shrink and end as one."""

import pytest

from flexai.model import Device, Job, Node, Queue, Role, SliceRequest, TopologyLevel
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, SetJobState, Start
from flexai.scheduling.events import (
    GrantsFound,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodeGone,
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


OWNED = (Queue("owner", quota_milli=4000), Queue("guest"))
ELASTIC = gang("elastic", 1, LEADER, role("worker", 4, 2), queue="guest")


def test_an_elastic_role_starts_with_what_fits_and_grows():
    scheduler = pool(node("n0", 4))
    submit(scheduler, one("other", 1, n_devices=2))
    commands = submit(scheduler, gang("train", 2, LEADER, role("worker", 4, 1)))
    assert starts(commands) == [("train", 0), ("train", 1), ("train", 2)]
    assert starts(scheduler.step(MemberFinished(3, "other", 0, 0))) == [("train", 3), ("train", 4)]


def test_of_two_elastic_roles_the_one_that_has_room_grows():
    scheduler = pool(node("n0", 2))
    submit(scheduler, one("other", 1))
    wide, thin = role("wide", 2, 0, cards(2)), role("thin", 2, 1, cards(milli=500))
    assert starts(submit(scheduler, gang("train", 2, wide, thin))) == [("train", 2), ("train", 3)]
    scheduler.step(MemberFinished(3, "other", 0, 0))
    scheduler.step(MemberFinished(4, "train", 2, 0))
    assert starts(scheduler.step(MemberFinished(5, "train", 3, 0))) == [("train", 0)]


def test_reclaim_shrinks_an_elastic_role_and_never_below_its_least():
    scheduler = pool(node("n0", 4), queues=OWNED)
    started(scheduler, submit(scheduler, ELASTIC))
    for seq, index in ((100, 4), (101, 3)):
        assert evictions(submit(scheduler, one(f"mine{seq}", seq, queue="owner"))) == [("elastic", index)]
        assert starts(scheduler.step(MemberFinished(seq, "elastic", index, 143))) == [(f"mine{seq}", 0)]
    assert scheduler.state.jobs["elastic"].state == "running"
    assert evictions(submit(scheduler, one("third", 103, queue="owner"))) == [("elastic", n) for n in range(3)]


def test_a_gang_that_is_evicted_waits_and_starts_again_as_one():
    scheduler = pool(node("n0", 4), queues=OWNED)
    started(scheduler, submit(scheduler, gang("train", 1, LEADER, WORKERS, queue="guest")))
    commands = submit(scheduler, one("mine", 100, n_devices=4, queue="owner"))
    assert evictions(commands) == [("train", n) for n in range(4)]
    assert all(each.requeue for each in commands if isinstance(each, Evict))
    for index in range(4):
        commands += scheduler.step(MemberFinished(101, "train", index, 143))
    assert starts(commands) == [("mine", 0)]
    assert scheduler.reason_for("train").message.startswith("Role worker: ")
    assert starts(scheduler.step(MemberFinished(102, "mine", 0, 0))) == [("train", n) for n in range(4)]


def test_a_leader_that_fails_after_its_start_ends_all():
    scheduler = pool(node("n0", 4))
    commands = submit(scheduler, gang("train", 1, LEADER, role("worker", 3, 1)))
    scheduler.step(MemberStarted(2, "train", 1))
    commands = scheduler.step(MemberFinished(3, "train", 0, 127, "not started"))
    assert evictions(commands) == [("train", n) for n in (1, 2, 3)]
    assert "it needs 1 of role leader together" in next(each.cause for each in commands if isinstance(each, Evict))
    for index in (1, 2, 3):
        commands += scheduler.step(MemberFinished(4, "train", index, 143))
    assert [each.state for each in commands if isinstance(each, SetJobState)][-1] == "failed"
    assert not scheduler.state.books.granted_milli.any()
    assert int(scheduler.state.books.cpu_milli[0]) == 64_000


def test_a_worker_that_the_gang_can_do_without_may_fail():
    scheduler = pool(node("n0", 4))
    started(scheduler, submit(scheduler, gang("train", 1, LEADER, role("worker", 3, 2))))
    assert evictions(scheduler.step(MemberFinished(2, "train", 3, 1, "exit 1"))) == []
    assert evictions(scheduler.step(MemberFinished(3, "train", 2, 1, "exit 1"))) == [("train", 0), ("train", 1)]


def test_room_is_made_for_all_roles_or_nothing_is_evicted():
    leader = role("leader", request=NO_CARD, cpus=32)
    scheduler = pool(node("n0", 2, cpus=32), node("n1", 2, cpus=32), queues=OWNED)
    for seq in range(1, 5):
        started(scheduler, submit(scheduler, Job(
            f"g{seq}", "ann", "guest", cards(), cpu_milli=16_000, seq=seq, submitted_at_ms=seq,
        )))  # fmt: skip
    commands = submit(scheduler, gang("train", 20, leader, role("worker", 2, cpus=1), queue="owner"))
    gone = evictions(commands)
    assert len(gone) == 4, "two guests for the CPUs of the leader, and two for the cards and CPUs of the workers"
    for name, index in gone:
        commands += scheduler.step(MemberFinished(21, name, index, 143))
    assert [name for name, _ in starts(commands)] == ["train"] * 3
    too_much = gang("large", 30, role("leader", request=NO_CARD, cpus=40), WORKERS, queue="owner")
    assert evictions(submit(scheduler, too_much)) == []
    assert scheduler.reason_for("large").message.startswith("Role leader: It asks for 40 CPUs")


def test_a_role_that_fits_alone_but_not_beside_another_is_named():
    scheduler = pool(node("n0", 2, cpus=16))
    submit(scheduler, gang("train", 1, role("leader", request=NO_CARD, cpus=10), role("worker", 2, cpus=4)))
    reason = scheduler.reason_for("train")
    assert (reason.code, reason.numbers["missing_members"]) == ("TooLarge", 1)
    assert "can host 1 of its 2 members beside leader (1)" in reason.message


def test_an_explanation_names_the_jobs_whose_end_would_help_the_role_that_waits():
    scheduler = pool(node("n0", 2, cpus=16), node("n1", 0, cpus=16))
    submit(scheduler, one("other", 1, n_devices=2))
    submit(scheduler, gang("train", 2, LEADER, role("worker", 2)))
    assert [each.job_id for each in scheduler.what_must_end("train")] == ["other"]


def test_a_gang_found_after_a_restart_has_the_shapes_of_its_roles():
    scheduler = pool(node("n0", 4))
    small, large = role("small", 2, request=cards(milli=250), cpus=1), role("large", request=cards(2), cpus=16)
    submit(scheduler, gang("mixed", 1, small, large))
    record = scheduler.state.jobs["mixed"]
    again = pool()
    grants = tuple(grant for member in record.members for grant in member.grants)
    again.step(GrantsFound(2, record.job, grants))
    again.step(NodePut(3, node("n0", 4)))
    assert (again.state.books.free_milli[:1] == scheduler.state.books.free_milli[:1]).all()
    assert int(again.state.books.cpu_milli[0]) == int(scheduler.state.books.cpu_milli[0]) == 46_000


def test_a_member_without_a_card_is_started_on_a_node_and_found_there_again():
    scheduler = pool(node("n0", 2), node("host", 0, cpus=64))
    commands = submit(scheduler, gang("train", 1, role("leader", request=NO_CARD, cpus=60), role("worker", 2, cpus=8)))
    where = {each.member: (each.node, len(each.grants)) for each in commands if isinstance(each, Start)}
    assert where == {0: ("host", 0), 1: ("", 1), 2: ("", 1)}
    record = scheduler.state.jobs["train"]
    again = pool(node("n0", 2))
    grants = tuple(grant for member in record.members for grant in member.grants)
    again.step(GrantsFound(2, record.job, grants, hosts=((0, "host"),)))
    assert again.state.jobs["train"].members[1].hold is None, "it is whole, or not yet there"
    again.step(NodePut(3, node("host", 0, cpus=64)))
    assert [member.hold is not None for member in again.state.jobs["train"].members] == [True] * 3
    assert int(again.state.books.cpu_milli[again.state.books.row_of["host"]]) == 4_000


def test_a_member_without_a_card_that_ended_before_its_node_came_back_is_forgotten():
    scheduler = pool(node("n0", 2), node("host", 0, cpus=64))
    submit(scheduler, gang("train", 1, role("leader", request=NO_CARD, cpus=60), role("worker", 2, cpus=8)))
    record, again = scheduler.state.jobs["train"], pool(node("n0", 2))
    grants = tuple(grant for member in record.members for grant in member.grants)
    again.step(GrantsFound(2, record.job, grants, hosts=((0, "host"),)))
    again.step(MemberFinished(3, "train", 0, 0))
    again.step(NodePut(4, node("host", 0, cpus=64)))
    assert int(again.state.books.cpu_milli[again.state.books.row_of["host"]]) == 64_000


def test_a_node_that_is_gone_ends_what_ran_there_without_a_card():
    scheduler = pool(node("n0", 2), node("host", 0, cpus=64))
    started(
        scheduler,
        submit(scheduler, gang("train", 1, role("leader", request=NO_CARD, cpus=60), role("worker", 2, cpus=8))),
    )
    assert evictions(scheduler.step(NodeGone(2, "host"))) == [("train", 0), ("train", 1), ("train", 2)]


def test_a_reservation_is_held_for_all_roles_of_a_gang():
    scheduler = pool(node("n0", 4), node("n1", 4))
    submit(scheduler, one("long", 1, n_devices=4, time_limit_ms=1000))
    submit(scheduler, gang("train", 2, LEADER, role("worker", 7)))
    assert starts(submit(scheduler, one("late", 30, n_devices=2, queue="b"))) == []
    assert scheduler.reason_for("late").code == "Reserved"
    assert len(starts(scheduler.step(MemberFinished(40, "long", 0, 0)))) == 8


def test_a_worker_that_fails_while_others_are_given_up_leaves_no_role_below_its_least():
    scheduler = pool(node("n0", 4), queues=OWNED)
    started(scheduler, submit(scheduler, ELASTIC))
    assert evictions(submit(scheduler, one("mine", 100, n_devices=2, queue="owner"))) == [
        ("elastic", 3),
        ("elastic", 4),
    ]
    assert evictions(scheduler.step(MemberFinished(101, "elastic", 2, 1, "exit 1"))) == [("elastic", 0), ("elastic", 1)]
    for index in range(5):
        scheduler.step(MemberFinished(102, "elastic", index, 143))
    assert not scheduler.state.jobs["mine"].n_to_start


def test_a_role_of_subgroups_starts_with_as_many_whole_ones_as_fit_and_grows_by_whole_ones():
    scheduler = pool(node("n0", 8))
    submit(scheduler, one("other", 1, n_devices=2))
    submit(scheduler, one("more", 2))
    pairs = role("worker", 6, 2, subgroup_size=2, subgroup_level="rack")
    assert starts(submit(scheduler, gang("train", 3, LEADER, pairs))) == [("train", n) for n in range(5)]
    assert starts(scheduler.step(MemberFinished(4, "more", 0, 0))) == [("train", 5), ("train", 6)]
