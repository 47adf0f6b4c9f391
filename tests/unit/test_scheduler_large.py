"""Of several large jobs that wait, which is next."""

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodePut, QueuePut

GIB = 2**30
MINUTE = 60_000


def pool(n_cards):
    scheduler = Scheduler(SchedulerSettings(reserve_cards=8), check=True)
    scheduler.step(QueuePut(0, Queue("a")))
    cards = tuple(Device(f"n/{card}", "H200", "simulated", card, 100 * GIB) for card in range(n_cards))
    scheduler.step(NodePut(0, Node("n", cards, 640_000, 512 * GIB)))
    return scheduler


def submit(scheduler, name, at_ms, n_cards):
    seq = len(scheduler.state.jobs)
    each = Job(name, "ann", "a", SliceRequest(1000, 1000, 0, n_devices=n_cards), seq=seq, submitted_at_ms=at_ms)
    return starts(scheduler.step(JobSubmitted(at_ms, each)))


def starts(commands):
    return [each.job_id for each in commands if isinstance(each, Start)]


def test_of_two_large_jobs_that_wait_alike_the_one_with_less_to_do_is_next():
    scheduler = pool(16)
    assert submit(scheduler, "all", 0, 16) == ["all"]
    assert submit(scheduler, "larger", MINUTE, 16) == []
    assert submit(scheduler, "smaller", 2 * MINUTE, 8) == []
    assert starts(scheduler.step(MemberFinished(60 * MINUTE, "all", 0, 0))) == ["smaller"]


def test_a_large_job_that_has_waited_for_long_is_next_however_much_it_has_to_do():
    scheduler = pool(16)
    submit(scheduler, "all", 0, 16)
    submit(scheduler, "larger", MINUTE, 16)
    submit(scheduler, "smaller", 50 * MINUTE, 8)
    assert starts(scheduler.step(MemberFinished(60 * MINUTE, "all", 0, 0))) == ["larger"]
