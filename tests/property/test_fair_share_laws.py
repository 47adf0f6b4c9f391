"""Fair share: quotas first, all of the capacity, by weight, and what its slow twin says."""

import hypothesis.strategies as st
from hypothesis import given, settings

from flexai.model import Device, Job, Node, Queue, SliceRequest
from flexai.policy.fair_share import Claim, fair_shares, fair_shares_reference
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, NodePut, QueuePut

claims = st.lists(
    st.builds(
        Claim, st.integers(0, 300), st.integers(0, 800), st.sampled_from([-1, 100, 500]),
        st.sampled_from([1, 500, 1000, 3000]), st.integers(0, 2), st.integers(0, 1000),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2000), claims)
def test_shares_are_what_the_slow_twin_hands_out_unit_by_unit(capacity, asked):
    got, slow = fair_shares(capacity, asked), fair_shares_reference(capacity, asked)
    assert sum(got) == sum(slow)
    assert all(abs(one - other) <= len(asked) for one, other in zip(got, slow, strict=True))


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2000), claims, st.sampled_from([0, 500, 2000]))
def test_nobody_gets_more_than_it_can_use_nor_less_than_its_quota(capacity, asked, k_milli):
    got = fair_shares(capacity, asked, k_milli)
    for share, claim in zip(got, asked, strict=True):
        assert min(claim.quota_milli, claim.most_milli) <= share <= claim.most_milli
    floor = sum(min(claim.quota_milli, claim.most_milli) for claim in asked)
    assert sum(got) == max(floor, min(capacity, sum(claim.most_milli for claim in asked)))


@settings(max_examples=40, deadline=None)
@given(st.integers(100, 2000), st.integers(1, 1000))
def test_who_used_more_in_the_past_gets_less_now(capacity, past):
    greedy = Claim(0, 10**6, -1, 1000, past_milli=past)
    modest = Claim(0, 10**6, -1, 1000, past_milli=0)
    got = fair_shares(capacity, [greedy, modest], 1000)
    assert got[0] <= got[1]


def test_backlogged_queues_hold_their_weights_to_within_one_job():
    weights = {f"q{index}": 1000 * (1 + index % 4) for index in range(8)}
    scheduler = Scheduler(SchedulerSettings())
    for name, weight in weights.items():
        scheduler.step(QueuePut(0, Queue(name, weight=weight)))
    cards = tuple(Device(f"n/{card}", "H200", "simulated", card, 2**37) for card in range(20))
    scheduler.step(NodePut(0, Node("n", cards, 10**6, 2**40)))
    running, held = [], dict.fromkeys(weights, 0)

    def book(commands):
        for command in commands:
            if isinstance(command, Start):
                queue = command.job_id.split(".")[0]
                running.append((command.job_id, queue))
                held[queue] += 100

    for seq in range(1, 1600):
        queue = f"q{seq % 8}"
        request = SliceRequest(100, 100, 2**30)
        book(scheduler.step(JobSubmitted(seq, Job(f"{queue}.{seq}", "ann", queue, request, seq=seq))))
    total = sum(weights.values())
    for turn in range(600):  # whoever has run longest ends, whatever its queue
        job_id, queue = running.pop(0)
        held[queue] -= 100
        book(scheduler.step(MemberFinished(2000 + turn, job_id, 0, 0)))
    for name, weight in weights.items():
        assert abs(held[name] - 20_000 * weight // total) <= 100, (name, held)
