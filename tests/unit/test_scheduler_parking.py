"""A borrower is parked instead of stopped where that costs it less, and comes back to its place before newer work."""

from dataclasses import replace

from flexai.model import Device, Job, JobState, Node, Queue, Reason, Residence, Role, SliceRequest, TenantClass
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Park, SetJobState, Start, Wake
from flexai.scheduling.events import (
    DeviceChanged,
    GrantsFound,
    JobCancelled,
    JobSubmitted,
    MemberFinished,
    MemberParked,
    MemberStarted,
    MemberWoken,
    MemoryMeasured,
    NodePut,
    ParkAsked,
    QueuePut,
    Tick,
    UsageMeasured,
)

GIB = 2**30
PARKS = SchedulerSettings(park="if_cheaper", park_least_ms=10_000)


class Pool:
    """One node; says what is commanded, and answers starts by itself."""

    def __init__(self, settings=PARKS, n_cards=1, can_park=True, ram_gib=256, moves=False, models=("H200",)):
        self.scheduler, self.log, self.seq = Scheduler(settings, check=True), [], 0
        cards = tuple(
            Device(
                f"c{n}", models[n % len(models)], "simulated", n, 100 * GIB, can_park=can_park,
                can_move_when_parked=moves,
            )
            for n in range(n_cards)
        )  # fmt: skip
        self.step(QueuePut(0, Queue("owner", quota_milli=1000 * n_cards)))
        self.step(QueuePut(0, Queue("guest")))
        self.node = Node("n", cards, 64_000, ram_gib * GIB)
        self.step(NodePut(0, self.node))

    def step(self, event):
        commands = self.scheduler.step(event)
        self.log.append((event, commands))
        for command in commands:
            if isinstance(command, Start):
                commands = [*commands, *self.step(MemberStarted(event.at_ms, command.job_id, command.member))]
        return commands

    def submit(self, at_ms, name, queue="guest", milli=1000, gib=40, tenant_class=TenantClass.GUARANTEED, **more):
        self.seq += 1
        request = SliceRequest(milli, 1000, gib * GIB, tenant_class)
        job = Job(name, "ann", queue, request, submitted_at_ms=at_ms, seq=self.seq, **more)
        return self.step(JobSubmitted(at_ms, job))

    def state(self, name):
        return self.scheduler.state.jobs[name].state

    def reason(self, name):
        return self.scheduler.reason_for(name)


def told(commands, *kinds):
    return [
        (type(each).__name__, each.job_id) for each in commands if isinstance(each, kinds or (Park, Wake, Evict, Start))
    ]


def parked(at_ms=100_000, **how):
    """The guest has run for ``at_ms``; then the owner wants the card, and has it from one second later on."""
    pool = Pool(**how)
    pool.submit(0, "guest")
    assert told(pool.submit(at_ms, "owner", "owner")) == [("Park", "guest")]
    assert told(pool.step(MemberParked(at_ms + 1_000, "guest", 0))) == [("Start", "owner")]
    return pool


def test_a_borrower_is_parked_for_the_owner_of_the_card_and_woken_when_it_is_free():
    pool = parked()
    assert pool.state("guest") is JobState.PARKED
    assert told(pool.step(MemberFinished(200_000, "owner", 0, 0))) == [("Wake", "guest")]
    commands = pool.step(MemberWoken(201_000, "guest", 0))
    assert [each for each in commands if isinstance(each, SetJobState)] == [
        SetJobState("guest", JobState.RUNNING, "woken")
    ]


def test_the_time_in_host_memory_is_none_in_which_a_job_ran():
    pool = parked()
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    pool.step(MemberWoken(201_000, "guest", 0))
    assert pool.scheduler.state.jobs["guest"].ran_ms(211_000) == 110_000


