"""Idle compute is lent, granted when it becomes free, and taken back for whoever has a right to it."""

from dataclasses import replace

import pytest

from flexai.model import Device, Job, Node, Queue, SliceRequest, TenantClass
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Resize, Start, Weigh
from flexai.scheduling.events import (
    ForeignUsage,
    GrantsFound,
    JobSubmitted,
    MemberFinished,
    NodePut,
    QueuePut,
    Tick,
    UsageMeasured,
)

GIB = 2**30


def job(name, seq, milli, gib, tenant_class=TenantClass.GUARANTEED):
    return Job(name, "ann", "a", SliceRequest(milli, 1000, gib * GIB, tenant_class), seq=seq, preemptible=False)


def busy_card(owner_milli=1000):
    """A card granted to an owner, and a best-effort job that waits: less than it asks for is free, if anything."""
    scheduler = Scheduler(SchedulerSettings(), check=True)
    scheduler.step(QueuePut(0, Queue("a")))
    scheduler.step(NodePut(0, Node("n", (Device("card", "H200", "simulated", 0, 100 * GIB),), 64_000, 64 * GIB)))
    scheduler.step(JobSubmitted(1, job("owner", 1, owner_milli, 40)))
    assert scheduler.step(JobSubmitted(2, job("guest", 2, 300, 50, TenantClass.BEST_EFFORT))) == []
    return scheduler


def measured(scheduler, milli, at_ms=10):
    return scheduler.step(UsageMeasured(at_ms, 1000, (("owner", 0, "card", milli),)))


def started(commands):
    return [command.job_id for command in commands if isinstance(command, Start)]


def test_idle_compute_is_lent_and_no_compute_is_granted_for_it():
    commands = measured(busy_card(), 100)
    assert started(commands) == ["guest"]
    grant = next(command for command in commands if isinstance(command, Start)).grants[0]
    assert (grant.compute_milli, grant.limit_milli, grant.memory_bytes) == (0, 1000, 50 * GIB)


def test_what_is_busy_is_not_lent():
    assert started(measured(busy_card(), 950)) == []


def test_of_what_is_idle_a_job_takes_less_than_it_asks_for():
    commands = measured(busy_card(), 800)
    assert [(command.job_id, command.cause) for command in commands if isinstance(command, Start)] == [
        ("guest", "lent: 20% of its card was measured idle")
    ]


def test_alike_jobs_are_lent_to_until_what_is_idle_is_given_away():
    scheduler = busy_card()
    for seq in range(3, 9):
        scheduler.step(JobSubmitted(seq, job(f"small{seq}", seq, 300, 5, TenantClass.BEST_EFFORT)))
    assert started(measured(scheduler, 100)) == ["guest", "small3", "small4"]


def two_queues(weight=1000, quota_milli=0):
    """A card granted to an owner; three jobs of a wait to borrow, and then three of b."""
    scheduler = busy_card()
    scheduler.step(JobSubmitted(3, job("a1", 3, 200, 5, TenantClass.BEST_EFFORT)))
    scheduler.step(QueuePut(3, Queue("b", quota_milli=quota_milli, weight=weight)))
    for seq, name in enumerate(("a2", "b0", "b1", "b2"), 4):
        each = replace(job(name, seq, 200, 5, TenantClass.BEST_EFFORT), queue=name[0])
        scheduler.step(JobSubmitted(seq, each))
    return scheduler


def lent(scheduler, owner_milli=200):
    return [each for each in measured(scheduler, owner_milli) if isinstance(each, Start)]


def test_what_is_idle_is_lent_to_the_queue_that_holds_and_borrows_least_of_its_share():
    commands = lent(two_queues())
    assert [each.job_id for each in commands] == ["b0", "b1", "b2", "a1"], "the owner is of a, and holds the card"
    assert commands[0].cause == (
        "lent: 80% of its card was measured idle; of 2 queues, b has least of its fair share (0%)"
    )
    assert commands[-1].cause == "lent: 20% of its card was measured idle", "no other queue would borrow any more"


