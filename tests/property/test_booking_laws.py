"""What others are stopped for is had by the job that they are stopped for, whoever comes meanwhile."""

from random import Random

import hypothesis.strategies as st
from hypothesis import Phase, event, given, settings

from flexai.model import (
    Device,
    DeviceHealth,
    Job,
    MemberState,
    Node,
    Queue,
    Reason,
    Residence,
    SliceRequest,
    TopologyLevel,
)
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Book, Evict, Park, Start, Wake
from flexai.scheduling.events import (
    DeviceChanged,
    GrantsFound,
    JobCancelled,
    JobSubmitted,
    MemberFinished,
    MemberParked,
    MemberStarted,
    MemberWoken,
    NodePut,
    PlaceBooked,
    QueuePut,
    Tick,
)

GIB = 2**30
QUEUES = (Queue("owner", quota_milli=4000), Queue("other", quota_milli=2000), Queue("guest"))


def nodes(*sizes):
    """A rack each."""
    return tuple(
        Node(
            f"n{n}", tuple(Device(f"n{n}/{c}", "H200", "simulated", c, 100 * GIB, can_park=True) for c in range(size)),
            32_000, 400 * GIB, (TopologyLevel("rack", f"r{n}", 1),),
        )
        for n, size in enumerate(sizes)
    )  # fmt: skip


class Pool:
    """Feeds a scheduler, ends what it stops when told to, and notes for whom others are stopped."""

    def __init__(self, park, restarts):
        self.settings = SchedulerSettings(park="if_cheaper" if park else "never", park_least_ms=0)
        self.nodes = nodes(8) if restarts else nodes(4, 4)  # of several nodes one is back before the other
        self.now, self.log = 0, []
        self.jobs, self.held, self.evicting, self.leaving, self.away = {}, {}, {}, {}, set()
        self.claimants, self.begun, self.booked = set(), set(), {}
        self.scheduler = Scheduler(self.settings, check=True)
        for each in (*(QueuePut(0, queue) for queue in QUEUES), *(NodePut(0, node) for node in self.nodes)):
            self.step(each)

    def step(self, what):
        self.log.append(what)
        for command in self.scheduler.step(what):
            key = (getattr(command, "job_id", ""), getattr(command, "member", None))
            match command:
                case Start():
                    assert key not in self.held
                    self.held[key] = command.grants
                    self.begun.add(command.job_id)
                    self.booked.pop(command.job_id, None)
                    self.step(MemberStarted(self.now, *key))
                case Evict():
                    self.evicting[key] = command.claimant
                    self.note(command)
                case Park():
                    self.leaving[key] = command.claimant
                    self.note(command)
                case Book():
                    self.booked.pop(command.job_id, None)
                    self.booked[command.job_id] = command
                case Wake():
                    self.away.discard(key)
                    self.step(MemberWoken(self.now, *key))
        self.check_books()

    def note(self, command):
        if command.claimant and command.claimant not in self.begun:
            self.claimants.add(command.claimant)

    def check_books(self):
        state = self.scheduler.state
        kept = sum(h.compute_milli * len(h.columns) for one in state.booked.values() for h in one.kept)
        assert int(state.books.granted_milli.sum()) == kept + sum(one.held_milli for one in state.jobs.values())
        lacks, leaves = {}, {}
        for booking in state.booked.values():
            for place, (milli, _, _) in booking.lacks.items():
                lacks[place] = lacks.get(place, 0) + milli
        for job_id, index in state.stopping:
            hold = state.jobs[job_id].members[index].hold
            for column in hold.columns:
                leaves[hold.row, column] = leaves.get((hold.row, column), 0) + hold.compute_milli
        for place, milli in lacks.items():
            free = max(0, int(state.books.free_milli[place]))
            assert milli <= leaves.get(place, 0) + free, "a place that was to be vacated is held by somebody else"

    def end(self, key):
        if key in self.leaving:
            del self.leaving[key]
            self.away.add(key)
            self.step(MemberParked(self.now, *key))
        else:
            del self.evicting[key]
            self.held.pop(key)
            self.leaving.pop(key, None)
            self.away.discard(key)
            self.step(MemberFinished(self.now, *key, 143))

    def end_all(self, chance):
        """All that are being stopped are gone, in any order; and those that were stopped when they began."""
        while stopping := sorted({*self.evicting, *self.leaving}):
            self.now += 1
            self.end(chance.choice(stopping))

    def restart(self):
        """As the pool does: what is held, what is being stopped and for whom, what waits, and the nodes last."""
        before, self.scheduler = self.scheduler, Scheduler(self.settings, check=True)
        for queue in QUEUES:
            self.step(QueuePut(self.now, queue))
        held_by = {}
        for (job_id, member), grants in self.held.items():
            held_by.setdefault(job_id, {})[member] = grants
        for job_id, mine in held_by.items():
            members = before.state.jobs[job_id].members
            evicted = tuple(n for n in mine if (job_id, n) in self.evicting)
            waiting = tuple(n for n, m in enumerate(members) if n not in mine and m.state is MemberState.WAITING)
            away = tuple(
                (n, Residence.LEAVING if (job_id, n) in self.leaving else Residence.IN_HOST)
                for n in mine
                if (job_id, n) in self.leaving or (job_id, n) in self.away
            )
            told = {**self.leaving, **self.evicting}
            claimed = tuple((n, told[job_id, n]) for n in mine if told.get((job_id, n)))
            self.step(
                GrantsFound(
                    self.now, self.jobs[job_id], sum(mine.values(), ()), evicted, waiting, away, claimed=claimed
                )
            )
        for job_id, job in self.jobs.items():
            if job_id not in held_by and job_id in before.state.jobs:
                self.step(JobSubmitted(self.now, job))
        for book in self.booked.values():
            if book.job_id not in held_by and (book.grants or book.hosts):
                self.step(PlaceBooked(self.now, book.job_id, book.grants, book.hosts, book.claimed))
        for node in self.nodes:
            self.step(NodePut(self.now, node))


