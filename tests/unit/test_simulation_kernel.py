import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberStarted, NodePut, QueuePut
from flexai.simulation.kernel import Costs, SimulatedJob, Simulation
from flexai.simulation.queueing import QUEUE_ORDERS, PoolBaseline


def node(n_cards):
    return Node("n0", tuple(Device(f"c{i}", "any", "simulated", i, 1) for i in range(n_cards)), 0, 0)


def job(seq, n_cards=1, at_ms=0, queue="q", members=1):
    request = SliceRequest(1000, 1000, 0, n_devices=n_cards)
    return Job(f"j{seq}", "ann", queue, request, members, members, submitted_at_ms=at_ms, seq=seq)


def play(order, n_cards, jobs, **options):
    durations = {entry.job.id: entry.duration_ms for entry in jobs}
    simulation = Simulation(PoolBaseline(order, durations), **options)
    return simulation.play([NodePut(0, node(n_cards))], jobs)


def waits(outcome):
    return [book.waited_ms for book in outcome.jobs]


def test_fifo_blocks_behind_the_head_and_greedy_passes_it():
    jobs = [
        SimulatedJob(job(0, 3), 100), SimulatedJob(job(1, 4), 100), SimulatedJob(job(2, 1), 100),
    ]  # fmt: skip
    assert waits(play("fifo", 4, jobs)) == [0, 100, 200]
    assert waits(play("greedy", 4, jobs)) == [0, 100, 0]


def test_the_oracle_runs_the_shortest_first():
    jobs = [SimulatedJob(job(0), 50), SimulatedJob(job(1, at_ms=1), 90), SimulatedJob(job(2, at_ms=1), 10)]
    assert waits(play("shortest", 1, jobs)) == [0, 59, 49]


def test_the_median_of_what_finished_predicts():
    first = [SimulatedJob(job(0, queue="slow"), 1000), SimulatedJob(job(1, at_ms=1, queue="fast"), 10)]
    later = [
        SimulatedJob(job(2, at_ms=2000, queue="slow"), 1000),
        SimulatedJob(job(3, at_ms=2001, queue="slow"), 1000),
        SimulatedJob(job(4, at_ms=2002, queue="fast"), 10),
    ]
    outcome = play("shortest-predicted", 1, first + later)
    assert outcome.jobs[4].started_ms < outcome.jobs[3].started_ms


class EvictOnce:
    """Starts the job whenever it waits; evicts it once, at 5 s."""

    def __init__(self):
        self.evicted = False

    def step(self, event):
        start = Start("j0", 0, (), "test")
        if isinstance(event, JobSubmitted) and event.job.id == "j0":
            return [start]
        if isinstance(event, JobSubmitted):
            return [Evict("j0", 0, 0, True, "test")]
        if isinstance(event, MemberStarted) or self.evicted:
            return []
        if event.__class__.__name__ == "MemberFinished" and event.exit_code == 143:
            self.evicted = True
            return [start]
        return []


@pytest.mark.parametrize(("checkpointable", "lost_ms"), [(False, 5000), (True, 1000)])
def test_an_eviction_costs_a_restart_and_the_work_since_the_last_checkpoint(checkpointable, lost_ms):
    victim = SimulatedJob(replace(job(0), checkpointable=checkpointable), 10_000)
    other = SimulatedJob(job(1, at_ms=5000), 1)
    simulation = Simulation(EvictOnce(), Costs(restart_ms=500, checkpoint_every_ms=2000))
    book = simulation.play([], [victim, other]).jobs[0]
    assert (book.n_evictions, book.lost_ms) == (1, lost_ms)
    assert book.finished_ms == 10_000 + lost_ms + 500
    assert book.waited_ms == 0


def test_a_job_that_can_never_start_ends_the_run_and_is_seen_waiting():
    outcome = play("greedy", 1, [SimulatedJob(job(0, 2), 10)])
    assert outcome.jobs[0].waited_ms == -1
    assert outcome.samples[-1].n_waiting == 1