def test_queues_that_hold_nothing_borrow_by_weight():
    def borrowed(weight):
        scheduler = Scheduler(SchedulerSettings(), check=True)
        for queue in (Queue("a"), Queue("b"), Queue("c", weight=weight)):
            scheduler.step(QueuePut(0, queue))
        scheduler.step(NodePut(0, Node("n", (Device("card", "H200", "simulated", 0, 100 * GIB),), 64_000, 64 * GIB)))
        scheduler.step(JobSubmitted(1, job("owner", 1, 1000, 40)))
        for seq in range(2, 14):
            queue = "bc"[seq % 2]
            each = replace(job(f"{queue}{seq}", seq, 100, 4, TenantClass.BEST_EFFORT), queue=queue)
            scheduler.step(JobSubmitted(seq, each))
        return "".join(each.job_id[0] for each in lent(scheduler, 250))

    assert sorted(borrowed(1000)) == list("bbbbccc")
    assert sorted(borrowed(3000)) == list("bbccccc")


def test_a_queue_within_its_guarantee_borrows_before_others():
    scheduler = two_queues(weight=1, quota_milli=400)
    assert [each.job_id for each in lent(scheduler)][:2] == ["b0", "b1"]


def test_a_borrower_that_has_just_started_counts_as_using_what_it_asked_for():
    scheduler = busy_card()
    for seq in range(3, 6):
        scheduler.step(JobSubmitted(seq, job(f"small{seq}", seq, 600, 3, TenantClass.BEST_EFFORT)))
    assert started(measured(scheduler, 100)) == ["guest", "small3"]
    used = tuple((name, 0, "card", 100) for name in ("owner", "guest", "small3"))
    assert started(scheduler.step(UsageMeasured(500, 400, used))) == []
    assert started(scheduler.step(UsageMeasured(1500, 400, used))) == ["small4", "small5"]


def test_work_that_comes_later_is_lent_what_was_measured_before():
    scheduler = busy_card()
    assert started(measured(scheduler, 100)) == ["guest"]
    assert started(scheduler.step(JobSubmitted(11, job("late", 3, 300, 5, TenantClass.BEST_EFFORT)))) == ["late"]


def test_what_programs_outside_the_pool_use_is_not_lent():
    scheduler = busy_card()
    scheduler.step(ForeignUsage(3, "card", 0, 850))
    assert started(measured(scheduler, 100)) == []


def test_memory_is_never_lent():
    scheduler = busy_card()
    scheduler.step(JobSubmitted(3, job("large", 3, 100, 70, TenantClass.BEST_EFFORT)))
    assert started(measured(scheduler, 0)) == ["guest"]


def test_an_elastic_job_is_lent_to_for_the_member_that_waits():
    scheduler = busy_card(800)
    wide = replace(job("wide", 3, 100, 1, TenantClass.BEST_EFFORT), n_members=3, min_member=1)
    assert started(scheduler.step(JobSubmitted(4, wide))) == ["wide", "wide"]
    lent = [command for command in measured(scheduler, 100) if isinstance(command, Start)]
    assert [(command.job_id, command.member) for command in lent] == [("guest", 0), ("wide", 2)]


def test_a_lent_start_is_granted_when_the_owner_is_gone():
    scheduler = busy_card()
    measured(scheduler, 100)
    resized = [each for each in scheduler.step(MemberFinished(20, "owner", 0, 0)) if isinstance(each, Resize)]
    assert [(command.job_id, command.grants[0].compute_milli) for command in resized] == [("guest", 300)]
    assert scheduler.state.queues["a"].used_milli == 300
    assert scheduler.step(Tick(22)) == []


def test_a_guaranteed_job_takes_the_memory_of_a_lent_one_back():
    scheduler = busy_card(800)
    measured(scheduler, 100)
    commands = scheduler.step(JobSubmitted(21, job("next", 3, 150, 60)))
    evicted = [command for command in commands if isinstance(command, Evict)]
    assert [(command.job_id, command.requeue) for command in evicted] == [("guest", True)]
    assert "taken back" in evicted[0].cause
    assert started(scheduler.step(MemberFinished(22, "guest", 0, 143))) == ["next"]


