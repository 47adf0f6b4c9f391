"""All that the scheduler knows, and the few ways in which it changes. No decisions here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flexai.cluster import ALL_CARDS, Books, Evictable, QueueTree, Shape
from flexai.model import Grant, JobState, MemberState, PartitionProfile, Residence, SliceRequest
from flexai.policy.filters import FILTERS
from flexai.policy.fragmentation import Mix
from flexai.policy.move_cost import MoveCosts
from flexai.policy.placement import Placement
from flexai.policy.run_time import RunTimes
from flexai.policy.scores import SCORERS
from flexai.scheduling.commands import Evict, SetJobState, Start
from flexai.scheduling.records import JobRecord, Line, LineKey, MemberRecord, line_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flexai.cluster import Hold
    from flexai.model import Job, Role
    from flexai.policy.advance import Advance
    from flexai.policy.gang import Need
    from flexai.policy.reservation import Reservation
    from flexai.scheduling.commands import Command
    from flexai.scheduling.events import GrantsFound, PlaceBooked
    from flexai.scheduling.places import Booking
    from flexai.scheduling.settings import SchedulerSettings

COMPACT_AFTER = 1_000_000
"""Entries of the books' change log after which it is cut; caches then score afresh."""


@dataclass(slots=True)
class State:
    """Books, queues, jobs, lines, and the commands of this step."""

    settings: SchedulerSettings
    books: Books = field(default_factory=Books)
    queues: QueueTree = field(default_factory=QueueTree)
    evictable_holds: Evictable = field(default_factory=Evictable)
    mix: Mix = field(default_factory=Mix)
    placement: Placement = field(init=False)
    run_times: RunTimes = field(default_factory=RunTimes)
    move_costs: MoveCosts = field(default_factory=MoveCosts)
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    lines: dict[LineKey, Line] = field(default_factory=dict)
    by_need: dict[Need, dict[LineKey, None]] = field(default_factory=dict)
    blocked: dict[Need, None] = field(default_factory=dict)
    ready: dict[LineKey, None] = field(default_factory=dict)
    deferred: dict[LineKey, None] = field(default_factory=dict)
    big: dict[str, None] = field(default_factory=dict)
    running: dict[str, None] = field(default_factory=dict)
    evictable: dict[str, dict[int, int]] = field(default_factory=dict)
    reservation: Reservation | None = None
    refused: dict[Need, int] = field(default_factory=dict)
    waiting_milli: dict[tuple[str, str], int] = field(default_factory=dict)
    dependants: dict[str, list[str]] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    found: dict[str, GrantsFound] = field(default_factory=dict)
    found_on: dict[str, dict[str, None]] = field(default_factory=dict)
    big_from: int = 2
    settling: bool = False
    measured_milli: dict[tuple[str, int, str], int] = field(default_factory=dict)
    lent: dict[tuple[str, int], None] = field(default_factory=dict)
    stopping: dict[tuple[str, int], None] = field(default_factory=dict)
    claims: dict[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    booked: dict[str, Booking] = field(default_factory=dict)
    noted: dict[str, tuple[Mapping[int, Hold], tuple[tuple[str, int], ...]]] = field(default_factory=dict)
    places_told: dict[str, PlaceBooked] = field(default_factory=dict)
    parked: dict[str, int] = field(default_factory=dict)
    advances: dict[tuple[str, str], Advance] = field(default_factory=dict)
    advances_noted: dict[tuple[str, str], Advance] = field(default_factory=dict)
    now_ms: int = 0
    out: list[Command] = field(default_factory=list)
    _shapes: dict[Shape, Shape] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.queues.half_life_ms = self.settings.half_life_ms
        self.books.filters = tuple(FILTERS[name] for name in self.settings.filters)
        self.placement = Placement(self.books, self.mix, SCORERS[self.settings.scorer])

    def shapes_of(self, job: Job) -> tuple[Shape, ...]:
        """What members of each of the job's roles ask for, with the models known so far.

        Equal ones are one: shapes are keys everywhere, and a key that is the same is found faster than an equal one.
        """
        return tuple([self._shapes.setdefault(shape, shape) for shape in map(self._shape_of, job.roles or (job,))])

    def _shape_of(self, role: Role | Job) -> Shape:
        ask = role.request
        mask = self.books.model_mask(ask.models)
        if ask.partition and ask.n_devices:
            return self._partition_shape(role, ask, mask)
        return Shape(
            role.cpu_milli, role.ram_bytes, ask.n_devices, ask.compute_milli if ask.n_devices else 0, ask.memory_bytes,
            ask.is_whole and ask.n_devices > 0, mask,
        )  # fmt: skip

    def _partition_shape(self, role: Role | Job, ask: SliceRequest, mask: int) -> Shape:
        """A hardware partition: as large as the profile is on the first model allowed that has it, and on no other."""
        known = {
            model: profile
            for model, profile in sorted(self.books.profiles.get(ask.partition, {}).items())
            if mask == -1 or (mask >> model) & 1
        }
        if not known:
            unknown = PartitionProfile(ask.partition, ask.compute_milli, ask.memory_bytes, 1, ())
            return Shape(role.cpu_milli, role.ram_bytes, ask.n_devices, 1, 1, False, 0, unknown)
        profile = next(iter(known.values()))
        models = sum(1 << model for model, each in known.items() if each == profile)
        return Shape(
            role.cpu_milli, role.ram_bytes, ask.n_devices, profile.compute_milli, profile.memory_bytes, False, models,
            profile,
        )  # fmt: skip

    def shape_now(
        self, record: JobRecord, shape: Shape | None = None, n: int = 0, planned: Mapping[str, int] | None = None
    ) -> Shape:
        """A shape of the job without the classes of cards of which its queue, or one above it, would exceed a limit.

        ``n`` members of it more (all that are needed, if not given) beside what is ``planned`` already, by class.
        """
        shape = shape or record.shape
        if not self.queues.limited or not shape.n_devices:
            return shape
        milli = n * shape.asked_milli if n else record.needed_milli
        full = self.queues.full_classes(record.job.queue, milli, planned)
        bits = sum(1 << self.books.models[name] for name in full if name in self.books.models)
        if not bits:
            return shape
        every = (1 << len(self.books.models)) - 1 if shape.models == -1 else shape.models
        return replace(shape, models=every & ~bits) if every & bits else shape

    def is_limited(self, record: JobRecord) -> bool:
        """Whether a limit of its queue keeps the job from some class of cards now."""
        return any(self.shape_now(record, shape) is not shape for shape in record.shapes)

    def grace_ms(self, job: Job) -> int:
        """Time that a job gets to save its work once it is asked to end."""
        return job.grace_ms or self.settings.grace_ms

    def wait(self, record: JobRecord) -> None:
        """Put a job into its line."""
        if record.line is not None:
            return
        key = record.line = line_key(record)
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(key)
            self.by_need.setdefault(key.need, {})[key] = None
        line.add(record)
        self._count_waiting(key.queue, key.shapes, key.asked_milli)
        if key.need not in self.blocked:
            self.ready[key] = None

    def leave(self, record: JobRecord) -> None:
        """Take a job out of its line, if it stands in one."""
        key, record.line = record.line, None
        self.big.pop(record.job.id, None)
        if key is None:
            return
        line = self.lines[key]
        line.remove(record)
        self._count_waiting(key.queue, key.shapes, -key.asked_milli)
        if not line.jobs:
            del self.lines[key]
            for index in (self.ready, self.deferred):
                index.pop(key, None)
            alike = self.by_need[key.need]
            del alike[key]
            if not alike:
                del self.by_need[key.need]
                self.blocked.pop(key.need, None)

    def class_of(self, shapes: Sequence[Shape]) -> str:
        """The one class of cards that these shapes may use, if queue terms could name it; else ``ALL_CARDS``."""
        if len(shapes) == 1:  # of nearly every job, several times a step
            return self.books.only_model(shapes[0].models) if shapes[0].models > 0 else ALL_CARDS
        classes = {
            self.books.only_model(shape.models) if shape.models > 0 else ALL_CARDS
            for shape in shapes
            if shape.n_devices
        }
        return classes.pop() if len(classes) == 1 else ALL_CARDS

    def _count_waiting(self, queue: str, shapes: Sequence[Shape], milli: int) -> None:
        """Compute that jobs of a queue wait for, in all and on cards of the one class that they may use."""
        waiting, device_class = self.waiting_milli, self.class_of(shapes)
        at = queue, ALL_CARDS
        waiting[at] = waiting.get(at, 0) + milli
        if device_class != ALL_CARDS:
            at = queue, device_class
            waiting[at] = waiting.get(at, 0) + milli

    def start(self, record: JobRecord, member: int, hold: Hold, cause: str, *, lent: bool = False) -> None:
        """Book and command the start of one member; the hold is in the books already."""
        grants = self.grants_of(record, member, hold)
        one = record.members[member]
        assert one.hold is None, f"{record.job.id}.{member} holds something already"
        one.state, one.grants, one.lent = MemberState.STARTING, grants, lent
        one.started_at_ms = self.now_ms
        if lent:
            self.lent[record.job.id, member] = None
        self.hold(record, one, hold)
        node = "" if grants else self.books.names[hold.row]
        self.out.append(Start(record.job.id, member, grants, cause, node))

    def hold(self, record: JobRecord, member: MemberRecord, hold: Hold) -> None:
        """Note what a member holds from now on; it is in the books already."""
        member.hold = hold
        self.evictable_holds.add(self.books, record.job.id, hold, evictable=record.job.preemptible or member.lent)
        member.by_class = self.books.by_class(hold)
        self.queues.add(record.job.queue, record.job.user, member.by_class, self.now_ms)
        if record.counts_in is not None:
            self.advances[record.counts_in].hold(sum(member.by_class.values()), self.now_ms)

    def unhold(self, record: JobRecord, member: MemberRecord) -> Hold | None:
        """Note that it holds nothing any more; the books are the caller's."""
        hold, member.hold = member.hold, None
        if hold is not None:
            self.evictable_holds.remove(record.job.id, hold, evictable=record.job.preemptible or member.lent)
            given = {each: -milli for each, milli in member.by_class.items()}
            self.queues.add(record.job.queue, record.job.user, given, self.now_ms)
            if record.counts_in is not None:
                self.advances[record.counts_in].hold(sum(given.values()), self.now_ms)
        return hold

    def swap(self, record: JobRecord, member: MemberRecord, hold: Hold) -> None:
        """A member holds something else from now on, here and in the books."""
        assert member.hold is not None
        self.books.give(member.hold)
        self.unhold(record, member)
        self.books.take(hold)
        self.hold(record, member, hold)

    def note_parked(self, record: JobRecord, *, parked: bool) -> None:
        """A job waits in host memory for its place from now on, or no more: its queue asks for that compute."""
        if parked == (record.job.id in self.parked):
            return
        if parked:
            milli = self.parked[record.job.id] = record.home_milli
            self._count_waiting(record.job.queue, record.shapes, milli)
        else:
            self._count_waiting(record.job.queue, record.shapes, -self.parked.pop(record.job.id))

    def grants_of(self, record: JobRecord, member: int, hold: Hold) -> tuple[Grant, ...]:
        """The hold in the words of the model."""
        job, request, milli, cut = record.job.id, record.job.request_of(member), hold.compute_milli, hold.cut
        name, uuids = self.books.names[hold.row], self.books.uuids[hold.row]
        limit_milli = milli if cut else max(request.limit_milli, milli)
        return tuple(
            [
                Grant(
                    job, member, name, uuids[column], milli, limit_milli, memory, request.tenant_class,
                    request.partition if cut else "", _lowest_bit(cut, at) if cut else -1,
                )
                for at, (column, memory) in enumerate(zip(hold.columns, hold.memory_bytes, strict=True))
            ]
        )  # fmt: skip

    def stop(self, record: JobRecord, index: int, cause: str, *, requeue: bool, claimant: str = "") -> None:
        """Command the end of a member, to be queued again or for good; its place is the claimant's, if there is one."""
        member = record.members[index]
        member.evicting, member.requeue, member.stopped_at_ms = True, requeue, self.now_ms
        if member.hold is not None:
            self.stopping[record.job.id, index] = None
        grace_ms = self.grace_ms(record.job)
        self.out.append(Evict(record.job.id, index, grace_ms, requeue=requeue, cause=cause, claimant=claimant))

    def free(self, record: JobRecord, member: MemberRecord) -> None:
        """Take back what a member held."""
        hold = self.unhold(record, member)
        if hold is None:
            return
        self.books.give(hold)
        if self.reservation is not None:
            self.reservation.ended(hold)
        index = next(at for at, one in enumerate(record.members) if one is member)
        self.stopping.pop((record.job.id, index), None)
        if member.lent:
            self.lent.pop((record.job.id, index), None)
        member.grants, member.lent = (), False
        if member.residence is not Residence.ON_CARD:
            member.residence, member.home = Residence.ON_CARD, None
            self.reservation = None
            if not record.is_away:
                self.note_parked(record, parked=False)
                record.kept_away, record.n_refused_wakes, record.why_refused = False, 0, ""

    def set_state(self, record: JobRecord, state: JobState, cause: str) -> None:
        """Change a job's visible state."""
        if record.state is not state:
            record.state = state
            self.out.append(SetJobState(record.job.id, state, cause))

    def note_running(self, record: JobRecord, *, runs: bool) -> None:
        """A job holds cards from now on, or no more."""
        job = record.job
        if runs == (job.id in self.running):
            return
        if runs:
            self.running[job.id] = None
        else:
            del self.running[job.id]
        if job.preemptible:
            counts = self.evictable.setdefault(job.queue, {})
            counts[job.priority] = counts.get(job.priority, 0) + (1 if runs else -1)
            if not counts[job.priority]:
                del counts[job.priority]

    def mark_big(self, record: JobRecord) -> None:
        """Note whether the job is one that gets a reservation at once."""
        if record.n_cards >= self.big_from and record.state is JobState.QUEUED and not record.waits_on:
            self.big[record.job.id] = None

    def compact(self) -> None:
        """Keep the change log bounded."""
        if len(self.books.changed) > COMPACT_AFTER:
            del self.books.changed[:]
            self.placement.forget()


def _lowest_bit(cut: tuple[int, ...], at: int) -> int:
    """The place that a partition begins at."""
    return (cut[at] & -cut[at]).bit_length() - 1
