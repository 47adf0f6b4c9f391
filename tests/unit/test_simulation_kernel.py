from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.model import Device, Job, Node, SliceRequest
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberStarted, NodePut
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