def test_best_effort_work_takes_nothing_back():
    scheduler = busy_card(800)
    measured(scheduler, 100)
    commands = scheduler.step(JobSubmitted(21, job("next", 3, 150, 60, TenantClass.BEST_EFFORT)))
    assert not [command for command in commands if isinstance(command, Evict)]


def weighed(commands):
    return {each.job_id: each.grants[0].borrow_weight for each in commands if isinstance(each, Weigh)}


def borrowing(*asks, weights=(3000, 1000)):
    """A card whose owner leaves 80 %; jobs of queues b and c that ask for so much borrow it: what they were told."""
    scheduler = Scheduler(SchedulerSettings(), check=True)
    scheduler.step(QueuePut(0, Queue("a")))
    for name, weight in zip("bc", weights, strict=True):
        scheduler.step(QueuePut(0, Queue(name, weight=weight)))
    scheduler.step(NodePut(0, Node("n", (Device("card", "H200", "simulated", 0, 140 * GIB),), 64_000, 64 * GIB)))
    scheduler.step(JobSubmitted(1, job("owner", 1, 1000, 40)))
    for seq, (queue, milli) in enumerate(asks, 2):
        each = replace(job(f"{queue}{seq}", seq, milli, 4, TenantClass.BEST_EFFORT), queue=queue)
        scheduler.step(JobSubmitted(seq, each))
    told = {}
    for at_ms in range(2_000, 30_000, 2_000):  # who has just started counts as using what it asked for
        told |= weighed(scheduler.step(UsageMeasured(at_ms, 400, used_by(scheduler))))
    return scheduler, told


def used_by(scheduler, owner_milli=200):
    return (("owner", 0, "card", owner_milli), *((name, 0, "card", 10) for name, _ in scheduler.state.lent))


def test_borrowers_weigh_by_their_queues_weights_and_in_each_by_what_they_asked_for():
    _, told = borrowing(("b", 600), ("b", 200), *[("c", 100)] * 5)
    assert told == pytest.approx({"b2": 562.5, "b3": 187.5, "c4": 50, "c5": 50, "c6": 50, "c7": 50, "c8": 50}, abs=1)


def test_the_weight_comes_with_its_numbers_and_is_told_once():
    scheduler, _ = borrowing(("b", 300), ("c", 100), ("c", 300))
    due, cause = scheduler.due_of("c3")[0]
    assert due.weight == scheduler.state.jobs["c3"].members[0].grants[0].borrow_weight == 62
    assert cause == (
        "due 6.2% of what is idle on its card beside 2 others: queue c is owed 25% of all that is lent and has 25% "
        "here, and the job asked for 10% of the 40% that its queue asks for here"
    )
    assert weighed(scheduler.step(UsageMeasured(40_000, 400, used_by(scheduler)))) == {}
    assert weighed(scheduler.step(UsageMeasured(41_000, 400, used_by(scheduler, 900)))) == {}, "whatever is idle"


def test_a_queue_of_another_weight_is_told_at_once():
    scheduler, told = borrowing(("b", 300), ("c", 300))
    assert told == {"b2": 750, "c3": 250}
    assert weighed(scheduler.step(QueuePut(40_000, Queue("c", weight=9000)))) == {"b2": 250, "c3": 750}


def test_a_queue_that_lacks_of_its_quota_is_owed_that_first():
    scheduler, _ = borrowing(("b", 300), ("c", 300))
    told = weighed(scheduler.step(QueuePut(40_000, Queue("c", quota_milli=400, weight=1000))))
    assert told == {"b2": 375, "c3": 625}, "of 80 % 40 first, and of the other 40 a quarter"


