"""Gangs, elastic jobs, levels of the machine room, and what is reclaimed for them."""

import pytest

from flexai.model import Device, Job, Node, Queue, Reason, SliceRequest, TopologyLevel
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, SetJobState, Start
from flexai.scheduling.events import (
    DeviceChanged,
    GrantsFound,
    JobCancelled,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodePut,
    QueuePut,
    Tick,
)

GIB = 2**30


def node(name, n_cards=4, rack="r0"):
    cards = tuple(Device(f"{name}/{card}", "H200", "simulated", card, 100 * GIB) for card in range(n_cards))
    return Node(name, cards, 64_000, 512 * GIB, (TopologyLevel("pod", "p", 1), TopologyLevel("rack", rack, 2)))


def job(name, seq, n_members=1, min_member=None, queue="a", n_devices=1, milli=1000, **more):
    request = SliceRequest(milli, milli, 0 if milli == 1000 else 10 * GIB, n_devices=n_devices)
    least = n_members if min_member is None else min_member
    return Job(name, "ann", queue, request, n_members, least, seq=seq, submitted_at_ms=seq, **more)


TWO_QUEUES = (Queue("a"), Queue("b"))


def pool(*nodes, queues=TWO_QUEUES, **settings):
    scheduler = Scheduler(SchedulerSettings(**settings), check=True)
    for queue in queues:
        scheduler.step(QueuePut(0, queue))
    for each in nodes:
        scheduler.step(NodePut(0, each))
    return scheduler


def submit(scheduler, each):
    return scheduler.step(JobSubmitted(each.submitted_at_ms, each))


def starts(commands):
    return [(each.job_id, each.member) for each in commands if isinstance(each, Start)]


def evicted(commands):
    return [each.job_id for each in commands if isinstance(each, Evict)]


def test_a_gang_starts_together_or_not_at_all():
    scheduler = pool(node("n0"))
    assert starts(submit(scheduler, job("small", 1))) == [("small", 0)]
    assert starts(submit(scheduler, job("gang", 2, n_members=4))) == []
    assert len(starts(scheduler.step(MemberFinished(3, "small", 0, 0)))) == 4


def test_a_gang_that_waits_does_not_block_a_smaller_job_of_the_same_shape():
    scheduler = pool(node("n0"), reserve_cards=100, reserve_after_ms=10**12)
    submit(scheduler, job("small", 1, min_member=1))
    scheduler.state.big.clear()
    submit(scheduler, job("gang", 2, n_members=4, queue="b"))
    scheduler.state.big.clear()
    scheduler.state.reservation = None
    assert starts(submit(scheduler, job("one", 3))) == [("one", 0)]


def test_an_elastic_job_starts_with_what_fits_and_grows_when_more_is_free():
    scheduler = pool(node("n0"))
    submit(scheduler, job("other", 1, n_devices=3))
    assert starts(submit(scheduler, job("elastic", 2, n_members=3, min_member=1))) == [("elastic", 0)]
    assert starts(scheduler.step(MemberFinished(3, "other", 0, 0))) == [("elastic", 1), ("elastic", 2)]


def test_an_elastic_job_whose_first_members_are_done_goes_on_with_the_rest():
    scheduler = pool(node("n0", 1))
    assert starts(submit(scheduler, job("elastic", 1, n_members=3, min_member=1))) == [("elastic", 0)]
    assert starts(scheduler.step(MemberFinished(2, "elastic", 0, 0))) == [("elastic", 1)]
    assert starts(scheduler.step(MemberFinished(3, "elastic", 1, 0))) == [("elastic", 2)]
    scheduler.step(MemberFinished(4, "elastic", 2, 0))
    assert scheduler.state.jobs == {}


def test_an_elastic_job_that_is_cancelled_grows_no_more():
    scheduler = pool(node("n0", 1))
    submit(scheduler, job("elastic", 1, n_members=2, min_member=1))
    scheduler.step(JobCancelled(2, "elastic"))
    assert starts(scheduler.step(MemberFinished(3, "elastic", 0, 143))) == []
    assert scheduler.state.jobs == {}


def test_an_elastic_job_takes_no_more_members_than_the_limit_of_its_queue_allows():
    scheduler = pool(node("n0"), queues=[Queue("a", limit_milli=2500)])
    assert len(starts(submit(scheduler, job("elastic", 1, n_members=4, min_member=1)))) == 2


def test_a_required_rack_is_one_rack():
    scheduler = pool(node("n0", 2, "r0"), node("n1", 2, "r1"), node("n2", 2, "r1"))
    got = submit(scheduler, job("gang", 1, n_members=4, required_level="rack"))
    assert {each.grants[0].node for each in got if isinstance(each, Start)} == {"n1", "n2"}
    waits = submit(scheduler, job("more", 2, n_members=3, required_level="rack"))
    assert starts(waits) == []
    assert scheduler.reason_for("more").code == "TooLarge" or scheduler.reason_for("more").code == "GangIncomplete"


