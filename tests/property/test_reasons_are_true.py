"""Whatever a waiting job is told, supplying just that makes it start."""

import hypothesis.strategies as st
from hypothesis import event, given, settings

from flexai.model import Device, Job, Node, Queue, Role, SliceRequest, TenantClass, TopologyLevel
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Start
from flexai.scheduling.events import ForeignUsage, JobSubmitted, MemberFinished, NodePut, QueuePut
from flexai.testing.reason_checker import ReasonChecker

GIB = 2**30


@st.composite
def nodes(draw):
    out = []
    for index in range(draw(st.integers(1, 4))):
        model = draw(st.sampled_from(["H200", "H200", "L40S"]))
        cards = tuple(
            Device(
                f"n{index}/{card}",
                model,
                "simulated",
                card,
                draw(st.sampled_from([40, 80])) * GIB,
                partitions=("1g.5gb",) if index == 1 else (),
            )
            for card in range(draw(st.integers(1, 4)))
        )
        rack = TopologyLevel("rack", f"r{index // 2}", 1)
        cpu, ram = draw(st.sampled_from([4_000, 16_000])), draw(st.sampled_from([16, 64])) * GIB
        out.append(Node(f"n{index}", cards, cpu, ram, (rack,)))
    return out


@st.composite
def jobs(draw, seq):
    milli = draw(st.sampled_from([100, 300, 500, 1000, 1000]))
    whole = milli == 1000 and draw(st.booleans())
    members = draw(st.sampled_from([1, 1, 1, 2, 4]))
    rack = draw(st.sampled_from(["", "", "rack"]))
    request = SliceRequest(
        milli, 1000, 0 if whole else draw(st.sampled_from([5, 20, 60])) * GIB, TenantClass.GUARANTEED,
        draw(st.sampled_from([1, 1, 1, 2, 3])), draw(st.sampled_from([()] * 6 + [("L40S",)] * 3 + [("B200",)])),
        "1g.5gb" if draw(st.integers(0, 7)) == 7 else "",
    )  # fmt: skip
    return Job(
        f"j{seq}", draw(st.sampled_from(["ann", "bob"])), draw(st.sampled_from(["a", "b"] * 9 + ["nowhere"])), request,
        members, members, draw(st.sampled_from([0, 1_000, 5_000])),
        draw(st.sampled_from([0, 1, 20])) * GIB, submitted_at_ms=seq, seq=seq,
        required_level=rack, subgroup_size=2 if members == 4 and not rack and seq % 2 else 0, subgroup_level="rack",
        held=draw(st.integers(0, 19)) == 7, preemptible=False,
    )  # fmt: skip


@st.composite
def gangs(draw, seq):
    roles = []
    for index in range(draw(st.sampled_from([2, 2, 3]))):
        milli, n = draw(st.sampled_from([250, 500, 1000])), draw(st.sampled_from([1, 1, 2, 3]))
        n_devices = draw(st.sampled_from([0, 1, 1, 2]))
        whole = milli == 1000 or n_devices == 0
        request = SliceRequest(milli, 1000, 0 if whole else draw(st.sampled_from([5, 20])) * GIB, n_devices=n_devices)
        roles.append(
            Role(
                f"role{index}", request, n, draw(st.sampled_from([n, n, 1])), draw(st.sampled_from([0, 1_000, 3_000])),
                draw(st.sampled_from([0, 1, 20])) * GIB, required_level=draw(st.sampled_from(["", "", "rack"])),
            )
        )  # fmt: skip
    return Job(
        f"j{seq}", "ann", draw(st.sampled_from(["a", "b"])), roles[0].request, sum(role.n_members for role in roles),
        sum(role.min_member for role in roles), submitted_at_ms=seq, seq=seq, preemptible=False, roles=tuple(roles),
        required_level=draw(st.sampled_from(["", "", "rack"])),
    )  # fmt: skip


@st.composite
def histories(draw, jobs=jobs):
    events = [
        QueuePut(0, Queue("a", limit_milli=draw(st.sampled_from([-1, -1, 4500])))),
        QueuePut(0, Queue("b", user_limit_milli=draw(st.sampled_from([-1, -1, 3500])))),
        *(NodePut(0, node) for node in draw(nodes())),
    ]
    if draw(st.booleans()):
        events.append(ForeignUsage(0, "n0/0", 10 * GIB, 200))
    scheduler, running = Scheduler(), []
    for each in events:
        scheduler.step(each)
    for seq in range(1, draw(st.sampled_from([6, 12, 20, 28]))):
        ends = running and draw(st.integers(0, 4)) == 0
        if ends:
            now = MemberFinished(seq, *running.pop(draw(st.integers(0, len(running) - 1))), 0)
        else:
            now = JobSubmitted(seq, draw(jobs(seq)))
        events.append(now)
        running += [(each.job_id, each.member) for each in scheduler.step(now) if isinstance(each, Start)]
    return events


@settings(max_examples=25, deadline=None)
@given(histories())
def test_supplying_what_a_reason_names_makes_the_job_start(history):
    waiting = ReasonChecker(history, SchedulerSettings()).waiting()
    for job_id in waiting[:: max(1, len(waiting) // 6)]:
        checker = ReasonChecker(history, SchedulerSettings())
        event(str(checker.scheduler.reason_for(job_id).code))
        checker.check(job_id)


@settings(max_examples=12, deadline=None)
@given(histories(lambda seq: gangs(seq) if seq % 3 else jobs(seq)))
def test_a_reason_of_a_gang_of_roles_names_the_role_that_does_not_fit(history):
    waiting = [name for name in ReasonChecker(history, SchedulerSettings()).waiting() if int(name[1:]) % 3]
    for job_id in waiting[:: max(1, len(waiting) // 4)]:
        checker = ReasonChecker(history, SchedulerSettings())
        event(str(checker.scheduler.reason_for(job_id).code))
        checker.check(job_id)
