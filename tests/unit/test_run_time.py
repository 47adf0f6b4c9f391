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


def _an_hours_worth(ran_ms: int) -> tuple[RunTimes, int]:
    """Eight jobs that each ran so long, one an hour and more; and a moment long after them."""
    times = RunTimes()
    for step in range(8):
        _finish(times, "a", 1, step * 90 * MINUTE, ran_ms)
    return times, 20 * 60 * MINUTE


def test_a_sibling_that_still_runs_raises_what_the_next_is_expected_to_take_the_nearer_the_more() -> None:
    times, now = _an_hours_worth(10 * MINUTE)
    burst = times.submitted("a", 1, now)
    times.started(burst, "one", now)
    script = times.submitted("a", 1, now + MINUTE)
    sweep = times.submitted("a", 1, now + 6 * MINUTE)
    session = times.submitted("a", 1, now + 30 * MINUTE)
    stranger = times.submitted("a", 1, now + 95 * MINUTE)
    assert script == burst
    then = now + 100 * MINUTE
    expected = [times.expected_ms(each, then) for each in (stranger, session, sweep, script)]
    assert expected[0] == 10 * MINUTE
    assert expected[1] == (3 * 10 + 100) * MINUTE / 3
    assert expected == sorted(set(expected))


def test_siblings_that_finished_are_believed_the_more_of_them_there_are() -> None:
    times, now = _an_hours_worth(100 * MINUTE)
    burst, seen = times.submitted("a", 1, now), []
    for name in "abcdefgh":
        times.submitted("a", 1, now)
        times.started(burst, name, now)
        times.finished(burst, name, MINUTE)
        seen.append(times.expected_ms(burst, now + MINUTE))
    assert seen == sorted(set(seen), reverse=True)
    assert MINUTE < seen[-1] < 10 * MINUTE


def test_a_sibling_that_was_evicted_or_given_up_is_no_news() -> None:
    times, now = _an_hours_worth(10 * MINUTE)
    burst = times.submitted("a", 1, now)
    for name in ("evicted", "cancelled", "other"):
        times.submitted("a", 1, now)
        if name != "other":
            times.started(burst, name, now)
    times.stopped(burst, "evicted")
    times.forget(burst, "cancelled")
    assert times.expected_ms(burst, now + 100 * MINUTE) == 10 * MINUTE


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
        _finish(times, "a", 1, step * 61 * MINUTE, MINUTE if step < 900 else 2 * MINUTE)
    burst = times.submitted("a", 1, 10**10)
    assert times.expected_ms(burst, 10**10) == 2 * MINUTE
    assert len(times._bursts) == 1, "bursts that are over are forgotten"


def test_an_evicted_job_teaches_nothing() -> None:
    times = RunTimes()
    burst = times.submitted("a", 1, 0)
    times.started(burst, "one", 0)
    times.stopped(burst, "one")
    assert times.expected_ms(burst, 10**9) == UNKNOWN_MS


def test_a_burst_without_an_end_forgets_too() -> None:
    times = RunTimes()
    for step in range(20_000):
        _finish(times, "a", 1, step * MINUTE // 2, 100 * MINUTE if step < 5_000 else MINUTE)
    burst = times.submitted("a", 1, 10_000 * MINUTE)
    assert times.expected_ms(burst, 10_000 * MINUTE) < 8 * MINUTE, "of 100 minutes that a quarter of all ran"
