"""Whoever is told that its queue must make up for what its large jobs had is told the truth, and until when."""

import hypothesis.strategies as st
from hypothesis import event, given, settings

from flexai.model import Device, Job, Node, Queue, Reason, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodePut, QueuePut
from flexai.testing.reason_checker import ReasonChecker

GIB = 2**30
MINUTE = 60_000


@st.composite
def histories(draw):
    """Two or three queues on two nodes of eight cards, all of which is soon granted; some jobs take four or eight."""
    weights = draw(st.lists(st.sampled_from([1000, 3000, 10_000]), min_size=2, max_size=3))
    cards = [tuple(Device(f"n{n}/{c}", "H200", "simulated", c, 80 * GIB) for c in range(8)) for n in range(2)]
    events = [
        *(QueuePut(0, Queue(f"q{index}", weight=weight)) for index, weight in enumerate(weights)),
        *(NodePut(0, Node(f"n{n}", some, 64_000, 512 * GIB)) for n, some in enumerate(cards)),
    ]
    scheduler, running, at_ms = Scheduler(), [], 0
    for each in events:
        scheduler.step(each)
    for seq in range(draw(st.integers(20, 50))):
        at_ms += draw(st.sampled_from([0, 0, 1, MINUTE, 20 * MINUTE]))
        if len(running) > 3 and draw(st.integers(0, 2)) == 0:
            now = MemberFinished(at_ms, *running.pop(draw(st.integers(0, len(running) - 1))), 0)
        else:
            queue, n_cards = draw(st.integers(0, len(weights) - 1)), draw(st.sampled_from([1, 1, 4, 8]))
            request = SliceRequest(1000, 1000, 0, n_devices=n_cards)
            now = JobSubmitted(at_ms, Job(f"j{seq}", "ann", f"q{queue}", request, submitted_at_ms=at_ms, seq=seq))
        events.append(now)
        running += [(each.job_id, each.member) for each in scheduler.step(now) if isinstance(each, Start)]
    return events


@settings(max_examples=40, deadline=None)
@given(histories())
def test_who_must_make_up_for_its_queues_large_jobs_is_told_so_and_when_its_turn_comes(history):
    checker = ReasonChecker(history, SchedulerSettings())
    told = [name for name in checker.waiting() if checker.scheduler.reason_for(name).code is Reason.FAIR_SHARE]
    event(f"told: {bool(told)}")
    for job_id in told[:3]:
        ReasonChecker(history, SchedulerSettings()).check(job_id)
