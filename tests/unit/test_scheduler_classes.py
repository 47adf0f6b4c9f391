"""Quota, limit, weight and priority of a queue for each class of cards."""

import pytest

from flexai.model import ClassTerms, Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodeGone, NodePut, QueuePut, Tick

GIB = 2**30


def node(model, n_cards):
    cards = tuple(Device(f"{model}/{card}", model, "simulated", card, 100 * GIB) for card in range(n_cards))
    return Node(model, cards, 64_000, 512 * GIB)


def pool(*queues, h200=4, l40s=4, **settings):
    scheduler = Scheduler(SchedulerSettings(**settings), check=True)
    for queue in queues:
        scheduler.step(QueuePut(0, queue))
    scheduler.step(NodePut(0, node("H200", h200)))
    scheduler.step(NodePut(0, node("L40S", l40s)))
    return scheduler


def submit(scheduler, name, queue, models=(), **more):
    seq = int(name[1:])
    request = SliceRequest(1000, 1000, 0, models=models)
    return scheduler.step(JobSubmitted(seq, Job(name, "ann", queue, request, seq=seq, submitted_at_ms=seq, **more)))


def models(commands):
    return [each.grants[0].device.split("/")[0] for each in commands if isinstance(each, Start)]


def evicted(commands):
    return [each.job_id for each in commands if isinstance(each, Evict)]


def began(commands):
    return [each.job_id for each in commands if isinstance(each, Start)]


def test_a_limit_on_one_class_keeps_a_queue_from_its_cards_and_from_no_others():
    scheduler = pool(Queue("a", classes=(ClassTerms("H200", limit_milli=1000),)))
    got = [model for seq in range(1, 8) for model in models(submit(scheduler, f"j{seq}", "a"))]
    assert (got.count("H200"), got.count("L40S")) == (1, 4)
    reason = scheduler.reason_for("j6")
    assert reason.code == "QueueLimit"
    assert "limit of 1 card of H200" in reason.message
    assert models(submit(scheduler, "j9", "nowhere")) == []


def test_a_job_that_a_class_limit_stops_does_not_stop_another_queues_job_of_the_same_shape():
    scheduler = pool(Queue("a", classes=(ClassTerms("H200", limit_milli=1000),)), Queue("b"), l40s=0)
    assert models(submit(scheduler, "j1", "a")) == ["H200"]
    assert models(submit(scheduler, "j2", "a")) == []
    assert models(submit(scheduler, "j3", "b")) == ["H200"]
    assert began(scheduler.step(MemberFinished(9, "j1", 0, 0))) == ["j2"]


def test_a_limit_of_the_parent_counts_what_its_children_hold_of_the_class():
    parent = Queue("p", classes=(ClassTerms("H200", limit_milli=2000),))
    scheduler = pool(parent, Queue("a", "p"), Queue("b", "p"), l40s=0)
    got = [models(submit(scheduler, f"j{seq}", "ab"[seq % 2])) for seq in range(1, 5)]
    assert got == [["H200"], ["H200"], [], []]
    assert "Queue p holds 2 cards of its limit of 2 cards of H200" in scheduler.reason_for("j3").message


def test_a_gang_takes_no_more_of_a_class_than_its_limit_and_the_rest_elsewhere():
    scheduler = pool(Queue("a", classes=(ClassTerms("H200", limit_milli=2000),)))
    got = models(submit(scheduler, "j1", "a", n_members=5, min_member=5))
    assert sorted(got) == ["H200"] * 2 + ["L40S"] * 3 or got == []
    got = got or models(submit(scheduler, "j2", "a", n_members=5, min_member=1))
    assert got.count("H200") <= 2


@pytest.mark.parametrize(("wants", "n"), [("H200", 1), ("L40S", 0)])
def test_a_quota_of_one_class_reclaims_its_cards_and_no_others(wants, n):
    scheduler = pool(Queue("owner", classes=(ClassTerms("H200", quota_milli=1000),)), Queue("guest"))
    for seq in range(1, 9):
        submit(scheduler, f"j{seq}", "guest")
    assert len(evicted(submit(scheduler, "j20", "owner", (wants,)))) == n


def test_reclaim_leaves_a_queue_its_quota_of_the_class():
    queues = [
        Queue("owner", classes=(ClassTerms("H200", quota_milli=3000),)),
        Queue("guest", classes=(ClassTerms("H200", quota_milli=3000),)),
    ]
    scheduler = pool(*queues)
    for seq in range(1, 9):
        submit(scheduler, f"j{seq}", "guest")
    gone = [name for seq in range(20, 23) for name in evicted(submit(scheduler, f"j{seq}", "owner", ("H200",)))]
    assert len(gone) == 1


def test_weights_of_a_class_share_its_cards_alone():
    heavy, light = ClassTerms("H200", weight=3000), ClassTerms("H200", weight=1000)
    scheduler = pool(Queue("a", classes=(heavy,)), Queue("b", classes=(light,)), h200=8, l40s=0)
    running = []
    for seq in range(1, 60):
        running += began(submit(scheduler, f"j{seq}", "ab"[seq % 2], ("H200",)))
    for turn in range(24):
        running += began(scheduler.step(MemberFinished(100 + turn, running.pop(0), 0, 0)))
    assert {name: scheduler.state.queues[name].used_of("H200") for name in "ab"} == {"a": 6000, "b": 2000}


def test_a_class_becomes_managed_while_work_runs_on_it():
    scheduler = pool(Queue("a"), l40s=0)
    submit(scheduler, "j1", "a")
    scheduler.step(QueuePut(2, Queue("a", classes=(ClassTerms("H200", limit_milli=1000),))))
    assert models(submit(scheduler, "j3", "a")) == []
    scheduler.step(QueuePut(4, Queue("a", classes=(ClassTerms("H200", limit_milli=2000),))))
    assert scheduler.state.jobs["j3"].is_placed


def test_what_is_guaranteed_to_children_is_guaranteed_to_their_parent():
    queues = [Queue("dept"), Queue("team", "dept", quota_milli=2000), Queue("guest")]
    scheduler = pool(*queues, l40s=0)
    for seq in range(1, 5):
        submit(scheduler, f"j{seq}", "guest")
    assert len(evicted(submit(scheduler, "j20", "team"))) == 1


def test_a_team_takes_nothing_across_departments_beyond_what_its_department_is_entitled_to():
    queues = [
        Queue("dept", quota_milli=1000), Queue("team", "dept", quota_milli=1000), Queue("other", "dept"),
        Queue("guest"),
    ]  # fmt: skip
    scheduler = pool(*queues, l40s=0)
    submit(scheduler, "j1", "other")
    for seq in range(2, 5):
        submit(scheduler, f"j{seq}", "guest")
    assert evicted(submit(scheduler, "j20", "team")) == ["j1"], "it takes back from its own department"
    assert evicted(scheduler.step(Tick(30))) == []


def test_a_node_that_was_gone_before_anything_was_placed_is_no_place():
    scheduler = Scheduler(SchedulerSettings(), check=True)
    scheduler.step(QueuePut(0, Queue("a")))
    scheduler.step(NodePut(0, node("H200", 2)))
    scheduler.step(NodeGone(0, "H200"))
    job = Job("1", "ann", "a", SliceRequest(500, 500, GIB))
    assert not [each for each in scheduler.step(JobSubmitted(0, job)) if isinstance(each, Start)]
    scheduler.step(NodePut(0, node("L40S", 1)))
    assert scheduler.state.jobs["1"].members[0].grants
