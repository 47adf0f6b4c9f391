"""Filters: what they keep away waits, is told so, and starts where they let it."""

import pytest

from flexai.apps.pool.main import settings_of
from flexai.apps.simulator.recorded import Recording, decide
from flexai.model import Device, Job, Node, Queue, Reason, SliceRequest
from flexai.policy.filters import FILTERS
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut, Tick
from flexai.wire.errors import BadInput
from flexai.wire.store import PoolStarted, decode_event, encode_event

GIB = 2**30


@pytest.fixture(autouse=True)
def _named(monkeypatch):
    monkeypatch.setitem(FILTERS, "half", lambda cards, shape: cards.free_milli - shape.compute_milli >= 500)
    monkeypatch.setitem(FILTERS, "unshared", lambda cards, _shape: ~cards.held)


def scheduler_of(*filters, n_cards=2, **settings):
    out = Scheduler(SchedulerSettings(filters=filters, **settings), check=True)
    out.step(QueuePut(0, Queue("team")))
    cards = tuple(Device(f"card-{index}", "H200", "simulated", index, 64 * GIB) for index in range(n_cards))
    out.step(NodePut(0, Node("here", cards, 32_000, 64 * GIB)))
    return out


def submit(scheduler, seq, milli, n=1, **fields):
    job = Job(f"j{seq}", "ann", "team", SliceRequest(compute_milli=milli, limit_milli=milli, memory_bytes=GIB),
              seq=seq, n_members=n, min_member=n, **fields)  # fmt: skip
    return scheduler.step(JobSubmitted(seq, job))


def starts(commands):
    return [command.job_id for command in commands if isinstance(command, Start)]


def test_a_job_that_a_filter_kept_away_starts_where_something_became_free():
    scheduler = scheduler_of("unshared")
    assert starts(submit(scheduler, 1, 100) + submit(scheduler, 2, 100)) == ["j1", "j2"]
    assert starts(submit(scheduler, 3, 100)) == []
    reason = scheduler.reason_for("j3")
    assert reason.code is Reason.FILTERED
    assert "filter unshared keeps it off 2 of them" in reason.message
    scheduler.step(MemberStarted(4, "j1", 0))
    assert starts(scheduler.step(MemberFinished(5, "j1", 0, 0))) == ["j3"]


def test_what_is_missing_beside_filters_is_told_first():
    scheduler = scheduler_of("unshared")
    for seq in (1, 2):
        submit(scheduler, seq, 800)
    submit(scheduler, 3, 300)
    assert scheduler.reason_for("j3").code is Reason.NOT_ENOUGH_COMPUTE


def test_a_gang_that_fits_but_for_a_filter_is_told_how_many_it_lets_in():
    scheduler = scheduler_of("half")
    assert starts(submit(scheduler, 1, 250, n=5)) == []
    reason = scheduler.reason_for("j1")
    assert reason.code is Reason.FILTERED
    assert (reason.numbers["n_fit_unfiltered"], reason.numbers["n_fit"], reason.numbers["missing_members"]) == (8, 4, 1)
    assert "even empty cards would not do" in reason.message
    assert starts(submit(scheduler, 2, 250, n=4)) == ["j2"] * 4


def test_of_several_filters_the_one_that_refuses_is_named():
    scheduler = scheduler_of("half", "unshared", n_cards=1)
    submit(scheduler, 1, 100)
    submit(scheduler, 2, 100)
    assert "filter unshared keeps" in scheduler.reason_for("j2").message


def test_nobody_is_evicted_where_a_filter_would_still_refuse():
    scheduler = scheduler_of("half", n_cards=1)
    submit(scheduler, 1, 400)
    scheduler.step(MemberStarted(2, "j1", 0))
    commands = submit(scheduler, 3, 600, priority=9) + scheduler.step(Tick(10))
    assert not [command for command in commands if isinstance(command, Evict)]
    commands = submit(scheduler, 4, 500, priority=9) + scheduler.step(Tick(20))
    assert [command.job_id for command in commands if isinstance(command, Evict)] == ["j1"]


def test_a_pool_names_its_filters_and_its_log_tells_them(tmp_path):
    settings = settings_of(["--run-dir", str(tmp_path), "--state-dir", str(tmp_path), "--filters", "half, unshared"])
    assert settings.scheduler.filters == ("half", "unshared")
    started = PoolStarted(1, settings.scheduler)
    assert decode_event(*encode_event(started)) == started


def test_a_filter_that_there_is_not_is_named(tmp_path):
    with pytest.raises(BadInput, match="none-such") as refused:
        settings_of(["--run-dir", str(tmp_path), "--state-dir", str(tmp_path), "--filters", "half,none-such"])
    assert refused.value.remedy == "Use one of: half, unshared"
    recorded = encode_event(PoolStarted(1, SchedulerSettings(filters=("gone",))))
    with pytest.raises(BadInput, match="gone"):
        list(decide(Recording(((1, *recorded),), (), 1)))