def test_the_owner_waits_until_the_memory_has_left_the_card():
    pool = Pool()
    pool.submit(0, "guest")
    pool.submit(100_000, "owner", "owner")
    assert told(pool.step(Tick(101_000))) == []
    assert pool.reason("guest").message == "Its device memory is being moved to host memory."
    assert told(pool.step(MemberParked(105_000, "guest", 0))) == [("Start", "owner")]


def test_the_cause_says_for_whom_and_what_both_ways_would_cost():
    pool = Pool()
    pool.submit(0, "guest")
    (park,) = [each for each in pool.submit(100_000, "owner", "owner") if isinstance(each, Park)]
    assert park.cause == (
        "reclaimed for job owner of queue owner; to host memory and back costs it 30.0 s, a restart 190.0 s"
    )


def test_best_effort_work_on_lent_compute_is_parked_for_who_needs_its_memory_and_comes_back_to_idle_compute():
    pool = Pool()
    pool.submit(0, "service", "owner", milli=600, gib=20)
    pool.submit(1, "borrower", milli=500, gib=70, tenant_class=TenantClass.BEST_EFFORT)
    assert told(pool.step(UsageMeasured(10, 1000, (("service", 0, "c0", 100),)))) == [("Start", "borrower")]
    assert told(pool.submit(60_000, "next", "owner", milli=400, gib=60)) == [("Park", "borrower")]
    assert told(pool.step(MemberParked(70_000, "borrower", 0))) == [("Start", "next")]
    idle = UsageMeasured(90_000, 1000, (("service", 0, "c0", 100), ("next", 0, "c0", 100)))
    pool.submit(71_000, "newer", milli=500, gib=15, tenant_class=TenantClass.BEST_EFFORT)
    assert told(pool.step(idle)) == [], "it would take what the older one waits for"
    assert pool.reason("borrower").numbers["missing_memory_bytes"] == 50 * GIB
    pool.step(UsageMeasured(99_000, 1000, (("service", 0, "c0", 990), ("next", 0, "c0", 0))))
    assert told(pool.step(MemberFinished(100_000, "next", 0, 0))) == []
    assert "idle enough" in pool.reason("borrower").message
    assert told(pool.step(UsageMeasured(101_000, 1000, (("service", 0, "c0", 100),)))) == [("Wake", "borrower")]


def test_a_job_is_stopped_as_ever_where_it_cannot_be_parked():
    for how, more in (
        ({"settings": SchedulerSettings()}, {}), ({"can_park": False}, {}), ({"ram_gib": 39}, {}),
        ({}, {"parkable": False}), ({}, {"time_limit_ms": 10**7}),
    ):  # fmt: skip
        pool = Pool(**how)
        pool.submit(0, "guest", **more)
        assert told(pool.submit(100_000, "owner", "owner")) == [("Evict", "guest")], (how, more)


def test_a_job_that_keeps_its_work_is_stopped_if_a_restart_takes_less_than_to_move_its_memory():
    pool = Pool(SchedulerSettings(park="if_cheaper", move_cost_ms=1_000, grace_ms=2_000))
    pool.submit(0, "guest", checkpointable=True)
    assert told(pool.submit(100_000, "owner", "owner")) == [("Evict", "guest")]


def test_work_since_the_last_checkpoint_counts():
    pool = Pool(SchedulerSettings(park="if_cheaper", move_cost_ms=1_000, grace_ms=2_000, checkpoint_every_ms=60_000))
    pool.submit(0, "guest", checkpointable=True)
    assert told(pool.submit(100_000, "owner", "owner")) == [("Park", "guest")], "40 s since the last of them"


def test_parks_that_take_long_are_learned():
    pool = parked()
    for at_ms in (1_000_000, 2_000_000, 3_000_000):
        pool.step(MemberFinished(at_ms, f"owner{at_ms - 1_000_000}" if at_ms > 1_000_000 else "owner", 0, 0))
        pool.step(MemberWoken(at_ms + 400_000, "guest", 0))
        commands = pool.submit(at_ms + 500_000, f"owner{at_ms}", "owner")
        if at_ms < 3_000_000:
            assert told(commands) == [("Park", "guest")]
            pool.step(MemberParked(at_ms + 900_000, "guest", 0))
    assert told(commands) == [("Evict", "guest")], "it has run 400 s, but was twice 800 s on its way"


