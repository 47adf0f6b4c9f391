"""Run times are learned from what finished and from siblings that still run."""

from flexai.policy.run_time import UNKNOWN_MS, RunTimes

MINUTE = 60_000


def _finish(times: RunTimes, queue: str, n_cards: int, at_ms: int, ran_ms: int) -> None:
    burst = times.submitted(queue, n_cards, at_ms)
    times.started(burst, f"{queue}{at_ms}", at_ms)
    times.finished(burst, f"{queue}{at_ms}", ran_ms)


def test_nothing_known_is_an_hour() -> None:
    times = RunTimes()
    burst = times.submitted("a", 1, 0)
    assert times.expected_ms(burst, 0) == UNKNOWN_MS
    assert times.quantile_ms(burst, 0.9) == UNKNOWN_MS


def test_a_class_with_five_finished_jobs_speaks_for_itself() -> None:
    times = RunTimes()
    for hour in range(5):
        _finish(times, "a", 1, hour * 60 * MINUTE, 10 * MINUTE)
    assert times.expected_ms(times.submitted("a", 1, 9 * 60 * MINUTE), 9 * 60 * MINUTE) == 10 * MINUTE
    assert times.expected_ms(times.submitted("b", 1, 9 * 60 * MINUTE), 9 * 60 * MINUTE) == 10 * MINUTE


def test_a_sibling_that_outlives_the_mean_raises_what_the_next_is_expected_to_take() -> None:
    times = RunTimes()
    for hour in range(8):
        _finish(times, "a", 1, hour * 60 * MINUTE, 10 * MINUTE)
    now = 20 * 60 * MINUTE
    burst = times.submitted("a", 1, now)
    times.started(burst, "one", now)
    again = times.submitted("a", 1, now + MINUTE)
    assert again == burst
    assert times.expected_ms(burst, now + 100 * MINUTE) == (3 * 10 + 100) * MINUTE / 4
    other = times.submitted("a", 1, now + 30 * MINUTE)
    assert other != burst
    assert times.expected_ms(other, now + 100 * MINUTE) == 10 * MINUTE


def test_what_remains_is_judged_among_those_that_ran_longer() -> None:
    times = RunTimes()
    for step in range(1, 11):
        _finish(times, "a", 1, step * 60 * MINUTE, step * MINUTE)
    burst = times.submitted("a", 1, 99 * 60 * MINUTE)
    assert times.remaining_ms(burst, 0, 0.5) == 6 * MINUTE
    assert times.remaining_ms(burst, 5 * MINUTE, 0.5) == 3 * MINUTE
    assert times.remaining_ms(burst, 9 * MINUTE, 0.5) == 10 * MINUTE, "older than all but one: no scale is left"


def test_history_is_bounded_and_the_oldest_goes_first() -> None:
    times = RunTimes()
    for step in range(5000):
        _finish(times, "a", 1, step * 60 * MINUTE, MINUTE if step < 900 else 2 * MINUTE)
    burst = times.submitted("a", 1, 10**10)
    assert times.expected_ms(burst, 10**10) == 2 * MINUTE
    assert len(times._bursts) == 1, "bursts that are over are forgotten"


def test_an_evicted_job_teaches_nothing() -> None:
    times = RunTimes()
    burst = times.submitted("a", 1, 0)
    times.started(burst, "one", 0)
    times.stopped(burst, "one")
    assert times.expected_ms(burst, 10**9) == UNKNOWN_MS
