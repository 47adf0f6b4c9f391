"""Large jobs of several queues: over some time a queue has its share, however large its jobs are against it."""

import random

import pytest

from flexai.model import Device, Job, Node, Queue, Reason, SliceRequest
from flexai.policy.advance import Advance
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import NoteAdvance, Start
from flexai.scheduling.events import (
    AdvanceTold,
    GrantsFound,
    JobSubmitted,
    MemberFinished,
    NodePut,
    QueuePut,
    Tick,
)
from flexai.simulation.kernel import SimulatedJob, Simulation
from flexai.wire.cluster_spec import parse_cluster

GIB = 2**30
MINUTE, HOUR = 60_000, 3_600_000
HISTORY = {"fair_k_milli": 10_000, "half_life_ms": HOUR}


def job(seq, queue, n_cards, at_ms=0, **more):
    request = SliceRequest(1000, 1000, 0, n_devices=n_cards)
    return Job(f"j{seq}", "ann", queue, request, submitted_at_ms=at_ms, seq=seq, **more)


def shares_held(weights, sizes, *, hours=20, from_hour=4, **settings):
    """Play backlogged queues on 32 cards; what each held over its share of them, from an hour to the end."""
    chance, jobs, end_ms = random.Random(1), [], hours * HOUR
    for queue in weights:
        lasting_ms = 0
        while lasting_ms < 32 * end_ms:
            jobs.append(SimulatedJob(job(len(jobs), queue, sizes[queue]), chance.randrange(20 * MINUTE, 60 * MINUTE)))
            lasting_ms += jobs[-1].duration_ms * sizes[queue]
    simulation = Simulation(Scheduler(SchedulerSettings(reserve_cards=8, **settings)))
    setup = [*(QueuePut(0, Queue(name, weight=weight)) for name, weight in weights.items())]
    outcome = simulation.play([*setup, *(NodePut(0, node) for node in parse_cluster("4x8"))], jobs, until_ms=end_ms)
    held = dict.fromkeys(weights, 0)
    for book in outcome.jobs:
        if book.started_ms >= 0:
            finished_ms = book.finished_ms if book.finished_ms >= 0 else end_ms
            held[book.job.queue] += max(0, finished_ms - max(book.started_ms, from_hour * HOUR)) * book.n_cards
    shares_of = 32 * (end_ms - from_hour * HOUR) / sum(weights.values())
    return {name: held[name] / (shares_of * weight) for name, weight in weights.items()}


@pytest.mark.parametrize("history", [{}, HISTORY], ids=["classic rule", "past use counts"])
def test_a_small_queue_of_jobs_four_times_its_share_holds_about_its_share_over_a_day(history):
    held = shares_held({"small": 1000, "large": 15_000}, {"small": 8, "large": 1}, **history)
    assert held["small"] < 1.25  # it was 12
    assert held["small"] > 0.6  # nor is it starved: large jobs start
    assert held["large"] > 0.9


def test_queues_of_large_and_of_small_jobs_share_alike():
    held = shares_held({"of eight": 1000, "of one": 1000}, {"of eight": 8, "of one": 1}, hours=12)
    assert 0.85 < held["of eight"] < 1.1


# -- step by step: 16 cards, two queues of weights 1 and 3, jobs of 8 cards are large -------------------------------


def pool():
    scheduler = Scheduler(SchedulerSettings(reserve_cards=8), check=True)
    scheduler.step(QueuePut(0, Queue("small", weight=1000)))
    scheduler.step(QueuePut(0, Queue("other", weight=3000)))
    for name in "mn":
        cards = tuple(Device(f"{name}/{card}", "H200", "simulated", card, 80 * GIB) for card in range(8))
        scheduler.step(NodePut(0, Node(name, cards, 64_000, 512 * GIB)))
    return scheduler


def starts(commands):
    return [each.job_id for each in commands if isinstance(each, Start)]


def busy():
    """All 16 cards are held: 8 by one job of the small queue for an hour, 8 by jobs of one; of both kinds more wait."""
    scheduler = pool()
    assert starts(scheduler.step(JobSubmitted(0, job(0, "small", 8)))) == ["j0"]
    for seq in range(1, 9):
        assert starts(scheduler.step(JobSubmitted(0, job(seq, "other", 1))))
    scheduler.step(JobSubmitted(0, job(9, "small", 8)))
    for seq in range(10, 40):
        scheduler.step(JobSubmitted(0, job(seq, "other", 1)))
    scheduler.step(Tick(0, 0))
    return scheduler


def test_a_large_job_of_a_queue_that_had_more_than_its_share_waits_until_the_others_had_theirs():
    scheduler = busy()
    scheduler.step(Tick(MINUTE, 0))
    reason = scheduler.reason_for("j9")
    assert (reason.code, reason.numbers["held_milli"], reason.numbers["share_milli"]) == (Reason.FAIR_SHARE, 8000, 4000)
    assert reason.numbers["wait_ms"] == -1  # not as long as it holds more than its share
    given_up = scheduler.step(MemberFinished(HOUR, "j0", 0, 0))
    assert starts(given_up) == [f"j{seq}" for seq in range(10, 18)]  # not j9, which would have fitted
    reason = scheduler.reason_for("j9")  # 4 cards too many for an hour: an hour at none is what makes up for it
    assert (reason.code, reason.numbers["wait_ms"]) == (Reason.FAIR_SHARE, HOUR)
    assert reason.message == (
        "Large jobs of queue small hold 0 cards and had 4 card-hours more than its fair share of 4 cards: for 60 min, "
        "other goes first, and until then it starts only if what it needs is left."
    )
    scheduler.step(Tick(2 * HOUR - 1, 0))
    assert scheduler.state.reservation is None
    scheduler.step(Tick(2 * HOUR, 0))
    assert scheduler.state.reservation.job_id == "j9"
    assert scheduler.reason_for("j9").code is Reason.NOT_ENOUGH_DEVICES