def test_a_gang_goes_into_the_tightest_group_that_takes_it_all():
    nodes = [node("n0", 2, "r0"), node("n1", 3, "r1"), node("n2", 2, "r1"), node("n3", 2, "r0")]
    got = submit(pool(*nodes), job("gang", 1, n_members=4))
    assert {each.grants[0].node for each in got if isinstance(each, Start)} == {"n0", "n3"}


def test_a_gang_that_one_host_takes_is_not_spread():
    nodes = [node("n0", 3, "r0"), node("n1", 3, "r0"), node("n2", 4, "r1")]
    got = submit(pool(*nodes), job("gang", 1, n_members=4))
    assert {each.grants[0].node for each in got if isinstance(each, Start)} == {"n2"}


def test_a_model_that_no_group_takes_is_cut_in_as_few_places_as_can_be():
    nodes = [node(f"n{n}", 4, f"r{n // 2}") for n in range(6)]
    scheduler = pool(*nodes)
    for seq, name in enumerate(("n0", "n2"), 1):  # two racks of three lose a part of a host
        scheduler.step(DeviceChanged(seq, f"{name}/0", cordoned=True))
    got = submit(scheduler, job("model", 5, n_members=14))
    by_rack = {}
    for each in got:
        if isinstance(each, Start):
            at = by_rack.setdefault(int(each.grants[0].node[1]) // 2, {})
            at[each.grants[0].node] = at.get(each.grants[0].node, 0) + 1
    assert by_rack == {2: {"n4": 4, "n5": 4}, 0: {"n1": 4, "n0": 2}}


def test_a_growing_job_joins_the_members_that_run():
    scheduler = pool(node("n0", 2, "r0"), node("n1", 4, "r1"), node("n2", 2, "r0"))
    submit(scheduler, job("filler", 1, n_members=2, min_member=2, n_devices=2))
    submit(scheduler, job("more", 2, n_devices=2))
    assert starts(submit(scheduler, job("elastic", 3, n_members=2, min_member=1))) != []
    at = scheduler.state.jobs["elastic"].members[0].grants
    assert at
    assert scheduler.state.jobs["elastic"].members[1].grants[0].node == at[0].node


def subgroups(name, seq, n_members, size, **more):
    return job(name, seq, n_members=n_members, subgroup_size=size, subgroup_level="rack", **more)


def test_each_subgroup_stays_inside_one_rack_and_the_gang_starts_whole():
    scheduler = pool(node("n0", 3, "r0"), node("n1", 3, "r1"), node("n2", 3, "r2"))
    got = submit(scheduler, subgroups("gang", 1, 6, 2))
    racks = {each.member: each.grants[0].node for each in got if isinstance(each, Start)}
    assert len(racks) == 6
    assert all(racks[2 * n] == racks[2 * n + 1] for n in range(3))
    assert starts(submit(scheduler, subgroups("next", 2, 2, 2))) == []
    reason = scheduler.reason_for("next")
    assert reason.code == "Topology"
    assert "only 0 of the 2 needed in subgroups of 2 inside one rack each" in reason.message
    assert starts(scheduler.step(MemberFinished(3, "gang", 0, 0))) == [("next", 0), ("next", 1)]


def test_subgroups_larger_than_any_rack_never_start_and_say_so():
    scheduler = pool(node("n0", 3, "r0"), node("n1", 3, "r1"))
    assert starts(submit(scheduler, subgroups("gang", 1, 4, 4))) == []
    assert scheduler.reason_for("gang").code == "TooLarge"
    assert "in subgroups of 4 in one rack each" in scheduler.reason_for("gang").message


def test_an_elastic_gang_of_subgroups_grows_by_whole_subgroups():
    scheduler = pool(node("n0", 3, "r0"), node("n1", 3, "r1"))
    submit(scheduler, job("other", 1, n_members=1, n_devices=3))
    assert len(starts(submit(scheduler, subgroups("gang", 2, 4, 2, min_member=2)))) == 2
    assert len(starts(scheduler.step(MemberFinished(3, "other", 0, 0)))) == 2


def test_reclaim_for_subgroups_vacates_whole_ones_or_nothing():
    queues = [Queue("owner", quota_milli=4000), Queue("guest")]
    scheduler = pool(node("n0", 2, "r0"), node("n1", 2, "r1"), node("n2", 2, "r2"), queues=queues)
    for seq in range(1, 7):
        submit(scheduler, job(f"g{seq}", seq, queue="guest"))
    victims = evicted(submit(scheduler, subgroups("gang", 20, 4, 2, queue="owner")))
    began = [start for name in victims for start in starts(scheduler.step(MemberFinished(21, name, 0, 143)))]
    assert [name for name, _ in began if name == "gang"] in ([], ["gang"] * 4)
    assert (began == []) == (victims == [])


def test_a_preferred_rack_is_left_when_the_gang_does_not_fit_into_one():
    scheduler = pool(node("n0", 2, "r0"), node("n1", 2, "r1"))
    assert len(starts(submit(scheduler, job("gang", 1, n_members=3, preferred_level="rack")))) == 3


def test_a_rack_that_nobody_knows_is_said_to_be_missing():
    scheduler = pool(node("n0"))
    submit(scheduler, job("gang", 1, n_members=2, required_level="aisle"))
    assert scheduler.reason_for("gang").code == "TooLarge"


def test_what_is_reclaimed_for_a_gang_goes_to_the_gang():
    queues = [Queue("owner", quota_milli=4000), Queue("guest")]
    scheduler = pool(node("n0"), node("n1"), queues=queues)
    for seq in range(1, 12):
        submit(scheduler, job(f"g{seq}", seq, queue="guest"))
    victims = evicted(submit(scheduler, job("gang", 20, n_members=4, queue="owner")))
    assert len(victims) == 4
    began = []
    for name in victims:
        began += starts(scheduler.step(MemberFinished(21, name, 0, 143)))
    assert [name for name, _ in began] == ["gang"] * 4


def test_several_members_may_be_won_on_one_node():
    queues = [Queue("owner", quota_milli=3000), Queue("guest")]
    scheduler = pool(node("n0"), queues=queues)
    for seq in range(1, 5):
        submit(scheduler, job(f"g{seq}", seq, queue="guest"))
    assert len(evicted(submit(scheduler, job("gang", 20, n_members=3, queue="owner")))) == 3


def test_reclaim_for_a_required_rack_empties_one_rack():
    queues = [Queue("owner", quota_milli=4000), Queue("guest")]
    scheduler = pool(node("n0", 2, "r0"), node("n1", 2, "r1"), node("n2", 2, "r1"), queues=queues)
    for seq in range(1, 7):
        submit(scheduler, job(f"g{seq}", seq, queue="guest"))
    gang = job("gang", 20, n_members=4, queue="owner", required_level="rack")
    victims = evicted(submit(scheduler, gang))
    nodes = {scheduler.state.jobs[name].members[0].grants[0].node for name in victims}
    assert nodes == {"n1", "n2"}


def test_reclaim_never_takes_a_queue_below_its_quota():
    queues = [Queue("owner", quota_milli=4000), Queue("guest", quota_milli=3000)]
    scheduler = pool(node("n0"), queues=queues)
    for seq in range(1, 5):
        submit(scheduler, job(f"g{seq}", seq, queue="guest"))
    assert evicted(submit(scheduler, job("two", 20, n_members=2, queue="owner"))) == []
    assert len(evicted(submit(scheduler, job("one", 21, queue="owner")))) == 1


@pytest.mark.parametrize(("reclaim", "n"), [("quota", 0), ("fair_share", 1)])
def test_a_queue_without_quota_reclaims_its_fair_share_only_where_that_is_chosen(reclaim, n):
    scheduler = pool(node("n0", 2), reclaim=reclaim)
    for seq in range(1, 5):
        submit(scheduler, job(f"g{seq}", seq, queue="a"))
    assert len(evicted(submit(scheduler, job("mine", 20, queue="b")))) == n


def test_two_queues_never_take_turns():
    scheduler = pool(node("n0", 3), reclaim="fair_share")
    for seq in range(1, 9):
        submit(scheduler, job(f"j{seq}", seq, queue="ab"[seq % 2]))
    n_evicted = 0
    for now in range(100, 200):
        for name in evicted(scheduler.step(Tick(now))):
            n_evicted += 1
            scheduler.step(MemberFinished(now, name, 0, 143))
    assert n_evicted <= 1


def started(scheduler, commands):
    """What is commanded to start runs at once."""
    for each in commands:
        if isinstance(each, Start):
            scheduler.step(MemberStarted(0, each.job_id, each.member))


def test_reclaim_shrinks_an_elastic_job_before_it_evicts_any():
    queues = [Queue("owner", quota_milli=3000), Queue("guest")]
    scheduler = pool(node("n0", 5), queues=queues)
    started(scheduler, submit(scheduler, job("elastic", 1, n_members=4, min_member=2, queue="guest")))
    started(scheduler, submit(scheduler, job("young", 2, queue="guest")))
    evictions = [each for each in submit(scheduler, job("mine", 1000, n_members=2, queue="owner")) if
                 isinstance(each, Evict)]  # fmt: skip
    assert [(each.job_id, each.member, each.requeue) for each in evictions] == [
        ("elastic", 2, True),
        ("elastic", 3, True),
    ]
    assert all("shrunk" in each.cause and "reclaimed for job mine" in each.cause for each in evictions)
    assert scheduler.state.jobs["elastic"].state == "running"
    got = [start for index in (2, 3) for start in starts(scheduler.step(MemberFinished(1001, "elastic", index, 143)))]
    assert got == [("mine", 0), ("mine", 1)]
    assert evicted(scheduler.step(Tick(1002))) == []
    again = starts(scheduler.step(MemberFinished(1003, "young", 0, 0)))
    assert again == [("elastic", 2)], "what was shrunk grows again"


def test_an_elastic_job_is_evicted_whole_when_shrinking_it_does_not_suffice():
    queues = [Queue("owner", quota_milli=4000), Queue("guest")]
    scheduler = pool(node("n0", 4), queues=queues)
    started(scheduler, submit(scheduler, job("elastic", 1, n_members=4, min_member=2, queue="guest")))
    commands = submit(scheduler, job("mine", 1000, n_members=3, queue="owner"))
    assert sorted(each.member for each in commands if isinstance(each, Evict)) == [0, 1, 2, 3]
    assert scheduler.state.jobs["elastic"].state == "stopping"
    for index in range(4):
        commands += scheduler.step(MemberFinished(1001, "elastic", index, 143))
    assert [name for name, _ in starts(commands)] == ["mine"] * 3
    assert scheduler.reason_for("elastic").code == "GangIncomplete"


def test_an_elastic_job_found_after_a_restart_grows_by_the_members_that_waited():
    scheduler = pool(node("n0", 3))
    submit(scheduler, job("elastic", 1, n_members=3, min_member=1))
    record = scheduler.state.jobs["elastic"]
    again = pool()
    again.step(GrantsFound(2, record.job, record.members[0].grants, waiting=(2,)))
    assert starts(again.step(NodePut(3, node("n0", 3)))) == [("elastic", 2)]


def test_a_gang_of_which_too_few_members_are_left_stops_and_one_of_which_enough_are_goes_on():
    scheduler = pool(node("n0", 4))
    started(scheduler, submit(scheduler, job("gang", 1, n_members=4, min_member=3)))
    assert evicted(scheduler.step(MemberFinished(2, "gang", 0, 1, "exit 1"))) == []
    assert evicted(scheduler.step(MemberFinished(3, "gang", 1, 1, "exit 1"))) == ["gang", "gang"]
    scheduler.step(MemberFinished(4, "gang", 2, 143))
    over = scheduler.step(MemberFinished(5, "gang", 3, 143))
    assert [each.state for each in over if isinstance(each, SetJobState)] == ["failed"]


def test_a_partial_start_gives_back_all_of_the_gang():
    scheduler = pool(node("n0", 4))
    submit(scheduler, job("gang", 1, n_members=4))
    scheduler.step(MemberStarted(2, "gang", 0))
    assert evicted(scheduler.step(MemberFinished(3, "gang", 3, 127, "not started"))) == ["gang"] * 3
    for index in range(3):
        scheduler.step(MemberFinished(4, "gang", index, 143))
    assert int(scheduler.state.books.granted_milli.sum()) == 0
    assert starts(submit(scheduler, job("next", 5, n_members=4))) != []


def test_work_without_cards_goes_to_a_node_without_cards():
    scheduler = pool(Node("bare", (), 8_000, 64 * GIB))
    request = SliceRequest(1, 1, 1, n_devices=0)
    assert starts(submit(scheduler, Job("cpu", "ann", "a", request, cpu_milli=6_000, seq=1))) == [("cpu", 0)]
    submit(scheduler, Job("more", "ann", "a", request, cpu_milli=6_000, seq=2))
    assert scheduler.reason_for("more").code == "NotEnoughCpu"
    assert starts(scheduler.step(MemberFinished(3, "cpu", 0, 0))) == [("more", 0)]


def test_an_elastic_gang_of_subgroups_ends_when_each_has_run_once():
    scheduler = pool(node("n0", 2, "r0"))
    began = starts(submit(scheduler, subgroups("gang", 1, 4, 2, min_member=2)))
    for index in range(4):
        began += starts(scheduler.step(MemberFinished(2 + index, "gang", index, 0)))
    assert began == [("gang", index) for index in range(4)]
    assert scheduler.state.jobs == {}


@pytest.mark.parametrize(
    "where", [{"required_level": "galaxy"}, {"subgroup_size": 1, "subgroup_level": "galaxy"}], ids=["job", "subgroup"]
)
def test_a_level_that_no_node_knows_is_named_with_those_that_are_known(where):
    scheduler = pool(node("n0"))
    assert starts(submit(scheduler, job("gang", 1, n_members=2, **where))) == []
    reason = scheduler.reason_for("gang")
    assert reason.code is Reason.TOO_LARGE
    assert reason.message == "No node says in which galaxy it is; levels known are: host, rack, pod."