def test_a_job_that_refuses_to_leave_is_stopped_for_the_owner_and_not_asked_again():
    pool = Pool()
    pool.submit(0, "guest")
    pool.submit(100_000, "owner", "owner")
    commands = pool.step(MemberParked(101_000, "guest", 0, "the driver says no"))
    assert told(commands) == [("Evict", "guest")]
    assert "could not be parked: the driver says no" in commands[0].cause
    assert told(pool.step(MemberFinished(102_000, "guest", 0, 143))) == [("Start", "owner")]
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    assert told(pool.submit(300_000, "owner2", "owner")) == [("Evict", "guest")]


def test_a_wake_that_is_refused_is_tried_again_and_says_so():
    pool = parked()
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    assert told(pool.step(MemberWoken(201_000, "guest", 0, "out of memory"))) == []
    assert pool.state("guest") is JobState.PARKED
    assert "its wake was refused (out of memory), and is tried again in 5.0 s" in pool.reason("guest").message
    assert told(pool.submit(202_000, "newer", gib=90)) == [], "its place is kept meanwhile"
    assert told(pool.step(Tick(205_999))) == []
    assert told(pool.step(Tick(206_000))) == [("Wake", "guest")]
    assert pool.step(MemberWoken(207_000, "guest", 0))[-1] == SetJobState("guest", JobState.RUNNING, "woken")


def test_a_job_that_cannot_be_woken_however_often_that_is_tried_starts_again():
    pool, at_ms = parked(), 200_000
    commands = pool.step(MemberFinished(at_ms, "owner", 0, 0))
    for n_refused in range(7):
        assert told(commands) == [("Wake", "guest")], n_refused
        commands = pool.step(MemberWoken(at_ms, "guest", 0, "it is gone"))
        at_ms += 5_000 << n_refused
        commands = commands or pool.step(Tick(at_ms))
    assert told(commands) == [("Evict", "guest")]
    assert "could not be woken, tried 7 times: it is gone" in commands[0].cause
    assert told(pool.step(MemberFinished(at_ms, "guest", 0, 143))) == [("Start", "guest")]


def parked_by_its_user(**how):
    """The guest's user parked it, and another has its card."""
    pool = Pool(**how)
    pool.submit(0, "guest")
    pool.submit(1_000, "next")
    assert told(pool.step(ParkAsked(100_000, "guest", parked=True))) == [("Park", "guest")]
    assert told(pool.step(MemberParked(101_000, "guest", 0))) == [("Start", "next")]
    return pool


def test_a_job_that_its_user_parked_leaves_its_place_to_others_until_it_is_asked_for():
    pool = parked_by_its_user(settings=SchedulerSettings())
    assert "as its user asked" in pool.reason("guest").message
    pool.step(MemberFinished(200_000, "next", 0, 0))
    assert told(pool.step(Tick(10**9))) == [], "nobody asked for it"
    assert told(pool.submit(10**9, "newer")) == [("Start", "newer")], "and nothing is kept for it"
    pool.step(MemberFinished(10**9, "newer", 0, 0))
    assert told(pool.step(ParkAsked(10**9, "guest", parked=False))) == [("Wake", "guest")]
    assert pool.step(MemberWoken(10**9, "guest", 0)) == [SetJobState("guest", JobState.RUNNING, "woken")]


def test_a_wake_that_finds_no_room_waits_with_a_true_reason_and_comes_when_there_is_room():
    pool = parked_by_its_user()
    assert told(pool.step(ParkAsked(110_000, "guest", parked=False))) == []
    reason = pool.reason("guest")
    assert reason.code is Reason.PARKED
    assert reason.message == (
        "It is in host memory and comes back to the card that it left: card 0 lacks 100 % for it."
    )
    assert told(pool.step(MemberFinished(120_000, "next", 0, 0))) == [("Wake", "guest")]


