"""Whatever happens, in whatever order, the scheduler keeps its books true."""

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flexai.model import (
    ClassTerms,
    Device,
    DeviceHealth,
    Job,
    JobState,
    MemberState,
    Node,
    Queue,
    Role,
    SliceRequest,
    TenantClass,
    TopologyLevel,
)
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Evict, Start
from flexai.scheduling.events import (
    DeviceChanged,
    ForeignUsage,
    JobCancelled,
    JobHeld,
    JobMembersAsked,
    JobReleased,
    JobResizeAsked,
    JobSubmitted,
    MemberFinished,
    MemberStarted,
    NodeGone,
    NodePut,
    QueueGone,
    QueuePut,
    Tick,
    UsageMeasured,
)

GIB = 2**30
MIG = ("1g.13gb", "3g.53gb")
NODES = tuple(
    Node(
        f"n{n}",
        tuple(
            Device(f"n{n}/{c}", ("H200", "H200", "L40S")[n], "simulated", c, 100 * GIB, partitions=MIG[:n])
            for c in range(2 + n)
        ),
        16_000,
        64 * GIB,
        (TopologyLevel("rack", f"r{n // 2}", 1),),
    )
    for n in range(3)
)
UUIDS = [device.uuid for node in NODES for device in node.devices]
QUEUES = ("a", "b", "a/x")

requests = st.builds(
    lambda milli, gib, n, cls, models, partition: SliceRequest(
        milli, min(1000, milli * 2), 0 if milli == 1000 and gib == 0 else max(gib, 1) * GIB, cls, n, models, partition
    ),
    st.sampled_from([1, 100, 250, 333, 500, 1000]), st.sampled_from([0, 1, 10, 60, 100]), st.sampled_from([1, 1, 2, 3]),
    st.sampled_from(list(TenantClass)), st.sampled_from([(), ("H200",), ("L40S",), ("B200",)]),
    st.sampled_from(["", "", "", *MIG, "9x"]),
)  # fmt: skip