def noted(before, commands):
    """What a pool would remember of what queues' large jobs had."""
    return before | {(each.queue, each.resource): each for each in commands if isinstance(each, NoteAdvance)}


def gone_on(note, now_ms):
    advance = Advance(note.share_milli, note.at_ms, note.held_milli, note.owed, note.most_saved)
    advance.settle(now_ms)
    return advance


@pytest.mark.parametrize("seed", range(5))
def test_what_is_noted_goes_on_as_it_does_in_the_scheduler(seed):
    chance, scheduler, notes, running, now_ms = random.Random(seed), pool(), {}, [], 0
    for seq in range(120):
        now_ms += chance.randrange(10 * MINUTE)
        if running and chance.random() < 0.5:
            commands = scheduler.step(MemberFinished(now_ms, running.pop(chance.randrange(len(running))), 0, 0))
        else:
            name = chance.choice(("small", "small", "other"))
            commands = scheduler.step(JobSubmitted(now_ms, job(seq, name, chance.choice((1, 8)), now_ms)))
        running += starts(commands)
        notes = noted(notes, commands)
        kept = {at: gone_on(note, now_ms) for at, note in notes.items()}
        for advance in scheduler.state.advances.values():
            advance.settle(now_ms)
        assert kept == scheduler.state.advances
    assert {name for name, _ in notes} == {"small", "other"}


def restarted(scheduler, notes, at_ms):
    """A new scheduler that was told what a pool knows."""
    again = Scheduler(SchedulerSettings(reserve_cards=8), check=True)
    state, told = scheduler.state, [QueuePut(at_ms, scheduler.state.queues[name].queue) for name in ("small", "other")]
    for note in notes.values():
        one = gone_on(note, at_ms)
        told.append(AdvanceTold(at_ms, note.queue, note.resource, one.share_milli, one.owed, one.most_saved))
    for record in state.jobs.values():
        grants = tuple(grant for member in record.members for grant in member.grants)
        told.append(GrantsFound(at_ms, record.job, grants) if grants else JobSubmitted(at_ms, record.job))
    for event in [*told, *(NodePut(at_ms, node) for node in state.books.nodes.values())]:
        again.step(event)
    return again


@pytest.mark.parametrize("at_ms", [30 * MINUTE, HOUR + 20 * MINUTE], ids=["while it runs", "while it makes up"])
def test_what_is_owed_is_owed_after_a_restart_too(at_ms):
    scheduler = pool()
    notes = {}

    def step(event):
        nonlocal notes
        commands = scheduler.step(event)
        notes = noted(notes, commands)
        return commands

    step(JobSubmitted(0, job(0, "small", 8)))
    for seq in range(1, 40):
        step(JobSubmitted(0, job(seq, "small" if seq == 9 else "other", 8 if seq == 9 else 1)))
    for now_ms in range(MINUTE, at_ms, MINUTE):
        step(MemberFinished(HOUR, "j0", 0, 0) if now_ms == HOUR else Tick(now_ms, 0))
    scheduler.step(Tick(at_ms, 0))
    again = restarted(scheduler, notes, at_ms)
    for now_ms in (at_ms, at_ms + 10 * MINUTE):
        for each in (scheduler, again):
            each.step(Tick(now_ms, 0))
        assert (told := scheduler.reason_for("j9")).code is Reason.FAIR_SHARE
        assert again.reason_for("j9") == told or again.reason_for("j9").numbers == told.numbers


def test_nobody_makes_up_for_anything_while_nobody_else_waits():
    scheduler = pool()
    for seq, at_ms in enumerate((0, 0)):
        scheduler.step(JobSubmitted(at_ms, job(seq, "small", 8)))
    scheduler.step(JobSubmitted(0, job(2, "small", 8)))
    assert scheduler.reason_for("j2").code is Reason.NOT_ENOUGH_DEVICES
    assert starts(scheduler.step(MemberFinished(HOUR, "j0", 0, 0))) == ["j2"]


def test_what_is_guaranteed_to_a_queue_it_has_at_once():
    scheduler = busy()
    scheduler.step(QueuePut(HOUR, Queue("small", quota_milli=8000, weight=1000)))
    assert starts(scheduler.step(MemberFinished(HOUR, "j0", 0, 0))) == ["j9"]


def test_to_ask_for_the_reason_changes_no_decision():
    asked, silent = busy(), busy()
    for now_ms in range(MINUTE, 3 * HOUR, 7 * MINUTE):
        for scheduler in (asked, silent):
            scheduler.step(Tick(now_ms, 0))
        asked.reason_for("j9")
    assert asked.state.advances == silent.state.advances


def test_what_is_found_after_a_restart_is_large_by_the_size_of_the_pool():
    scheduler = Scheduler(SchedulerSettings(), check=True)
    for name in ("small", "other"):
        scheduler.step(QueuePut(0, Queue(name)))
    cards = tuple(Device(f"m/{card}", "H200", "simulated", card, 80 * GIB) for card in range(64))
    node = Node("m", cards, 64_000, 512 * GIB)
    first = Scheduler(SchedulerSettings(), check=True)
    for event in (QueuePut(0, Queue("small")), NodePut(0, node), JobSubmitted(0, job(0, "small", 4))):
        first.step(event)
    grants = tuple(grant for member in first.state.jobs["j0"].members for grant in member.grants)
    scheduler.step(GrantsFound(0, job(0, "small", 4), grants))
    scheduler.step(NodePut(0, node))
    assert scheduler.state.big_from == 16
    assert scheduler.state.advances == {}