def test_a_wake_that_waits_can_be_taken_back_or_given_up():
    pool = parked_by_its_user()
    pool.step(ParkAsked(110_000, "guest", parked=False))
    assert told(pool.step(ParkAsked(111_000, "guest", parked=True))) == []
    assert told(pool.step(MemberFinished(120_000, "next", 0, 0))) == [], "it was parked again before there was room"
    assert told(pool.step(JobCancelled(121_000, "guest"))) == [("Evict", "guest")]
    pool.step(MemberFinished(122_000, "guest", 0, 143))
    assert "guest" not in pool.scheduler.state.jobs
    assert pool.scheduler.state.parked == {}


def test_what_its_user_parks_stays_where_it_is_if_it_cannot_be_moved():
    pool = Pool()
    pool.submit(0, "guest")
    pool.step(ParkAsked(1_000, "guest", parked=True))
    commands = pool.step(MemberParked(2_000, "guest", 0, "the host is full"))
    assert commands == [SetJobState("guest", JobState.RUNNING, "it could not be parked: the host is full")]
    assert not pool.scheduler.state.stopping
    assert told(pool.step(ParkAsked(3_000, "guest", parked=True))) == [("Park", "guest")], "its user may try again"


def test_of_a_gang_that_cannot_leave_as_a_whole_those_that_left_come_back():
    pool = Pool(n_cards=2)
    pool.submit(0, "guest", n_members=2, min_member=2)
    assert len(told(pool.step(ParkAsked(1_000, "guest", parked=True)))) == 2
    assert told(pool.step(MemberParked(2_000, "guest", 0))) == []
    assert told(pool.step(MemberParked(2_000, "guest", 1, "the host is full"))) == [("Wake", "guest")]
    pool.step(MemberWoken(3_000, "guest", 0))
    assert pool.state("guest") is JobState.RUNNING


def test_host_memory_is_looked_at_before_its_user_parks_a_job():
    for how, why in (
        (
            {"ram_gib": 39},
            "needs 40 GiB of host memory for what it holds of cards, and node n has 39 GiB free for it",
        ),
        ({"can_park": False}, "is on card 0, which cannot park programs"),
    ):
        pool = Pool(**how)
        pool.submit(0, "guest")
        assert pool.scheduler.why_not_park("guest") == why
        assert pool.step(ParkAsked(1_000, "guest", parked=True)) == []
        assert pool.state("guest") is JobState.RUNNING


def test_a_job_of_which_its_user_says_that_others_may_not_park_it_can_be_parked_by_him():
    pool = Pool(SchedulerSettings())
    pool.submit(0, "guest", parkable=False, time_limit_ms=10**7)
    assert told(pool.step(ParkAsked(1_000, "guest", parked=True))) == [("Park", "guest")]


def test_a_park_that_was_asked_for_just_before_a_restart_is_done_after_it():
    before = Pool()
    before.submit(0, "guest")
    after = Pool()
    after.scheduler = Scheduler(PARKS, check=True)
    after.step(QueuePut(300_000, Queue("guest")))
    record = before.scheduler.state.jobs["guest"]
    after.step(GrantsFound(300_000, record.job, record.members[0].grants))
    assert after.scheduler.why_not_park("guest") == "is on a node that has not come back yet"
    assert after.step(ParkAsked(300_000, "guest", parked=True)) == []
    assert told(after.step(NodePut(300_000, after.node))) == [("Park", "guest")]
    after.step(MemberParked(301_000, "guest", 0))
    assert "as its user asked" in after.reason("guest").message


def test_what_was_parked_for_others_stays_away_if_its_user_parks_it_too():
    pool = parked()
    pool.step(ParkAsked(110_000, "guest", parked=True))
    assert told(pool.step(MemberFinished(200_000, "owner", 0, 0))) == []
    assert told(pool.step(ParkAsked(201_000, "guest", parked=False))) == [("Wake", "guest")]