class Pool(RuleBasedStateMachine):
    """Submits, starts, ends and breaks things; books every grant a second time."""

    def __init__(self):
        super().__init__()
        self.scheduler = Scheduler(
            SchedulerSettings(grace_ms=10, reclaim="fair_share", consolidate_moves=3, move_cost_ms=-9), check=True
        )
        self.now = self.late = 0
        self.seq = 0
        self.held = {}
        self.evicting = {}
        self.jobs = {}

    def step(self, event):
        self.now += 1
        begun, shrunk = set(), set()
        idle = {job_id for job_id, record in self.scheduler.state.jobs.items() if not record.is_placed}
        for command in self.scheduler.step(replace(event, at_ms=self.now - self.late)):
            match command:
                case Start():
                    key = (command.job_id, command.member)
                    assert key not in self.held, "granted twice"
                    assert not self.jobs[command.job_id].held
                    self.held[key] = command.grants
                    begun.add(command.job_id)
                    devices = [grant.device for grant in command.grants]
                    asked = self.jobs[command.job_id].role_of(command.member).request
                    assert len(set(devices)) == asked.n_devices
                    assert len({grant.node for grant in command.grants}) == bool(devices)
                case Evict():
                    assert (command.job_id, command.member) in self.held
                    self.evicting[command.job_id, command.member] = command.requeue
                    if command.cause.startswith("shrunk"):
                        shrunk.add(command.job_id)
        for job_id in (begun & {*idle, getattr(getattr(event, "job", None), "id", "")}) | shrunk:
            record = self.scheduler.state.jobs[job_id]
            for at, role in enumerate(record.job.parts):
                members = record.members_of(at)
                there = sum(member.hold is not None and not member.evicting for member in members)
                done = sum(member.state is MemberState.FINISHED for member in members)
                assert there + done >= role.min_member, "a role has fewer members than its job needs"

    @rule(node=st.sampled_from(NODES))
    def put_node(self, node):
        self.step(NodePut(0, node))

    @rule(node=st.sampled_from(NODES))
    def node_gone(self, node):
        self.step(NodeGone(0, node.name))

    @rule(name=st.sampled_from(QUEUES), quota=st.sampled_from([0, 500, 2000]), limit=st.sampled_from([-1, 0, 2500]),
          terms=st.sampled_from([(), (), (ClassTerms("H200", 500, 1500),), (ClassTerms("L40S", limit_milli=0),)]),
          circle=st.booleans())  # fmt: skip
    def put_queue(self, name, quota, limit, terms, circle):
        parent = name.rsplit("/", 1)[0] if "/" in name else "a/x" if circle and name == "a" else ""
        self.step(QueuePut(0, Queue(name, parent, quota, limit, user_limit_milli=3000, classes=terms)))

    @rule(by=st.sampled_from([0, 0, 7, 10**9]))
    def the_clock_runs_back(self, by):
        self.late = by

    @rule(pick=st.integers(0, 10**6), member=st.sampled_from([-1, 0, 3, 99]), code=st.sampled_from([0, 1]))
    def something_ends_that_does_not_run(self, pick, member, code):
        name = f"j{pick % (self.seq + 2)}"
        if (name, member) not in self.held:
            self.step(MemberFinished(0, name, member, code, "late"))
            self.step(MemberStarted(0, name, member))

    @rule(name=st.sampled_from(QUEUES))
    def drop_queue(self, name):
        self.step(QueueGone(0, name))

    @rule(
        request=requests, queue=st.sampled_from([*QUEUES, "nowhere"]), members=st.sampled_from([1, 1, 1, 2, 4]),
        priority=st.integers(0, 2), cpu=st.sampled_from([0, 1000, 9000]), held=st.booleans(), after=st.booleans(),
        elastic=st.integers(0, 3), level=st.sampled_from(["", "", "rack"]),
    )  # fmt: skip
    def submit(self, request, queue, members, priority, cpu, held, after, elastic, level):
        self.seq += 1
        job = Job(
            f"j{self.seq}", "ann", queue, request, members, max(1, members - elastic), cpu, 0, priority,
            submitted_at_ms=self.now,
            seq=self.seq, held=held and self.seq % 5 == 0, after=(f"j{self.seq - 1}",) if after and self.seq > 1 else
            (), checkpointable=self.seq % 2 == 0, required_level=level,
            subgroup_size=2 if members == 4 and elastic in (0, 2) and self.seq % 3 == 0 else 0, subgroup_level="rack",
        )  # fmt: skip
        self.jobs[job.id] = job
        self.step(JobSubmitted(0, job))

    @rule(
        requests=st.lists(requests, min_size=2, max_size=3), queue=st.sampled_from(QUEUES), cpu=st.integers(0, 5000),
        leader=st.booleans(), least=st.integers(0, 2), level=st.sampled_from(["", "rack"]),
    )  # fmt: skip
    def submit_roles(self, requests, queue, cpu, leader, least, level):
        self.seq += 1
        first = replace(requests[0], n_devices=0, partition="") if leader else requests[0]
        roles = [Role("leader", first, cpu_milli=cpu)]
        roles += [
            Role(f"w{n}", request, n + 1, min(n + 1, least), required_level=level)
            for n, request in enumerate(requests[1:])
        ]
        least = sum(role.min_member for role in roles)
        job = Job(
            f"j{self.seq}", "ann", queue, requests[1], sum(role.n_members for role in roles), least,
            submitted_at_ms=self.now, seq=self.seq, checkpointable=self.seq % 2 == 0, roles=tuple(roles),
        )  # fmt: skip
        self.jobs[job.id] = job
        self.step(JobSubmitted(0, job))

    @rule(pick=st.integers(0, 10**6), code=st.sampled_from([0, 1]))
    def finish(self, pick, code):
        if self.held:
            key = sorted(self.held)[pick % len(self.held)]
            del self.held[key]
            self.evicting.pop(key, None)
            self.step(MemberFinished(0, *key, code, "exited"))

    @rule(pick=st.integers(0, 10**6))
    def evicted(self, pick):
        if self.evicting:
            key = sorted(self.evicting)[pick % len(self.evicting)]
            del self.evicting[key]
            del self.held[key]
            self.step(MemberFinished(0, *key, 143, "evicted"))

    @rule(pick=st.integers(0, 10**6), kind=st.sampled_from([JobCancelled, JobHeld, JobReleased]))
    def ask(self, pick, kind):
        if self.seq:
            name = f"j{pick % self.seq + 1}"
            if kind is JobReleased and name in self.jobs:
                self.jobs[name] = replace(self.jobs[name], held=False)
            self.step(kind(0, name))

    @rule(pick=st.integers(0, 10**6), milli=st.sampled_from([100, 400, 1000]))
    def resize(self, pick, milli):
        if self.seq:
            role = ("", "leader", "w0", "w1")[pick % 4]
            self.step(JobResizeAsked(0, f"j{pick % self.seq + 1}", milli, milli, role))

    @rule(pick=st.integers(0, 10**6), n_members=st.integers(1, 4), role=st.sampled_from(["", "w0", "w1"]))
    def want_members(self, pick, n_members, role):
        if self.seq:
            self.step(JobMembersAsked(0, f"j{pick % self.seq + 1}", n_members, role))

    @rule(pick=st.integers(0, 10**6))
    def started_or_repeated(self, pick):
        if self.seq:
            self.step(MemberStarted(0, f"j{pick % self.seq + 1}", pick % 5))

    @rule(uuid=st.sampled_from(UUIDS), ill=st.booleans(), cordoned=st.booleans(), drain=st.booleans())
    def device(self, uuid, ill, cordoned, drain):
        health = DeviceHealth.UNHEALTHY if ill else DeviceHealth.HEALTHY
        self.step(DeviceChanged(0, uuid, health, cordoned, drain))

    @rule(uuid=st.sampled_from(UUIDS), gib=st.integers(0, 100), milli=st.sampled_from([0, 300]))
    def foreign(self, uuid, gib, milli):
        self.step(ForeignUsage(0, uuid, gib * GIB, milli))

    @rule(used=st.sampled_from([0, 50]))
    def measured(self, used):
        self.step(
            UsageMeasured(0, 1000, tuple((*key, grant.device, used) for key, gs in self.held.items() for grant in gs))
        )

    @rule()
    def tick(self):
        self.step(Tick(0))

    @rule(pick=st.integers(0, 10**6))
    def duplicate(self, pick):
        if self.seq:
            self.step(JobSubmitted(0, self.jobs[f"j{pick % self.seq + 1}"]))

    @invariant()
    def no_card_is_granted_beyond_what_it_has(self):
        compute, memory = {}, {}
        for grants in self.held.values():
            for grant in grants:
                compute[grant.device] = compute.get(grant.device, 0) + grant.compute_milli
                memory[grant.device] = memory.get(grant.device, 0) + grant.memory_bytes
        for uuid in compute:
            assert memory[uuid] <= 100 * GIB

    @invariant()
    def what_is_cut_is_not_shared_and_no_place_is_cut_twice(self):
        cut, shared = {}, set()
        for grants in self.held.values():
            for grant in grants:
                if grant.partition:
                    taken = {grant.partition_start + n for n in range(1 if grant.partition == MIG[0] else 4)}
                    assert not taken & cut.setdefault(grant.device, set())
                    cut[grant.device] |= taken
                else:
                    shared.add(grant.device)
        assert not cut.keys() & shared

    @invariant()
    def the_books_hold_what_was_granted(self):
        state = self.scheduler.state
        total = sum(record.held_milli for record in state.jobs.values())
        kept = sum(h.compute_milli * len(h.columns) for one in state.booked.values() for h in one.kept)
        assert int(state.books.granted_milli.sum()) == total + kept
        assert sum(sum(state.queues[name].by_user.values()) for name in state.queues.names()) <= total

    @invariant()
    def every_member_that_waits_stands_in_a_line_and_no_other_does(self):
        state = self.scheduler.state
        standing = {record.job.id for line in state.lines.values() for record in line.jobs}
        for job_id, record in state.jobs.items():
            due = record.state not in (JobState.HELD, JobState.STOPPING) and not record.waits_on
            assert (job_id in standing) == (due and record.n_to_start > 0 and not record.cancelled), job_id
        assert all(milli >= 0 for milli in state.waiting_milli.values())

    @invariant()
    def no_more_members_of_a_role_stay_than_its_user_wants(self):
        for record in self.scheduler.state.jobs.values():
            for index, role in enumerate(record.job.parts):
                stays = [m for m in record.members_of(index) if m.hold is not None and not m.evicting]
                assert len(stays) <= (role.most_at_once or role.n_members)

    @invariant()
    def what_could_be_evicted_is_what_evictable_jobs_hold(self):
        state = self.scheduler.state
        total = sum(record.held_milli for record in state.jobs.values() if record.job.preemptible)
        assert int(state.evictable_holds.milli.sum()) == total

    @invariant()
    def every_job_that_waits_says_why(self):
        for job_id, record in self.scheduler.state.jobs.items():
            reason = self.scheduler.reason_for(job_id)
            waits = record.state in (JobState.QUEUED, JobState.HELD) and not record.is_placed
            assert (reason is not None) == waits
            if reason is not None:
                assert reason.message.endswith(".")


TestPool = Pool.TestCase
TestPool.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
