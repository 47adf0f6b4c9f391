"""A job that filters keep waiting is told which, and starts where it is said that it would."""

import hypothesis.strategies as st
import pytest
from hypothesis import event, given, settings

from flexai.model import Device, Job, Node, Queue, Reason, SliceRequest, TopologyLevel
from flexai.policy.filters import FILTERS
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodePut, QueuePut
from flexai.testing.reason_checker import ReasonChecker

GIB = 2**30


@pytest.fixture(autouse=True, scope="module")
def _named():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FILTERS, "half", lambda cards, shape: cards.free_milli - shape.compute_milli >= 500)
        patch.setitem(FILTERS, "unshared", lambda cards, _shape: ~cards.held)
        patch.setitem(FILTERS, "roomy", lambda cards, shape: cards.free_memory - shape.memory_bytes >= 60 * GIB)
        yield


@st.composite
def histories(draw):
    filters = tuple(draw(st.lists(st.sampled_from(sorted(["half", "unshared", "roomy"])), min_size=1, unique=True)))
    events = [QueuePut(0, Queue("team"))]
    for index in range(draw(st.integers(1, 3))):
        cards = tuple(
            Device(f"n{index}/{card}", "H200", "simulated", card, draw(st.sampled_from([40, 100])) * GIB)
            for card in range(draw(st.integers(1, 3)))
        )
        events.append(NodePut(0, Node(f"n{index}", cards, 32_000, 64 * GIB, (TopologyLevel("rack", f"r{index}", 1),))))
    scheduler, running = Scheduler(SchedulerSettings(filters=filters)), []
    for each in events:
        scheduler.step(each)
    for seq in range(1, draw(st.integers(2, 12))):
        if running and draw(st.integers(0, 4)) == 0:
            now = MemberFinished(seq, *running.pop(draw(st.integers(0, len(running) - 1))), 0)
        else:
            members = draw(st.sampled_from([1, 1, 2, 4]))
            milli, memory = draw(st.sampled_from([100, 300, 600])), draw(st.sampled_from([1, 20, 50])) * GIB
            request = SliceRequest(milli, 1000, memory, n_devices=draw(st.sampled_from([1, 1, 2])))
            now = JobSubmitted(
                seq,
                Job(
                    f"j{seq}", "ann", "team", request, members, members, seq=seq, preemptible=False,
                    required_level=draw(st.sampled_from(["", "", "rack"])),
                ),
            )  # fmt: skip
        events.append(now)
        running += [(each.job_id, each.member) for each in scheduler.step(now) if isinstance(each, Start)]
    return events, filters


@settings(max_examples=25, deadline=None)
@given(histories())
def test_supplying_what_a_filter_is_said_to_want_makes_the_job_start(drawn):
    history, filters = drawn
    chosen = SchedulerSettings(filters=filters)
    for job_id in ReasonChecker(history, chosen).waiting():
        checker = ReasonChecker(history, chosen)
        reason = checker.scheduler.reason_for(job_id)
        if reason.code is Reason.FILTERED:
            event("taken out" if "taken out" in reason.message else "wait")
            checker.check(job_id)