def test_it_stays_its_least_time_and_twice_that_if_it_was_back_for_a_moment_only():
    pool = parked()
    assert told(pool.step(MemberFinished(102_000, "owner", 0, 0))) == []
    assert told(pool.step(Tick(110_999))) == []
    assert "stays there for 0.0 s more" in pool.reason("guest").message
    assert told(pool.step(Tick(111_000))) == [("Wake", "guest")]
    pool.step(MemberWoken(112_000, "guest", 0))
    assert told(pool.submit(113_000, "owner2", "owner")) == [("Park", "guest")], "guarantees first, at once"
    pool.step(MemberParked(114_000, "guest", 0))
    pool.step(MemberFinished(115_000, "owner2", 0, 0))
    assert told(pool.step(Tick(133_999))) == []
    assert told(pool.step(Tick(134_000))) == [("Wake", "guest")]


def test_it_comes_back_before_newer_work_of_its_queue_and_after_what_is_owed_more():
    pool = parked()
    pool.submit(120_000, "newer", gib=10)
    pool.submit(121_000, "owner2", "owner", gib=10)
    assert told(pool.step(MemberFinished(200_000, "owner", 0, 0))) == [("Start", "owner2")]
    assert told(pool.step(MemberFinished(300_000, "owner2", 0, 0))) == [("Wake", "guest")]
    assert pool.state("newer") is JobState.QUEUED


def test_newer_work_takes_of_its_card_only_what_it_does_not_need_or_not_for_long():
    pool = parked()
    pool.step(MemberFinished(102_000, "owner", 0, 0))
    assert told(pool.submit(103_000, "long", gib=10)) == [], "the card is free, but the parked job's in 8 s"
    assert pool.reason("long").code is Reason.RESERVED
    assert "kept for job guest" in pool.reason("long").message
    assert told(pool.submit(104_000, "short", gib=11, time_limit_ms=5_000)) == [("Start", "short")]
    assert told(pool.step(MemberFinished(109_000, "short", 0, 0))) == [], "it has not been away for long enough"
    assert told(pool.step(Tick(111_000))) == [("Wake", "guest")]


def test_its_reason_is_true_given_what_it_names_it_comes_back():
    pool = parked()
    reason = pool.reason("guest")
    assert reason.code is Reason.PARKED
    assert (reason.numbers["missing_milli"], reason.numbers["missing_memory_bytes"]) == (1000, 0)
    assert reason.message == (
        "It is in host memory and comes back to the card that it left: card 0 lacks 100 % for it."
    )
    pool.step(DeviceChanged(120_000, "c0", cordoned=True))
    pool.step(MemberFinished(130_000, "owner", 0, 0))
    assert "card 0 is closed to new work" in pool.reason("guest").message
    assert told(pool.step(DeviceChanged(140_000, "c0"))) == [("Wake", "guest")]


def test_a_limit_of_its_queue_keeps_it_in_host_memory_and_is_named():
    pool = parked()
    pool.step(QueuePut(120_000, Queue("guest", limit_milli=500)))
    assert told(pool.step(MemberFinished(130_000, "owner", 0, 0))) == []
    assert pool.reason("guest").code is Reason.QUEUE_LIMIT
    assert told(pool.step(QueuePut(140_000, Queue("guest", limit_milli=1000)))) == [("Wake", "guest")]


def test_its_queue_holds_no_compute_while_it_is_away_and_asks_for_it():
    pool = parked()
    queues, waiting = pool.scheduler.state.queues, pool.scheduler.state.waiting_milli
    assert (queues["guest"].used_milli, waiting["guest", ""]) == (0, 1000)
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    assert (queues["guest"].used_milli, waiting["guest", ""]) == (1000, 0)


