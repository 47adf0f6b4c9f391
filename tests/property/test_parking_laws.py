"""Whoever is parked is somewhere, says why, and comes back to its place; no card and no host is promised twice."""

from collections import Counter
from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import Phase, event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flexai.model import Device, DeviceHealth, Job, JobState, Node, Queue, Residence, SliceRequest, TenantClass
from flexai.scheduling import Scheduler, SchedulerSettings, booking
from flexai.scheduling.commands import Evict, Park, Resize, Start, Wake
from flexai.scheduling.events import (
    DeviceChanged,
    ForeignUsage,
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
LEAST_MS = 5_000
CARDS = tuple(Device(f"c{n}", "H200", "simulated", n, 100 * GIB, can_park=n < 2) for n in range(3))
NODE = Node("n", CARDS, 16_000, 150 * GIB)
MOVING = tuple(replace(card, can_move_when_parked=card.can_park) for card in CARDS)
SETTINGS = SchedulerSettings(grace_ms=10, reclaim="fair_share", park="if_cheaper", park_least_ms=LEAST_MS)
QUEUES = (Queue("owner", quota_milli=2000), Queue("guest"))


class Parking(RuleBasedStateMachine):
    """Two queues on one node of three cards, of which two can be parked from; every place is booked a second time."""

    moves = False

    def __init__(self):
        super().__init__()
        self.now, self.seq = 0, 0
        self.jobs, self.held, self.evicting, self.away, self.left_at = {}, {}, set(), {}, {}
        self.kept, self.by_user, self.left, self.host, self.measured_bytes = set(), set(), {}, {}, {}
        self.scheduler = self.new_scheduler()

    def new_scheduler(self):
        scheduler = Scheduler(SETTINGS, check=True)
        for queue in QUEUES:
            scheduler.step(QueuePut(self.now, queue))
        return scheduler

    @initialize()
    def begin(self):
        self.step(NodePut(0, replace(NODE, devices=MOVING) if self.moves else NODE))
        for _ in range(3):
            self.add("guest", SliceRequest(1000, 1000, 40 * GIB))
        self.add("owner", SliceRequest(1000, 1000, 40 * GIB))

    def step(self, what):
        self.now += 100
        for command in self.scheduler.step(replace(what, at_ms=self.now)):
            key = (getattr(command, "job_id", ""), getattr(command, "member", None))
            match command:
                case Start():
                    assert key not in self.held
                    self.held[key] = command.grants
                    self.measured_bytes.pop(key, None)
                    self.step(MemberStarted(0, *key))
                case Resize():
                    self.held[key] = command.grants
                case Evict():
                    self.evicting.add(key)
                case Park():
                    assert key in self.held
                    assert key not in self.away
                    assert self.jobs[key[0]].parkable or key[0] in self.kept
                    assert all(grant.device != "c2" for grant in self.held[key]), "this card cannot do that"
                    self.away[key] = Residence.LEAVING
                    self.host[key] = command.host_bytes
                    cap_bytes = sum(grant.memory_bytes for grant in self.held[key])
                    assert min(cap_bytes, self.measured_bytes.get(key, cap_bytes)) <= command.host_bytes <= cap_bytes
                    (self.by_user.add if command.cause == "its user asked" else self.by_user.discard)(key[0])
                    event("parked")
                case Wake():
                    assert self.away[key] is Residence.IN_HOST
                    assert key[0] not in self.kept, "its user has not asked for it back"
                    assert self.now - self.left_at[key] >= LEAST_MS, "woken before its time"
                    self.away[key] = Residence.RETURNING
                    if command.grants:
                        assert self.moves
                        self.left[key], self.held[key] = self.held[key], command.grants
                        event("woken elsewhere")
                    event("woken")

    @rule(
        queue=st.sampled_from(["owner", "guest", "guest"]), milli=st.sampled_from([300, 500, 1000, 1000]),
        gib=st.sampled_from([10, 40, 90]), members=st.sampled_from([1, 1, 2]), priority=st.integers(0, 1),
        borrows=st.booleans(), kind=st.sampled_from([{}, {}, {}, {"parkable": False}, {"time_limit_ms": 10**6}]),
    )  # fmt: skip
    def submit(self, queue, milli, gib, members, priority, borrows, kind):
        tenant_class = TenantClass.BEST_EFFORT if borrows else TenantClass.GUARANTEED
        self.add(queue, SliceRequest(milli, 1000, gib * GIB, tenant_class), members, priority=priority, **kind)

    def add(self, queue, request, members=1, **kind):
        self.seq += 1
        name = f"j{self.seq}"
        self.jobs[name] = job = Job(
            name, "ann", queue, request, members, members, submitted_at_ms=self.now, seq=self.seq, **kind
        )
        self.step(JobSubmitted(0, job))

    @rule(pick=st.integers(0, 99), code=st.sampled_from([0, 0, 1]))
    def finish(self, pick, code):
        if self.held:
            key = sorted(self.held)[pick % len(self.held)]
            code = 143 if key in self.evicting else code
            self.forget(key)
            self.step(MemberFinished(0, *key, code))

    @rule(queue=st.sampled_from(["owner", "guest"]))
    def all_of_a_queue_that_run_end_and_what_left_may_come_back(self, queue):
        for key in sorted(self.held):
            if self.jobs[key[0]].queue == queue and key not in self.away and key in self.held:
                code = 143 if key in self.evicting else 0
                self.forget(key)
                self.step(MemberFinished(0, *key, code))
        self.what_moves_arrives("")
        self.now += LEAST_MS << 6
        self.step(Tick(0))

    @rule()
    def what_is_evicted_ends(self):
        for key in sorted(self.evicting):
            self.forget(key)
            self.step(MemberFinished(0, *key, 143))

    def forget(self, key):
        del self.held[key]
        self.away.pop(key, None)
        self.left.pop(key, None)
        self.evicting.discard(key)
        if not any(other[0] == key[0] for other in self.away):
            self.kept.discard(key[0])

    @rule(refused=st.sampled_from(["", "", "", "the host is full"]))
    def what_moves_arrives(self, refused):
        for key, where in sorted(self.away.items()):
            if where is Residence.LEAVING:
                if refused:
                    del self.away[key]
                    self.kept.discard(key[0])
                else:
                    since = -LEAST_MS if key[0] in self.by_user else self.now + 100
                    self.away[key], self.left_at[key] = Residence.IN_HOST, since
                self.step(MemberParked(0, *key, refused))
            elif where is Residence.RETURNING:
                left = self.left.pop(key, None)
                if refused:
                    self.away[key] = Residence.IN_HOST
                    if left is not None:
                        self.held[key] = left
                        event("not woken elsewhere")
                else:
                    del self.away[key]
                self.step(MemberWoken(0, *key, refused))

    @rule(
        pick=st.integers(0, 99), kind=st.sampled_from([MemberParked, MemberWoken]), refused=st.sampled_from(["", "x"])
    )
    def something_moves_that_was_not_told(self, pick, kind, refused):
        key = (f"j{pick % (self.seq + 2)}", pick % 3 - 1)
        told = {MemberParked: Residence.LEAVING, MemberWoken: Residence.RETURNING}[kind]
        if self.away.get(key) is not told:
            self.step(kind(0, *key, refused))

    @rule(pick=st.integers(0, 99), parked=st.booleans())
    def its_user_parks_or_wakes_one(self, pick, parked):
        name = f"j{pick % (self.seq + 2)}"
        before = {key for key in self.away if key[0] == name}
        can = name in self.scheduler.state.jobs and not self.scheduler.why_not_park(name)
        if can or not parked:
            (self.kept.add if parked else self.kept.discard)(name)
        self.step(ParkAsked(0, name, parked))
        assert not parked or can == any(key[0] == name for key in self.away) or before
        event(f"its user {'parks' if parked and can else 'may not park' if parked else 'wakes'} one")

    @rule(pick=st.integers(0, 99))
    def cancel(self, pick):
        if self.seq:
            self.step(JobCancelled(0, f"j{pick % self.seq + 1}"))

    @rule(card=st.sampled_from(CARDS), cordoned=st.booleans(), drain=st.booleans())
    def device(self, card, cordoned, drain):
        self.step(DeviceChanged(0, card.uuid, DeviceHealth.HEALTHY, cordoned, drain and cordoned))

    @rule(card=st.sampled_from(CARDS), gib=st.sampled_from([0, 0, 50]))
    def foreign(self, card, gib):
        self.step(ForeignUsage(0, card.uuid, gib * GIB))

    @rule(used=st.sampled_from([0, 50]))
    def measured(self, used):
        on = [(*key, grant.device, used) for key, grants in self.held.items() for grant in grants]
        self.step(UsageMeasured(0, 1000, tuple(on)))

    @rule(pick=st.integers(0, 99), gib=st.sampled_from([0, 5, 35, 200]))
    def memory_is_measured(self, pick, gib):
        running = sorted(key for key in self.held if key not in self.away)
        if running:
            key = running[pick % len(running)]
            self.measured_bytes[key] = gib * GIB
            self.step(MemoryMeasured(0, ((*key, gib * GIB),)))

    @rule(later_ms=st.sampled_from([1_000, 5_000, 60_000]))
    def time_passes(self, later_ms):
        self.now += later_ms
        self.step(Tick(0))

    @rule(arrives=st.booleans(), refused=st.sampled_from(["", "", "the host is full"]))
    def the_pool_is_started_again(self, arrives, refused):
        """What a pool tells a new scheduler: what runs and where it is, what waits, and last the node.

        Before that, perhaps, what had happened and was not yet decided on.
        """
        records, self.scheduler = self.scheduler.state.jobs, self.new_scheduler()
        for job_id, record in records.items():
            mine = {key: grants for key, grants in self.held.items() if key[0] == job_id}
            if not mine:
                self.step(JobSubmitted(0, record.job))
                continue
            away = tuple((key[1], where) for key, where in self.away.items() if key[0] == job_id)
            evicted = tuple(key[1] for key in mine if key in self.evicting and record.members[key[1]].requeue)
            waiting = tuple(
                index for index, member in enumerate(record.members) if member.hold is None and record.n_to_start
                and member.state == "waiting"
            )  # fmt: skip
            claimed = tuple((n, record.parked_for) for n, where in away if where == "leaving" and record.parked_for)
            left = sum((self.left.get(key, ()) for key in mine), ())
            for_others = [self.left_at[key] for key in mine if self.away.get(key) is Residence.IN_HOST]
            away_at_ms = -1 if job_id in self.by_user else max(for_others, default=-1)
            found = GrantsFound(
                0, record.job, sum(mine.values(), ()), evicted, waiting, away, (), claimed, job_id in self.kept,
                left, away_at_ms, tuple((key[1], self.host[key]) for key in mine if key in self.away),
            )  # fmt: skip
            self.step(found)
            if record.cancelled:
                self.step(JobCancelled(0, job_id))
        self.measured_bytes.clear()
        if arrives:
            self.what_moves_arrives(refused)
        self.step(NodePut(0, replace(NODE, devices=MOVING) if self.moves else NODE))

    @invariant()
    def no_card_and_no_host_is_promised_twice(self):
        compute, memory, host_bytes = Counter(), Counter(), 0
        for key, grants in self.held.items():
            host_bytes += self.host[key] if key in self.away else 0
            for grant in grants:
                if self.away.get(key) is not Residence.IN_HOST:
                    compute[grant.device] += grant.compute_milli
                    memory[grant.device] += grant.memory_bytes
        assert all(milli <= 1000 for milli in compute.values())
        assert all(n_bytes <= 100 * GIB for n_bytes in memory.values())
        assert host_bytes <= 150 * GIB
        books = booking.unbooked(self.scheduler.state).books  # what is kept for claimants is nobody's yet
        assert int(books.granted_milli.sum()) == sum(compute.values())
        assert int(books.granted_memory.sum()) == sum(memory.values())
        assert int(books.ram_bytes[0]) == 150 * GIB - host_bytes

    @invariant()
    def whoever_is_parked_is_where_the_commands_put_it(self):
        told = {
            (job_id, index): member.residence
            for job_id, record in self.scheduler.state.jobs.items()
            for index, member in enumerate(record.members)
            if member.residence is not Residence.ON_CARD
        }
        assert told == self.away

    @invariant()
    def whoever_is_parked_says_why_and_its_queue_asks_for_its_place(self):
        state = self.scheduler.state
        for job_id, record in state.jobs.items():
            reason = self.scheduler.reason_for(job_id)
            assert (reason is not None) == (record.state in {JobState.QUEUED, JobState.PARKED})
            assert (job_id in state.parked) == (
                record.state is JobState.PARKED
                and job_id not in self.kept
                and all(self.away.get((job_id, n), Residence.IN_HOST) is Residence.IN_HOST for n in range(2))
            )
        waiting = sum(len(line.jobs) * line.key.asked_milli for line in state.lines.values())
        assert sum(state.waiting_milli.get((queue.name, ""), 0) for queue in QUEUES) == waiting + sum(
            state.parked.values()
        )


TestParking = Parking.TestCase
TestParking.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)


class MovingWhenParked(Parking):
    """The same with a driver that can bring back what was parked to the other of these two cards."""

    moves = True


TestMovingWhenParked = MovingWhenParked.TestCase
TestMovingWhenParked.settings = settings(TestParking.settings, max_examples=15)