jobs_of_all_kinds = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 500), st.integers(1, 300), st.sampled_from("ab"), st.integers(1, 2)),
    max_size=25,
)


@given(st.sampled_from(QUEUE_ORDERS), jobs_of_all_kinds)
def test_every_baseline_ends_every_job_never_overfills_and_repeats_itself(order, rows):
    jobs = [
        SimulatedJob(job(i, n, at, queue, members), duration)
        for i, (n, at, duration, queue, members) in enumerate(sorted(rows, key=lambda row: row[1]))
    ]
    first, second = play(order, 8, jobs), play(order, 8, jobs)
    assert first.digest == second.digest
    assert all(sample.granted_milli <= 8000 for sample in first.samples)
    assert all(book.waited_ms >= 0 for book in first.jobs)
    assert all(book.ran_ms == book.duration_ms for book in first.jobs)


GIB = 2**30


def give_way(jobs, n_cards=1, **settings):
    """Jobs on cards that can be parked from, in one queue, by the product."""
    cards = tuple(Device(f"c{i}", "any", "simulated", i, 80 * GIB, can_park=True) for i in range(n_cards))
    simulation = Simulation(Scheduler(SchedulerSettings(**settings), check=True))
    setup = [QueuePut(0, Queue("q")), NodePut(0, Node("n0", cards, 64_000, 160 * GIB))]
    return simulation.play(setup, jobs)


def of_priority(seq, at_ms, priority, seconds, gib=40):
    request = SliceRequest(1000, 1000, gib * GIB)
    work = Job(f"j{seq}", "ann", "q", request, priority=priority, submitted_at_ms=at_ms, seq=seq)
    return SimulatedJob(work, seconds * 1000)


def test_a_parked_job_loses_the_time_that_its_memory_moves_and_waits_and_no_work():
    low, high = of_priority(0, 0, 0, 1000), of_priority(1, 500_000, 1, 100)
    outcome = give_way([low, high], park="if_cheaper")
    first, second = outcome.jobs
    assert second.started_ms == 521_600, "40 GiB at 540 ms each have left"
    assert first.finished_ms == 1_000_000 + 21_600 + 100_000 + 8_400
    assert (first.ran_ms, first.n_evictions, first.lost_ms) == (1_000_000, 0, 0)
    assert (outcome.n_parks, outcome.n_evictions, outcome.n_starts) == (1, 0, 2)
    assert [(span.from_ms, span.to_ms) for span in outcome.spans if span.job.id == "j0"] == [
        (0, 521_600), (621_600, 1_130_000),
    ]  # fmt: skip


def test_by_default_the_same_job_is_stopped_and_does_its_work_again():
    outcome = give_way([of_priority(0, 0, 0, 1000), of_priority(1, 500_000, 1, 100)])
    assert (outcome.n_parks, outcome.n_evictions) == (0, 1)
    assert outcome.jobs[0].lost_ms == 530_000


def test_however_jobs_give_way_all_of_them_end_and_nobody_works_more_than_its_work():
    chance = random.Random(3)
    jobs = [
        of_priority(n, n * 40_000, chance.choice([0, 0, 1, 2]), chance.randrange(10, 600), chance.choice([10, 30, 70]))
        for n in range(120)
    ]
    parks = give_way(jobs, 3, park="if_cheaper", park_least_ms=1_000)
    assert all(book.finished_ms > 0 for book in parks.jobs)
    assert parks.n_parks > 10
    assert all(book.ran_ms == book.duration_ms for book in parks.jobs if not book.n_evictions)
    assert parks.digest == give_way(jobs, 3, park="if_cheaper", park_least_ms=1_000).digest
    assert sum(book.lost_ms for book in parks.jobs) < sum(book.lost_ms for book in give_way(jobs, 3).jobs) / 4