def test_members_of_a_gang_are_parked_and_woken_together():
    pool = Pool(n_cards=2)
    pool.submit(0, "gang", n_members=2, min_member=2)
    assert told(pool.submit(100_000, "owner", "owner")) == [("Park", "gang"), ("Park", "gang")]
    assert told(pool.step(MemberParked(101_000, "gang", 1))) == [("Start", "owner")]
    assert told(pool.step(MemberParked(102_000, "gang", 0))) == []
    assert told(pool.step(Tick(150_000))) == [], "one card is not enough for it"
    assert told(pool.step(MemberFinished(200_000, "owner", 0, 0))) == [("Wake", "gang"), ("Wake", "gang")]
    pool.step(MemberWoken(201_000, "gang", 0))
    assert pool.state("gang") is JobState.PARKED
    pool.step(MemberWoken(202_000, "gang", 1))
    assert pool.state("gang") is JobState.RUNNING


def test_host_memory_is_booked_for_all_that_it_may_hold_and_is_free_again_afterwards():
    pool = Pool(ram_gib=100)
    free_bytes = pool.scheduler.state.books.ram_bytes
    pool.submit(0, "guest")
    pool.submit(100_000, "owner", "owner", ram_bytes=10 * GIB)
    assert free_bytes[0] == 50 * GIB, "before it moves, and 10 GiB are kept for the claimant"
    pool.step(MemberParked(101_000, "guest", 0))
    assert free_bytes[0] == 50 * GIB
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    assert free_bytes[0] == 60 * GIB, "until it is back"
    pool.step(MemberWoken(201_000, "guest", 0))
    assert free_bytes[0] == 100 * GIB


def test_a_claimant_that_needs_the_host_memory_itself_has_the_job_stopped():
    pool = Pool(ram_gib=100)
    pool.submit(0, "guest")
    assert told(pool.submit(100_000, "owner", "owner", ram_bytes=70 * GIB)) == [("Evict", "guest")]


def test_a_parked_job_can_be_given_up():
    pool = parked()
    assert told(pool.step(JobCancelled(120_000, "guest"))) == [("Evict", "guest")]
    pool.step(MemberFinished(121_000, "guest", 0, 143))
    assert "guest" not in pool.scheduler.state.jobs
    assert pool.scheduler.state.parked == {}
    assert pool.scheduler.state.waiting_milli["guest", ""] == 0


def test_a_pool_that_is_started_again_knows_who_is_parked():
    before = parked()
    after = Pool()
    after.scheduler = Scheduler(PARKS, check=True)
    for queue in (Queue("owner", quota_milli=1000), Queue("guest")):
        after.step(QueuePut(300_000, queue))
    for name in ("guest", "owner"):
        record = before.scheduler.state.jobs[name]
        grants = next(
            each.grants for _, commands in before.log for each in commands
            if isinstance(each, Start) and each.job_id == name
        )  # fmt: skip
        away = tuple((n, member.residence) for n, member in enumerate(record.members) if name == "guest")
        after.step(GrantsFound(300_000, record.job, grants, away=away))
    after.step(NodePut(300_000, after.node))
    assert after.state("guest") is JobState.PARKED
    assert after.reason("guest").numbers["missing_milli"] == 1000
    assert told(after.step(MemberFinished(400_000, "owner", 0, 0))) == [("Wake", "guest")]


def test_what_arrived_before_its_node_was_back_is_known_when_that_is():
    for kind, residence, refused, state in (
        (MemberParked, "leaving", "", JobState.PARKED), (MemberParked, "leaving", "no room", JobState.RUNNING),
        (MemberWoken, "returning", "", JobState.RUNNING), (MemberWoken, "returning", "no room", JobState.PARKED),
    ):  # fmt: skip
        before, after = Pool(), Pool()
        before.submit(0, "guest")
        record = before.scheduler.state.jobs["guest"]
        after.scheduler = Scheduler(PARKS, check=True)
        after.step(QueuePut(300_000, Queue("guest")))
        away = ((0, Residence(residence)),)
        after.step(
            GrantsFound(300_000, record.job, record.members[0].grants, away=away, kept_away=kind is MemberParked)
        )
        after.step(kind(300_100, "guest", 0, refused))
        after.step(NodePut(300_200, after.node))
        assert after.state("guest") is state, (kind, refused)
        if state is JobState.PARKED and kind is MemberParked:
            assert "as its user asked" in after.reason("guest").message