@st.composite
def jobs(draw):
    """Guests fill the cards; then those come that are owed something, and more guests between them."""
    out = []
    for seq in range(draw(st.integers(12, 26))):
        milli = draw(st.sampled_from([250, 500, 1000]))
        request = SliceRequest(
            milli, 1000, 0 if milli == 1000 else 20 * GIB, n_devices=draw(st.sampled_from([1, 1, 2]))
        )
        queue = "guest" if seq < 8 else draw(st.sampled_from(["owner", "owner", "other", "guest"]))
        members = draw(st.sampled_from([1, 1, 2, 3]))
        out.append(
            Job(
                f"j{seq}", "ann", queue, request, members, draw(st.sampled_from([1, members])),
                priority=draw(st.sampled_from([0, 0, 1])), submitted_at_ms=seq * 1000, seq=seq,
                required_level=draw(st.sampled_from(["", "", "rack"])),
            )
        )  # fmt: skip
    return out


@settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(jobs(), st.booleans(), st.booleans(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_whoever_others_were_stopped_for_starts_when_the_last_of_them_is_gone(some, park, restarts, chance, hurry):
    pool = Pool(park, restarts)
    for job in some:
        pool.now = job.submitted_at_ms
        pool.jobs[job.id] = job
        pool.step(JobSubmitted(pool.now, job))
        if restarts and chance.random() < 0.1:
            before = pool.scheduler.state
            pool.restart()
            places = {name: one.place for name, one in pool.scheduler.state.booked.items()}
            assert places == {
                name: one.place for name, one in before.booked.items() if not pool.scheduler.state.jobs[name].is_placed
            }
        for _ in range(hurry):  # some of those that were told to stop are gone, in any order, before the next comes
            if (pool.evicting or pool.leaving) and chance.random() < 0.4:
                pool.end(chance.choice(sorted({*pool.evicting, *pool.leaving})))
    waiting = pool.claimants - pool.begun
    event(f"{min(len(waiting), 3)} claimants at once, restarts: {restarts}, park: {park}")
    pool.end_all(chance)
    assert pool.claimants <= pool.begun, "its victims are gone, and it has not started"
    assert not pool.scheduler.state.booked


@settings(max_examples=15, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(jobs(), st.integers(0, 2**32))
def test_the_log_gives_the_same_bookings_again(some, seed):
    pool, chance = Pool(park=False, restarts=False), Random(seed)
    for job in some:
        pool.now, pool.jobs[job.id] = job.submitted_at_ms, job
        pool.step(JobSubmitted(pool.now, job))
        if pool.evicting and chance.random() < 0.3:
            pool.end(chance.choice(sorted(pool.evicting)))
    pool.step(Tick(pool.now + 1))
    again = Scheduler(pool.settings)
    for each in pool.log:
        again.step(each)
    assert again.state.booked == pool.scheduler.state.booked
    assert again.state.claims == pool.scheduler.state.claims


def filled(*jobs):
    """A pool of eight cards, and jobs of four whole cards each: name, queue, priority."""
    pool = Pool(park=False, restarts=False)
    for seq, (name, queue, priority) in enumerate(jobs):
        request = SliceRequest(1000, 1000, 0, n_devices=4)
        pool.jobs[name] = job = Job(name, "ann", queue, request, priority=priority, submitted_at_ms=seq, seq=seq)
        pool.step(JobSubmitted(seq, job))
    return pool


def test_a_claimant_that_is_given_up_leaves_its_place_to_others():
    pool = filled(("a", "guest", 0), ("b", "guest", 0), ("mine", "owner", 0), ("next", "guest", 0))
    assert list(pool.scheduler.state.booked) == ["mine"]
    pool.step(JobCancelled(10, "mine"))
    assert not pool.scheduler.state.booked
    (victim,) = pool.evicting
    pool.end(victim)
    assert "next" in pool.begun or victim[0] in pool.begun


def test_jobs_that_are_alike_claim_each_for_itself_and_the_first_to_be_served_is_the_first_that_came():
    pool = filled(("a", "guest", 0), ("b", "guest", 0), ("first", "guest", 1), ("second", "guest", 1))
    assert set(pool.evicting.values()) == {"first", "second"}, "the second does not wait for the first to start"
    for_second = next(key for key, claimant in pool.evicting.items() if claimant == "second")
    pool.end(for_second)
    assert "first" in pool.begun
    assert "second" not in pool.begun
    pool.end(next(iter(pool.evicting)))
    assert "second" in pool.begun


def test_who_is_owed_takes_what_is_being_stopped_anyway_before_anybody_else_is_stopped():
    pool = filled(("a", "guest", 0), ("b", "guest", 0))
    for seq in range(10, 14):  # each needs one card; whoever goes leaves four
        pool.jobs[f"j{seq}"] = job = Job(
            f"j{seq}", "ann", "owner", SliceRequest(1000, 1000, 0), submitted_at_ms=seq, seq=seq
        )
        pool.step(JobSubmitted(seq, job))
    assert len(pool.evicting) == 1
    assert len(pool.scheduler.state.booked) == 4
    pool.end(next(iter(pool.evicting)))
    assert pool.begun >= {"j10", "j11", "j12", "j13"}


def test_what_was_vacated_for_a_gang_is_kept_and_a_job_that_would_fit_there_says_for_which():
    pool = filled(("a", "guest", 0), ("b", "guest", 0))
    whole = SliceRequest(1000, 1000, 0, n_devices=4)
    pool.jobs["gang"] = gang = Job("gang", "ann", "guest", whole, 2, 2, priority=1, submitted_at_ms=10, seq=10)
    pool.step(JobSubmitted(10, gang))
    assert set(pool.evicting.values()) == {"gang"}
    pool.end(("a", 0))
    pool.jobs["small"] = small = Job("small", "bob", "other", SliceRequest(100, 100, GIB), submitted_at_ms=11, seq=11)
    pool.step(JobSubmitted(11, small))
    reason = pool.scheduler.reason_for("small")
    assert reason.code is Reason.RESERVED
    assert "held for job gang, for which others are being stopped" in reason.message
    assert [blocker.job_id for blocker in pool.scheduler.what_must_end("gang")] == ["b"]
    pool.end(("b", 0))
    assert "gang" in pool.begun
    assert "small" not in pool.begun


def test_a_new_scheduler_keeps_for_each_claimant_what_is_being_vacated_for_it():
    pool = filled(("a", "guest", 0), ("b", "guest", 0), ("first", "guest", 1), ("second", "guest", 1))
    victims = sorted(pool.evicting)
    pool.restart()
    assert set(pool.scheduler.state.booked) == {"first", "second"}
    pool.end(victims[0])
    pool.end(victims[1])
    assert pool.begun >= {"first", "second"}


def test_a_claimant_that_fits_elsewhere_sooner_starts_there_and_leaves_its_place():
    pool = filled(("a", "guest", 0), ("b", "guest", 0), ("mine", "owner", 0))
    (other,) = {key for key in pool.held if key not in pool.evicting}
    pool.held.pop(other)
    pool.step(MemberFinished(21, *other, 0))
    assert "mine" in pool.begun
    assert not pool.scheduler.state.booked


def test_a_place_on_a_card_that_falls_ill_is_booked_elsewhere():
    pool = filled(("a", "guest", 0), ("b", "guest", 0), ("mine", "owner", 0))
    (victim,) = pool.evicting
    (other,) = {key for key in pool.held if key != victim}
    booked = pool.scheduler.state.booked["mine"].place[0]
    assert pool.scheduler.state.books.uuids[booked.row][0] == pool.held[victim][0].device
    pool.step(DeviceChanged(30, pool.held[victim][0].device, DeviceHealth.UNHEALTHY))
    assert not pool.scheduler.state.booked, "nowhere are four cards of a node left but where nobody goes"
    pool.end(victim)
    pool.step(Tick(40))
    assert pool.evicting == {other: "mine"}
    pool.end(other)
    assert "mine" in pool.begun
