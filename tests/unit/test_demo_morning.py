"""The morning has the published mixture, and what is reported of it follows from what was measured."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexai.apps.demo.lanes import lanes
from flexai.apps.demo.morning import PUBLISHED, QUEUES, draw_morning
from flexai.apps.demo.outcome import JobOutcome, PhaseOutcome


@given(seed=st.integers(0, 1000), n_jobs=st.integers(3, 60), mix=st.sampled_from(sorted(PUBLISHED)))
def test_every_morning_has_the_published_proportions_as_closely_as_whole_jobs_can(seed, n_jobs, mix):
    jobs = draw_morning(random.Random(seed), n_jobs, mix)
    n_whole, fractions = PUBLISHED[mix]
    published = {1000: n_whole, **fractions}
    total = sum(published.values())
    assert len(jobs) == n_jobs
    for share, count in published.items():
        exact = n_jobs * count / total
        assert abs(sum(job.share_milli == share for job in jobs) - exact) < 1
    assert {job.queue for job in jobs} <= set(QUEUES)
    assert len({job.name for job in jobs}) == n_jobs


@given(seed=st.integers(0, 1000))
def test_a_job_that_waits_for_input_needs_a_little_less_than_it_asks_for(seed):
    for job in draw_morning(random.Random(seed), 24, "default"):
        duty = job.work_s / job.alone_s()
        if job.is_card_bound:
            assert (job.share_milli, duty) == (1000, 1.0)
        else:
            assert duty == pytest.approx(0.95 * job.share_milli / 1000, rel=1e-6)
        assert 1.0 < job.alone_s() < 7.0


def test_the_same_seed_is_the_same_morning_and_another_is_another():
    first, again, other = (draw_morning(random.Random(seed), 24, "default") for seed in (1, 1, 2))
    assert first == again != other


def outcome(asked=500, owed=475, limit=1000, ran_s=10.0, work_s=4.75, **fields):
    return JobOutcome("j", "q", asked, owed, limit, waited_s=2.0, ran_s=ran_s, work_s=work_s, **fields)


@pytest.mark.parametrize(
    ("work_s", "limit", "error"), [(4.75, 1000, 0.0), (4.0, 1000, 7.5), (6.0, 1000, 0.0), (6.0, 500, 10.0)]
)
def test_less_than_owed_and_more_than_the_limit_are_errors_and_borrowing_is_not(work_s, limit, error):
    assert outcome(work_s=work_s, limit=limit).share_error_points == pytest.approx(error)


def test_utilisation_counts_what_the_jobs_counted_over_the_span():
    phase = PhaseOutcome("slices", 2, 10.0, (outcome(work_s=4.0), outcome(work_s=6.0)))
    assert phase.utilisation == 0.5
    assert phase.mean_wait_s == 2.0
    assert phase.as_json()["makespan_s"] == 10.0


def test_a_job_that_never_ran_got_nothing():
    assert outcome(ran_s=0.0, work_s=0.0).got_milli == 0


def placed(name, start_s, ran_s, asked, device="card 0"):
    return replace(outcome(asked=asked, ran_s=ran_s), name=name, started_s=start_s, device=device)


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 8), st.sampled_from((110, 230, 320, 470, 810, 1000))), max_size=12
    )
)
def test_in_the_picture_no_two_jobs_of_a_card_cover_each_other(drawn):
    granted = []
    for number, (start_s, ran_s, asked) in enumerate(sorted(drawn)):
        beside = [job for job in granted if job.ended_s > start_s]
        if sum(job.asked_milli for job in beside) + asked <= 1000:  # as the pool grants
            granted.append(placed(f"j{number}", float(start_s), float(ran_s), asked))
    for jobs in lanes(granted).values():
        for number, (job, strips) in enumerate(jobs):
            assert sum(high - low for low, high in strips) == job.asked_milli
            for other, others in jobs[:number]:
                if other.ended_s > job.started_s:
                    assert all(low >= b or high <= a for low, high in strips for a, b in others)


def test_cards_are_drawn_in_their_order_and_a_job_that_never_started_is_not_drawn():
    jobs = [placed("a", 0, 1, 500, "card 10"), placed("b", 0, 1, 500, "card 2"), placed("c", 0, 1, 500, "")]
    assert list(lanes(jobs)) == ["card 2", "card 10"]