def test_a_wake_that_waited_is_tried_at_once_after_a_restart_and_who_was_parked_for_others_stays_its_time():
    for since, wakes in ((-1, True), (295_000, False), (290_000, True)):
        before, after = Pool(), Pool()
        before.submit(0, "guest")
        record = before.scheduler.state.jobs["guest"]
        after.scheduler = Scheduler(PARKS, check=True)
        after.step(QueuePut(300_000, Queue("guest")))
        found = GrantsFound(
            300_000, record.job, record.members[0].grants, away=((0, Residence.IN_HOST),), away_at_ms=since
        )
        after.step(found)
        assert told(after.step(NodePut(300_000, after.node))) == ([("Wake", "guest")] if wakes else [])
        assert wakes or told(after.step(Tick(305_000))) == [("Wake", "guest")]


def test_where_it_could_not_be_woken_on_another_card_it_waits_for_its_own_also_after_a_restart():
    pool, away, stays = left_c0(moves=True)
    left = pool.scheduler.state.jobs[away].members[0].grants
    (wake,) = [each for each in pool.step(MemberFinished(200_000, stays, 0, 0)) if isinstance(each, Wake)]
    record, owner = (pool.scheduler.state.jobs[name] for name in (away, "owner"))
    again = Pool(n_cards=2, moves=True)
    again.scheduler = Scheduler(PARKS, check=True)
    for queue in (Queue("owner", quota_milli=2000), Queue("guest")):
        again.step(QueuePut(200_500, queue))
    again.step(GrantsFound(200_500, record.job, wake.grants, away=((0, Residence.RETURNING),), left=left))
    again.step(GrantsFound(200_500, owner.job, owner.members[0].grants))
    again.step(NodePut(200_500, again.node))
    for one in (pool, again):
        assert told(one.step(MemberWoken(201_000, away, 0, "not by this driver."))) == []
        assert "on another it could not be woken (not by this driver)" in one.reason(away).message
        assert one.scheduler.state.jobs[away].members[0].grants == left
        assert int(one.scheduler.state.books.granted_milli.sum()) == 1000, "the owner's alone"
        (wake,) = [each for each in one.step(MemberFinished(300_000, "owner", 0, 0)) if isinstance(each, Wake)]
        assert (wake.job_id, wake.grants) == (away, ())


def test_host_memory_is_booked_for_what_it_holds_and_a_margin_and_never_for_more_than_its_cap():
    for held_gib, booked_gib in ((4, 4.5), (16, 18), (39, 40), (60, 40)):
        pool = Pool(ram_gib=41)
        pool.submit(0, "guest")
        pool.step(MemoryMeasured(50_000, (("guest", 0, held_gib * GIB), ("nobody", 0, 1), ("guest", 9, 1))))
        (park,) = [each for each in pool.submit(100_000, "owner", "owner") if isinstance(each, Park)]
        assert park.host_bytes == booked_gib * GIB
        for event in (MemberParked(101_000, "guest", 0), MemberFinished(200_000, "owner", 0, 0)):
            assert pool.scheduler.state.books.ram_bytes[0] == (41 - booked_gib) * GIB
            pool.step(event)
        pool.step(MemberWoken(201_000, "guest", 0))
        assert pool.scheduler.state.books.ram_bytes[0] == 41 * GIB


