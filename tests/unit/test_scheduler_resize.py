"""A running job's share grows only where every card has room for all of its members there; and how many run at once
is its user's to say, as far as the job is elastic.
"""

import pytest

from flexai.model import Device, Job, Node, Queue, Role, SliceRequest, TopologyLevel
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Evict, Resize, Start
from flexai.scheduling.events import (
    JobMembersAsked,
    JobResizeAsked,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodePut,
    QueuePut,
)


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


def slice_of(milli, n_devices=1):
    return SliceRequest(milli, milli, 2**30, n_devices=n_devices)


LEADER = Role("leader", slice_of(100))


def gang(worker=None, n_cards=2, queue=None):
    """A leader and four workers of 200, of which two must run; and its pool."""
    worker = worker or Role("worker", slice_of(200), 4, 2)
    scheduler = Scheduler(check=True)
    scheduler.step(QueuePut(0, queue or Queue("q")))
    cards = tuple(Device(f"c{n}", "H200", "simulated", n, 2**36) for n in range(n_cards))
    scheduler.step(NodePut(0, Node("n", cards, 64_000, 2**38, (TopologyLevel("rack", "r0", 2),))))
    roles = LEADER, worker
    least = sum(role.min_member for role in roles)
    job = Job("j", "ann", "q", LEADER.request, sum(role.n_members for role in roles), least, seq=1, roles=roles)
    commands = scheduler.step(JobSubmitted(1, job))
    for each in commands:
        if isinstance(each, Start):
            scheduler.step(MemberStarted(1, each.job_id, each.member))
    return scheduler


def of(kind, commands):
    return [each.member for each in commands if isinstance(each, kind)]


def held(scheduler):
    return [0 if m.hold is None else m.hold.compute_milli for m in scheduler.state.jobs["j"].members]


def test_one_role_is_resized_and_the_other_stays():
    scheduler = gang()
    assert of(Resize, scheduler.step(JobResizeAsked(2, "j", 225, 500, "worker"))) == [1, 2, 3, 4]
    assert held(scheduler) == [100, 225, 225, 225, 225]
    job = scheduler.state.jobs["j"].job
    assert [(role.request.compute_milli, role.request.limit_milli) for role in job.roles] == [(100, 100), (225, 500)]
    assert (job.request, job.n_cards) == (LEADER.request, 5)


def test_a_role_that_does_not_fit_its_cards_keeps_what_it_has_and_says_what_is_missing():
    scheduler = gang()
    wish = JobResizeAsked(2, "j", 600, 600, "worker")
    why = scheduler.why_not_resize(wish)
    assert (why.code, why.numbers) == ("NotEnoughCompute", {"free_milli": 100, "missing_milli": 1500, "n_members": 4})
    assert why.message.startswith(
        "It runs on card 0, which has 10 % free beside its neighbours: not enough for 4 members"
    )
    assert scheduler.step(wish) == []
    assert held(scheduler) == [100, 200, 200, 200, 200]


def test_a_role_that_grows_stays_within_its_queue_s_limit():
    scheduler = gang(queue=Queue("q", limit_milli=950))
    wish = JobResizeAsked(2, "j", 225, 225, "worker")
    assert scheduler.why_not_resize(wish).code == "QueueLimit"
    assert scheduler.step(wish) == []
    assert of(Resize, scheduler.step(JobResizeAsked(3, "j", 212, 212, "worker"))) == [1, 2, 3, 4]


@pytest.mark.parametrize("role", ["", "nobody"])
def test_of_a_gang_with_roles_one_of_them_is_named(role):
    scheduler = gang()
    assert scheduler.step(JobResizeAsked(2, "j", 150, 150, role)) == []
    assert scheduler.step(JobMembersAsked(2, "j", 2, role)) == []
    assert held(scheduler) == [100, 200, 200, 200, 200]


def test_a_role_that_waits_is_resized_and_starts_when_it_fits():
    scheduler = gang(Role("worker", slice_of(950), 2, 2), n_cards=2)
    assert held(scheduler) == [0, 0, 0]
    assert of(Start, scheduler.step(JobResizeAsked(2, "j", 900, 900, "worker"))) == [0, 1, 2]


def test_members_beyond_what_its_user_wants_are_stopped_and_wait_until_he_wants_more():
    scheduler = gang()
    commands = scheduler.step(JobMembersAsked(2, "j", 2, "worker"))
    assert of(Evict, commands) == [4, 3]
    assert all(each.requeue and each.cause == "its user wants 2 members of role worker" for each in commands)
    for member in (4, 3):
        assert scheduler.step(MemberFinished(3, "j", member, 143)) == []
    assert scheduler.state.jobs["j"].state == "running"
    assert of(Start, scheduler.step(JobMembersAsked(4, "j", 3, "worker"))) == [3]
    assert of(Start, scheduler.step(JobMembersAsked(5, "j", 4, "worker"))) == [4]


def test_who_is_wanted_again_before_it_is_gone_starts_when_it_is():
    scheduler = gang()
    scheduler.step(JobMembersAsked(2, "j", 3, "worker"))
    assert scheduler.step(JobMembersAsked(2, "j", 4, "worker")) == []
    assert of(Start, scheduler.step(MemberFinished(3, "j", 4, 143))) == [4]


@pytest.mark.parametrize("n_members", [1, 5])
def test_a_role_runs_with_no_fewer_than_its_least_and_no_more_than_all(n_members):
    scheduler = gang()
    assert scheduler.step(JobMembersAsked(2, "j", n_members, "worker")) == []
    assert held(scheduler) == [100, 200, 200, 200, 200]


def test_a_role_of_subgroups_shrinks_by_whole_ones():
    scheduler = gang(Role("worker", slice_of(300), 6, 2, subgroup_size=2, subgroup_level="rack"), n_cards=3)
    assert scheduler.step(JobMembersAsked(2, "j", 3, "worker")) == []
    assert of(Evict, scheduler.step(JobMembersAsked(2, "j", 4, "worker"))) == [6, 5]


def test_the_rest_of_an_elastic_job_runs_when_the_first_are_done():
    scheduler = Scheduler(check=True)
    scheduler.step(QueuePut(0, Queue("q")))
    scheduler.step(NodePut(0, Node("n", (Device("c", "H200", "simulated", 0, 2**36),), 64_000, 2**38)))
    job = Job("j", "ann", "q", slice_of(200), 4, 1, seq=1, most_at_once=2)
    assert of(Start, scheduler.step(JobSubmitted(1, job))) == [0, 1]
    assert of(Start, scheduler.step(MemberFinished(2, "j", 0, 0))) == [2]
    assert of(Start, scheduler.step(MemberFinished(3, "j", 1, 0))) == [3]
    scheduler.step(MemberFinished(4, "j", 2, 0))
    assert [str(each.state) for each in scheduler.step(MemberFinished(5, "j", 3, 0))] == ["succeeded"]
