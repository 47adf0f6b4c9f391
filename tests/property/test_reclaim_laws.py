"""Reclaim under churn: no victim's queue is left poorer than the claimant's, and no two queues take turns."""

import re

import hypothesis.strategies as st
from hypothesis import Phase, given, settings

from flexai.model import ClassTerms, Device, Job, Node, Queue, SliceRequest
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import JobSubmitted, MemberFinished, MemberStarted, NodePut, QueuePut, Tick

GIB = 2**30
LEAVES = ("a/x", "a/y", "b", "c")


@st.composite
def pools(draw):
    """A tree of queues whose quotas fit the cards, and jobs of one to four members, some of them elastic."""
    quota = st.sampled_from([0, 1000, 2000])
    terms = st.sampled_from([(), (), (ClassTerms("H200", 1000),)])
    queues = [Queue("a", quota_milli=draw(quota))] + [
        Queue(
            name, name.rsplit("/", 1)[0] if "/" in name else "", draw(quota), weight=draw(st.sampled_from([500, 1000])),
            classes=draw(terms),
        )
        for name in LEAVES
    ]  # fmt: skip
    nodes = [
        Node(f"n{n}", tuple(Device(f"n{n}/{c}", model, "simulated", c, 80 * GIB) for c in range(4)), 64_000, 512 * GIB)
        for n, model in enumerate(("H200", "H200", "L40S"))
    ]
    jobs = []
    for seq in range(1, draw(st.integers(10, 30))):
        members = draw(st.sampled_from([1, 1, 2, 4]))
        milli, models = draw(st.sampled_from([500, 1000])), draw(st.sampled_from([(), (), ("H200",)]))
        request = SliceRequest(milli, 1000, 0 if milli == 1000 else 30 * GIB, models=models)
        jobs.append(
            Job(
                f"j{seq}", "ann", draw(st.sampled_from(LEAVES)), request, members, draw(st.integers(1, members)),
                priority=draw(st.sampled_from([0, 0, 1])), submitted_at_ms=seq, seq=seq,
            )
        )  # fmt: skip
    return queues, nodes, jobs, draw(st.sampled_from(["quota", "fair_share"]))


class Pool:
    """Feeds a scheduler, ends what is evicted, and books what every queue holds by itself."""

    def __init__(self, queues, nodes, jobs, reclaim):
        self.scheduler = Scheduler(SchedulerSettings(reclaim=reclaim), check=True)
        self.queues = {queue.name: queue for queue in queues}
        self.jobs = {job.id: job for job in jobs}
        self.held, self.evicting, self.n_evicted = {}, [], 0
        self.evicted_for = {}
        for event in [*(QueuePut(0, queue) for queue in queues), *(NodePut(0, node) for node in nodes)]:
            self.step(event)

    def step(self, event):
        commands = self.scheduler.step(event)
        for command in commands:
            if isinstance(command, Start):
                self.held[command.job_id, command.member] = command.grants
        for command in commands:
            if isinstance(command, Start):
                self.step(MemberStarted(event.at_ms, command.job_id, command.member))
        evictions = [command for command in commands if isinstance(command, Evict)]
        if evictions:
            self.check(evictions)
        self.evicting += [(command.job_id, command.member) for command in evictions]

    def guaranteed(self, name):
        below = sum(self.guaranteed(each.name) for each in self.queues.values() if each.parent == name)
        return max(self.queues[name].quota_milli, below)

    def holds(self, name, but=()):
        return sum(
            grant.compute_milli
            for key, grants in self.held.items()
            for grant in grants
            if key not in but and name in self.path(self.jobs[key[0]].queue)
        )

    def path(self, name):
        parent = self.queues[name].parent
        return [name, *(self.path(parent) if parent else [])]

    def check(self, evictions):
        """What the cause says is judged by the quotas alone: nothing the scheduler computed is believed."""
        for each in evictions:
            claimant = self.jobs[re.search(r"for job (\S+) of queue", each.cause)[1]]
            self.evicted_for[each.job_id, each.member] = self.path(claimant.queue)
        for each in evictions:
            self.n_evicted += 1
            claimant = self.jobs[re.search(r"for job (\S+) of queue", each.cause)[1]]
            mine, theirs = self.path(claimant.queue), self.path(self.jobs[each.job_id].queue)
            if self.jobs[each.job_id].queue == claimant.queue:
                assert "reclaimed" in each.cause or self.jobs[each.job_id].priority < claimant.priority
            for name in theirs:
                if name not in mine:
                    being_evicted = {*self.evicting, *((one.job_id, one.member) for one in evictions)}
                    gone = {key for key in being_evicted if name not in self.evicted_for[key]}
                    assert self.holds(name, gone) >= min(self.guaranteed(name), self.holds(name)), name

    def run(self, events):
        for event in events:
            self.step(event)
            while self.evicting:
                key = self.evicting.pop(0)
                if self.held.pop(key, None):
                    self.step(MemberFinished(event.at_ms, *key, 143, "evicted"))


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(pools(), st.lists(st.integers(0, 10**6), max_size=12))
def test_no_victims_queue_is_left_under_its_own_and_evictions_end_when_nothing_comes(setup, ends):
    pool = Pool(*setup)
    pool.run([JobSubmitted(job.seq, job) for job in pool.jobs.values()])
    for turn, pick in enumerate(ends):  # churn: work ends, others grow and start
        if pool.held:
            key = sorted(pool.held)[pick % len(pool.held)]
            del pool.held[key]
            pool.run([MemberFinished(100 + turn, *key, 0), Tick(101 + turn)])
    pool.run([Tick(1000 + turn) for turn in range(len(pool.jobs) + 5)])
    settled = pool.n_evicted
    pool.run([Tick(2000 + turn) for turn in range(40)])
    assert pool.n_evicted == settled, "queues take turns"