def test_a_job_with_a_large_cap_is_parked_where_its_memory_fits():
    pool = Pool(ram_gib=39)
    pool.submit(0, "guest")
    assert "needs 40 GiB" in pool.scheduler.why_not_park("guest")
    pool.step(MemoryMeasured(50_000, (("guest", 0, 30 * GIB),)))
    assert pool.scheduler.why_not_park("guest") == ""
    assert told(pool.submit(100_000, "owner", "owner")) == [("Park", "guest")]


def test_a_job_is_parked_with_its_members_that_hold_no_card():
    pool = Pool(n_cards=2)
    roles = (
        Role("server", SliceRequest(0, 0, 0), n_members=1, cpu_milli=1000, ram_bytes=GIB),
        Role("worker", SliceRequest(1000, 1000, 40 * GIB), n_members=2, min_member=2, cpu_milli=1000),
    )
    pool.submit(0, "guest", n_members=3, min_member=3, roles=roles, cpu_milli=1000)
    assert pool.state("guest") is JobState.RUNNING
    assert pool.scheduler.why_not_park("guest") == ""
    commands = pool.step(ParkAsked(100_000, "guest", parked=True))
    assert [each.host_bytes for each in commands if isinstance(each, Park)] == [0, 40 * GIB, 40 * GIB]
    for member in range(3):
        pool.step(MemberParked(101_000, "guest", member))
    assert "as its user asked" in pool.reason("guest").message
    assert told(pool.step(ParkAsked(200_000, "guest", parked=False))) == [("Wake", "guest")] * 3
    for member in range(3):
        pool.step(MemberWoken(201_000, "guest", member))
    assert pool.state("guest") is JobState.RUNNING


def test_the_same_events_give_the_same_parks_and_wakes():
    pool = parked()
    pool.step(MemberFinished(200_000, "owner", 0, 0))
    again = Scheduler(PARKS)
    assert [repr(again.step(replace(event))) for event, _ in pool.log] == [repr(commands) for _, commands in pool.log]


def left_c0(**how):
    """Guests on two cards; the owner has the one of the first of them, who is in host memory."""
    pool = Pool(n_cards=2, **how)
    pool.submit(0, "guest")
    pool.submit(10_000, "other")
    home = pool.scheduler.state.jobs["guest"].members[0].grants[0].device
    pool.submit(20_000, "owner", "owner", parkable=False)
    (parked_one,) = pool.scheduler.state.stopping
    assert parked_one[0] in {"guest", "other"}
    pool.step(MemberParked(21_000, *parked_one))
    assert home
    return pool, parked_one[0], ({"guest", "other"} - {parked_one[0]}).pop()


def test_where_drivers_can_do_that_a_parked_job_comes_back_to_another_card():
    pool, away, stays = left_c0(moves=True)
    assert "no others of its model on the node have room" in pool.reason(away).message
    left, free = (pool.scheduler.state.jobs[name].members[0].grants[0].device for name in (away, stays))
    (wake,) = [each for each in pool.step(MemberFinished(200_000, stays, 0, 0)) if isinstance(each, Wake)]
    assert [grant.device for grant in wake.grants] == [free] != [left]
    assert "another card of its model has room for it" in wake.cause
    pool.step(MemberWoken(201_000, away, 0))
    assert pool.state(away) is JobState.RUNNING
    assert pool.scheduler.state.jobs[away].members[0].grants == wake.grants
    assert told(pool.step(MemberFinished(300_000, away, 0, 0))) == []
    assert int(pool.scheduler.state.books.granted_milli.sum()) == 1000, "the owner's"


def test_else_and_on_a_card_of_another_model_it_waits_for_its_own():
    for how in ({}, {"moves": True, "models": ("H200", "L40S")}):
        pool, away, stays = left_c0(**how)
        assert told(pool.step(MemberFinished(200_000, stays, 0, 0)), Wake) == []
        (wake,) = [each for each in pool.step(MemberFinished(300_000, "owner", 0, 0)) if isinstance(each, Wake)]
        assert (wake.job_id, wake.grants) == (away, ())