def test_who_borrows_alone_has_no_need_of_a_weight():
    scheduler, told = borrowing(("b", 300))
    assert told == {}
    assert scheduler.due_of("b2") == {}


def test_when_one_ends_the_others_have_its_part():
    scheduler, _ = borrowing(("b", 300), ("c", 100), ("c", 300))
    assert weighed(scheduler.step(MemberFinished(40_000, "c4", 0, 0))) == {"c3": 250}


def test_a_scheduler_that_is_started_again_keeps_the_weights_that_it_is_told():
    scheduler, _ = borrowing(("b", 300), ("c", 100))
    again = Scheduler(SchedulerSettings(), check=True)
    for name, weight in (("a", 1000), ("b", 3000), ("c", 1000)):
        again.step(QueuePut(0, Queue(name, weight=weight)))
    for name, record in scheduler.state.jobs.items():
        again.step(GrantsFound(0, record.job, record.members[0].grants))
        assert name in again.state.jobs
    again.step(NodePut(0, Node("n", (Device("card", "H200", "simulated", 0, 140 * GIB),), 64_000, 64 * GIB)))
    assert weighed(again.step(UsageMeasured(10, 400, used_by(again)))) == {}
    assert [again.state.jobs[name].members[0].grants[0].borrow_weight for name in ("b2", "c3")] == [750, 250]


def test_what_is_granted_has_no_borrowing_weight_any_more():
    scheduler, _ = borrowing(("b", 300), ("c", 100))
    commands = scheduler.step(MemberFinished(40_000, "owner", 0, 0))
    granted = {each.job_id: each.grants[0] for each in commands if isinstance(each, Resize)}
    assert {name: (one.compute_milli, one.borrow_weight) for name, one in granted.items()} == {
        "b2": (300, 0),
        "c3": (100, 0),
    }
    assert weighed(commands) == {}


def test_a_guarantee_has_no_weight_but_its_request():
    scheduler, _ = borrowing(("b", 300), ("c", 100))
    assert scheduler.state.jobs["owner"].members[0].grants[0].borrow_weight == 0


def full_card(*asks, owner_milli=200):
    """A card of which borrowers use all that its owner leaves; then two jobs of c come."""
    scheduler, _ = borrowing(*asks)
    each_milli = (1000 - owner_milli) // len(asks)
    used = ("owner", 0, "card", owner_milli), *((name, 0, "card", each_milli) for name, _ in scheduler.state.lent)
    scheduler.step(UsageMeasured(40_000, 400, used))
    commands = []
    for seq in (10, 11):
        each = replace(job(f"c{seq}", seq, 100, 4, TenantClass.BEST_EFFORT), queue="c")
        commands += scheduler.step(JobSubmitted(40_000, each))
    return commands


def test_a_queue_that_borrows_nothing_is_let_on_to_where_another_has_all_that_is_idle():
    commands = full_card(("b", 300))
    assert started(commands) == ["c10"], "one is enough: it can have all that its queue is owed"
    assert next(each.cause for each in commands if isinstance(each, Start)) == (
        "lent: 80% of its card is left to borrowers; of what is lent queue c is owed 20% of a card and could have 0% "
        "where it borrows"
    )
    assert weighed(commands) == {"b2": 750, "c10": 250}


def test_where_owners_use_all_nobody_is_let_on():
    assert started(full_card(("b", 300), owner_milli=950)) == []


def test_a_queue_that_can_have_what_it_is_owed_waits_for_what_is_idle():
    assert started(full_card(("b", 300), ("c", 300))) == []


def test_a_queue_that_holds_more_of_its_share_is_not_let_on_to_what_another_borrows():
    scheduler, _ = borrowing(("b", 300))
    used = ("owner", 0, "card", 200), ("b2", 0, "card", 800)
    scheduler.step(UsageMeasured(40_000, 400, used))
    late = job("a3", 3, 100, 4, TenantClass.BEST_EFFORT)  # of the owner's queue, which holds the card
    assert started(scheduler.step(JobSubmitted(40_000, late))) == []
