"""Is a Reason true? Supply what it names, and nothing else, and see whether the job starts.

Independent of how reasons are made: the checker replays the events into a fresh scheduler, holds every other job that
waits (so that nobody else takes what is supplied), and feeds events that bring just what the numbers of the Reason say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.model import Device, Node, Reason
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.scheduling.commands import Command, Start
from flexai.scheduling.events import (
    Event,
    ForeignUsage,
    GrantsFound,
    JobCancelled,
    JobHeld,
    JobReleased,
    JobSubmitted,
    MemberFinished,
    NodePut,
    QueuePut,
    Tick,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flexai.model import Grant, Job, PendingReason, Queue

MOST_SUPPLIES = 4
"""A reason may hide another of a different kind (a limit of the queue before a lack of cards), but not for ever."""
ORDER = {Reason.BEHIND_EARLIER_JOBS, Reason.RESERVED, Reason.FAIR_SHARE}


@dataclass(slots=True)
class Truth:
    """What the checker knows by itself, from the events and commands alone."""

    nodes: dict[str, Node] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    foreign: dict[str, tuple[int, int]] = field(default_factory=dict)
    holds: dict[tuple[str, int], tuple[Grant, ...]] = field(default_factory=dict)
    row_names: list[str] = field(default_factory=list)
    n_made: int = 0

    def note(self, event: Event) -> None:
        """Book an event."""
        match event:
            case NodePut():
                if event.node.name not in self.row_names:
                    self.row_names.append(event.node.name)
                self.nodes[event.node.name] = event.node
            case QueuePut():
                self.queues[event.queue.name] = event.queue
            case JobSubmitted():
                self.jobs.setdefault(event.job.id, event.job)
            case ForeignUsage():
                self.foreign[event.uuid] = (event.memory_bytes, event.compute_milli)
            case MemberFinished():
                self.holds.pop((event.job_id, event.member), None)
            case _:
                pass


@dataclass(slots=True)
class ReasonChecker:
    """A scheduler brought to a state by events, and what may be done to it."""

    events: Sequence[Event]
    settings: SchedulerSettings = field(default_factory=SchedulerSettings)
    truth: Truth = field(default_factory=Truth)
    said: list[str] = field(default_factory=list)
    scheduler: Scheduler = field(init=False)
    _started: set[str] = field(default_factory=set)
    _now_ms: int = 0

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self.settings)
        for event in self.events:
            self._feed(event)

    def waiting(self) -> list[str]:
        """Jobs that have a Reason now."""
        return [job_id for job_id in self.truth.jobs if self.scheduler.reason_for(job_id) is not None]

    def check(self, job_id: str) -> None:
        """Supply what the Reasons of a job name until it starts.

        Raises:
            AssertionError: it did not start, or it started before anything was supplied.
        """
        self._started.clear()
        first = self.scheduler.reason_for(job_id)
        assert first is not None, f"{job_id} has no reason"
        if first.code is Reason.FAIR_SHARE:
            self._check_share(job_id, first)
        for other in self.waiting():
            if other != job_id:
                self._feed(JobHeld(self._now_ms, other))
        if job_id in self._started:
            assert first.code in ORDER, f"{job_id} said {first.code}, and started when the others were held"
            return
        for _ in range(MOST_SUPPLIES * len(self.truth.jobs[job_id].parts)):
            reason = self.scheduler.reason_for(job_id)
            assert reason is not None, f"{job_id} neither waits nor started"
            self.said.append(reason.message)
            self._supply(job_id, reason)
            if job_id in self._started:
                return
        raise AssertionError(f"{job_id} was given all it named and did not start: {self.said}")

    def _check_share(self, job_id: str, reason: PendingReason) -> None:
        """Jobs of other queues wait, large ones of its own hold what is said; its turn comes when it is said to.

        Raises:
            AssertionError: any of that is not so.
        """
        jobs, numbers = self.truth.jobs, reason.numbers
        job = jobs[job_id]
        assert {jobs[other].queue for other in self.waiting()} - {job.queue}, "nobody of another queue waits"
        held = [
            grants for (other, _), grants in self.truth.holds.items()
            if jobs[other].queue == job.queue and jobs[other].n_cards >= self.scheduler.state.big_from
        ]  # fmt: skip
        assert sum(grant.compute_milli for grants in held for grant in grants) == numbers["held_milli"]
        assert numbers["owed_milli_ms"] > 0
        if numbers["wait_ms"] < 0:
            assert numbers["held_milli"] >= numbers["share_milli"]
            return
        for early_ms in (1, 0):
            later = ReasonChecker(self.events, self.settings)
            commands = later.scheduler.step(Tick(self._now_ms, 0))  # what its share is now counts from now on
            now = later.scheduler.reason_for(job_id)
            if (
                commands
                or now is None
                or now.numbers.get("wait_ms", -1) < early_ms
                or now.code is not Reason.FAIR_SHARE
            ):
                return
            commands = later.scheduler.step(Tick(self._now_ms + now.numbers["wait_ms"] - early_ms, 0))
            now = later.scheduler.reason_for(job_id)
            if not commands:  # nothing changed but the time
                assert now is not None
                assert (now.code is Reason.FAIR_SHARE) == bool(early_ms), f"{early_ms}: {now}"

    def _feed(self, event: Event) -> None:
        self._now_ms = max(self._now_ms, event.at_ms)
        self.truth.note(event)
        self._book(self.scheduler.step(event))

    def _book(self, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, Start):
                self._started.add(command.job_id)
                self.truth.holds[command.job_id, command.member] = command.grants

    def _supply(self, job_id: str, reason: PendingReason) -> None:
        numbers = reason.numbers
        job = _of_role(self.truth.jobs[job_id], numbers.get("role", 0))
        match reason.code:
            case Reason.HELD:
                self._feed(JobReleased(self._now_ms, job_id))
            case Reason.UNKNOWN_QUEUE:
                found = re.search(r"Queue (\S+) does not exist", reason.message)
                assert found
                queue = self.truth.queues[next(iter(self.truth.queues))]
                self._feed(QueuePut(self._now_ms, replace(queue, name=found[1], parent="", limit_milli=-1)))
            case Reason.QUEUE_LIMIT | Reason.USER_LIMIT:
                self._raise_limit(job, reason)
            case Reason.NO_DEVICES | Reason.NO_SUCH_DEVICE:
                self._new_nodes(job, job.min_member)
            case Reason.TOO_LARGE | Reason.GANG_INCOMPLETE | Reason.TOPOLOGY:
                self._new_nodes(job, numbers["missing_members"], numbers.get("group", -1))
            case Reason.NOT_ENOUGH_CPU | Reason.NOT_ENOUGH_RAM:
                self._more_host(numbers)
            case Reason.NOT_ENOUGH_DEVICES:
                self._more_host(numbers, job, numbers["missing_devices"])
            case Reason.FRAGMENTED | Reason.NOT_ENOUGH_COMPUTE | Reason.NOT_ENOUGH_MEMORY:
                if "missing_devices" in numbers:
                    self._more_host(numbers, job, numbers["missing_devices"])
                else:
                    self._more_on_card(job, numbers)
            case Reason.FILTERED:
                named = re.search(r"filters? (.+?) keeps? ", reason.message)
                assert named
                without, commands = self._without(tuple(named[1].split(" and ")), job_id)
                if "taken out" in reason.message:
                    self.scheduler = without
                    self._book(commands)
                else:
                    self._new_nodes(job, numbers["missing_members"], n_bytes=self._largest_card())
            case Reason.FAIR_SHARE:  # those that do not say that they wait, since they run, and would grow
                for other in [name for name, one in self.truth.jobs.items() if one.queue != job.queue]:
                    self._feed(JobCancelled(self._now_ms, other))
            case Reason.RESERVED:
                found = re.search(r"held for job ([^\s,]+)", reason.message)
                assert found
                self._feed(JobCancelled(self._now_ms, found[1]))
            case _:
                raise AssertionError(f"{job_id}: nothing to supply for {reason.code}: {reason.message}")

    def _without(self, filters: tuple[str, ...], job_id: str) -> tuple[Scheduler, list[Command]]:
        """The pool started anew without these filters, and what it then commands.

        Raises:
            AssertionError: filters that were not named keep it too.
        """
        left = tuple(name for name in self.settings.filters if name not in filters)
        without, commands = Scheduler(replace(self.settings, filters=left)), []
        held: dict[str, list[Grant]] = {}
        for (other, _), grants in self.truth.holds.items():
            held.setdefault(other, []).extend(grants)
        now_ms, jobs = self._now_ms, self.truth.jobs
        events: tuple[Event, ...] = (
            *(QueuePut(now_ms, queue) for queue in self.truth.queues.values()),
            *(GrantsFound(now_ms, jobs[other], tuple(grants)) for other, grants in held.items()),
            *(JobSubmitted(now_ms, replace(jobs[other], held=True)) for other in self.waiting() if other != job_id),
            *(NodePut(now_ms, node) for node in self.truth.nodes.values()),
            *(ForeignUsage(now_ms, uuid, *used) for uuid, used in self.truth.foreign.items()),
            JobSubmitted(now_ms, replace(jobs[job_id], held=False)),
        )
        for event in events:
            commands += without.step(event)
        reason = without.reason_for(job_id)
        assert reason is None or reason.code is not Reason.FILTERED, f"without {filters}: {reason}"
        return without, commands

    def _raise_limit(self, job: Job, reason: PendingReason) -> None:
        missing = reason.numbers["missing_milli"]
        if reason.code is Reason.USER_LIMIT:
            queue = self.truth.queues[job.queue]
            changed = replace(queue, user_limit_milli=queue.user_limit_milli + missing)
        else:
            found = re.match(r"Queue (\S+) holds", reason.message)
            assert found
            queue = self.truth.queues[found[1]]
            of_class = re.search(r" cards of (.+); it asks", reason.message)
            if of_class and "device_class" in reason.numbers:
                terms = queue.terms(of_class[1])
                others = tuple(each for each in queue.classes if each.device_class != of_class[1])
                changed = replace(queue, classes=(*others, replace(terms, limit_milli=terms.limit_milli + missing)))
            else:
                changed = replace(queue, limit_milli=queue.limit_milli + missing)
        self._feed(QueuePut(self._now_ms, changed))

    def _new_nodes(self, job: Job, n_members: int, group: int = -1, n_bytes: int = 0) -> None:
        """Nodes that take one member each, and no more; in the group named, or together in a new one.

        Cards have as much memory as is asked for, but at least ``n_bytes``.
        """
        template = next(iter(self.truth.nodes.values()))
        level = job.required_level or (job.subgroup_level if job.subgroup_size else "")
        places = next((node.topology for node in self.truth.nodes.values() if level in _levels(node)), ())
        if level and group < 0 and places:
            self.truth.n_made += 1
            places = tuple(replace(place, name=f"made{self.truth.n_made}") for place in places)
            n_members = job.min_member
        elif level and places:
            names = list(
                dict.fromkeys(
                    place.name for name in self.truth.row_names for place in self.truth.nodes[name].topology
                    if place.level == level
                )
            )  # fmt: skip
            places = next(
                node.topology for node in self.truth.nodes.values()
                if any(place.level == level and place.name == names[group] for place in node.topology)
            )  # fmt: skip
        for _ in range(n_members):
            self.truth.n_made += 1
            name = f"made{self.truth.n_made}"
            devices = tuple(self._device(job, name, card, n_bytes) for card in range(job.request.n_devices))
            node = replace(
                template, name=name, devices=devices, cpu_milli=job.cpu_milli, ram_bytes=job.ram_bytes, topology=places
            )
            self._feed(NodePut(self._now_ms, node))

    def _more_host(self, numbers: dict[str, int], job: Job | None = None, n_devices: int = 0) -> None:
        """A node gets the CPUs, memory and cards that it lacks."""
        node = self.truth.nodes[self.truth.row_names[numbers["row"]]]
        self.truth.n_made += 1
        more = tuple(self._device(job, f"made{self.truth.n_made}", card) for card in range(n_devices) if job)
        self._feed(
            NodePut(
                self._now_ms,
                replace(
                    node, devices=node.devices + more,
                    cpu_milli=node.cpu_milli + numbers.get("missing_cpu_milli", 0),
                    ram_bytes=node.ram_bytes + numbers.get("missing_ram_bytes", 0),
                ),
            )
        )  # fmt: skip

    def _more_on_card(self, job: Job, numbers: dict[str, int]) -> None:
        """A card gets what it lacks: as if what is used there were so much less (a whole card: everything ends)."""
        node = self.truth.nodes[self.truth.row_names[numbers["row"]]]
        card = node.devices[numbers["column"]].uuid
        if job.request.is_whole:
            for (other, member), grants in list(self.truth.holds.items()):
                if any(grant.device == card for grant in grants):
                    self._feed(MemberFinished(self._now_ms, other, member, 0))
            self._feed(ForeignUsage(self._now_ms, card, self.truth.foreign.get(card, (0, 0))[0], 0))
        memory, milli = self.truth.foreign.get(card, (0, 0))
        if not job.request.is_whole:
            less = ForeignUsage(
                self._now_ms, card, memory - numbers["missing_memory_bytes"], milli - numbers["missing_milli"]
            )
            self._feed(less)
        if numbers.get("missing_cpu_milli") or numbers.get("missing_ram_bytes"):
            self._more_host(numbers)

    def _largest_card(self) -> int:
        return max(card.memory_bytes for node in self.truth.nodes.values() for card in node.devices)

    def _device(self, job: Job | None, node: str, card: int, n_bytes: int = 0) -> Device:
        assert job is not None
        cards = [device for each in self.truth.nodes.values() for device in each.devices]
        any_card = next((card for card in cards if job.request.partition in card.partitions), cards[0])
        partitions = (job.request.partition,) if job.request.partition else ()
        model = job.request.models[0] if job.request.models else any_card.model
        memory = any_card.memory_bytes if partitions else max(job.request.memory_bytes, 2**30, n_bytes)
        return Device(f"{node}/{card}", model, any_card.vendor, card, memory, partitions=partitions)


def _of_role(job: Job, at: int) -> Job:
    """The job as if it had the role alone that a Reason names; of a job that names no roles, the job."""
    if not job.roles:
        return job
    role = job.roles[at]
    return replace(
        job, request=role.request, n_members=role.n_members, min_member=role.min_member, cpu_milli=role.cpu_milli,
        ram_bytes=role.ram_bytes, required_level=role.required_level or job.required_level,
        subgroup_size=role.subgroup_size, subgroup_level=role.subgroup_level, roles=(),
    )  # fmt: skip


def _levels(node: Node) -> set[str]:
    return {place.level for place in node.topology}
