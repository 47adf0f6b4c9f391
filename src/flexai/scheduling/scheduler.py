"""``Scheduler``: one event in, commands out.

The order of actions in a step: book the event; start what can start (``placing``); evict for who is owed
(``evicting``); gather scattered free cards (``consolidating``); start best-effort work on idle compute
(``lending``) and say what those who borrow weigh beside each other (``weighing``).
Unknown, duplicate and late events change nothing: an event says what is, and what is already so is not news.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from flexai.scheduling import (
    booking,
    cards,
    consolidating,
    due,
    evicting,
    jobs,
    lending,
    members,
    moved,
    parking,
    placing,
    reasons,
    resizing,
    restart,
    weighing,
    why_not,
)
from flexai.scheduling.events import (
    AdvanceTold,
    DeviceChanged,
    Event,
    ForeignUsage,
    GrantsFound,
    JobCancelled,
    JobHeld,
    JobMembersAsked,
    JobReleased,
    JobResizeAsked,
    JobSubmitted,
    MemberFinished,
    MemberParked,
    MemberStarted,
    MemberWoken,
    MemoryMeasured,
    NodeGone,
    NodePut,
    ParkAsked,
    PlaceBooked,
    QueueGone,
    QueuePut,
    Tick,
    UsageMeasured,
)
from flexai.scheduling.settings import SchedulerSettings
from flexai.scheduling.state import State

if TYPE_CHECKING:
    from flexai.model import PendingReason
    from flexai.policy.borrowing import Due
    from flexai.scheduling.commands import Command
    from flexai.scheduling.why_not import Blocker


_NEWS_OF_BORROWERS = (
    UsageMeasured | Tick | JobSubmitted | MemberFinished | MemberParked | MemberWoken | QueuePut | QueueGone
)


class Scheduler:
    """Hi Scheduler. ``step`` is all there is to it; ``reason_for`` reads."""

    def __init__(self, settings: SchedulerSettings | None = None, *, check: bool = False) -> None:
        """``check`` asserts the invariants after each step (tests)."""
        self._state = State(settings or SchedulerSettings())
        self._check = check

    @property
    def state(self) -> State:
        """To look at, not to change."""
        return self._state

    @property
    def n_waiting(self) -> int:
        """Jobs that could start if there were room (held and dependent ones apart)."""
        return sum(len(line.jobs) for line in self._state.lines.values())

    def step(self, event: Event) -> list[Command]:
        """Take one event; answer what to do."""
        state = self._state
        state.now_ms = max(state.now_ms, event.at_ms)
        state.out = []
        self._book(event)
        placing.run_round(state)
        if isinstance(event, Tick):
            left = evicting.run(state, list(state.lines.values()), event.steps)
            consolidating.run(state, left)
        elif isinstance(event, JobSubmitted) and (record := state.jobs.get(event.job.id)) is not None:
            line = state.lines.get(record.line) if record.line is not None else None
            evicting.run(state, [line] if line is not None else [], evicting.STEPS)
        if isinstance(event, UsageMeasured | Tick | JobSubmitted | MemberFinished):
            lending.run(state)
        if isinstance(event, _NEWS_OF_BORROWERS):
            weighing.run(state)
        if state.booked or state.noted:
            booking.note(state)
        if state.advances:
            due.note_advances(state)
        state.compact()
        if self._check:
            state.books.check()
        return state.out

    def reason_for(self, job_id: str) -> PendingReason | None:
        """Why a job has not started; None if it has, or is not known."""
        return reasons.reason_for(self._state, job_id)

    def why_not_park(self, job_id: str) -> str:
        """Why its user cannot have a job moved to host memory now, as the end of a sentence; empty if he can."""
        return jobs.why_not_park(self._state, job_id)

    def why_not_resize(self, event: JobResizeAsked) -> PendingReason | None:
        """Why the running members of a job cannot have other shares now; None if they can, or none runs."""
        return resizing.why_not(self._state, event)

    def due_of(self, job_id: str) -> dict[int, tuple[Due, str]]:
        """What members of a job that borrow beside others are due of what is idle, and why, by member."""
        record = self._state.jobs.get(job_id)
        if record is None:
            return {}
        found = {index: due for (job, index), due in weighing.dues_of(self._state).items() if job == job_id}
        return {index: (due, weighing.cause_of(record.job.queue, due)) for index, due in found.items()}

    def what_must_end(self, job_id: str) -> tuple[Blocker, ...]:
        """Jobs whose end would let a waiting one start, and why each is not evicted for it."""
        return why_not.what_must_end(self._state, job_id)

    def _book(self, event: Event) -> None:
        state = self._state
        state.settling = isinstance(event, NodePut | NodeGone | DeviceChanged | ForeignUsage)
        if state.settling:
            state.reservation = None
        is_news_of_places = state.settling or isinstance(event, GrantsFound | PlaceBooked)
        before = booking.drop_all(state) if is_news_of_places else {}
        match event:
            case NodePut():
                cards.put_node(state, event)
            case NodeGone():
                cards.drop_node(state, event.name)
            case DeviceChanged():
                cards.change_device(state, event)
            case ForeignUsage():
                state.books.set_foreign(event.uuid, event.compute_milli, event.memory_bytes)
            case QueuePut():
                state.queues.put(event.queue)
                state.ready.update(state.deferred)
                state.deferred.clear()
            case QueueGone():
                state.queues.drop(event.name)
            case JobSubmitted():
                jobs.submit(state, event.job)
            case JobHeld() | JobReleased():
                jobs.hold(state, event.job_id, held=isinstance(event, JobHeld))
            case JobCancelled():
                jobs.cancel(state, event.job_id)
            case JobResizeAsked() | JobMembersAsked():
                resizing.asked(state, event)
            case ParkAsked():
                jobs.park(state, event)
            case MemberStarted():
                members.started(state, event)
            case MemberFinished():
                members.finished(state, event)
            case MemberParked():
                moved.parked(state, event)
            case MemberWoken():
                moved.woken(state, event)
            case GrantsFound() | PlaceBooked() | AdvanceTold():
                restart.told(state, event)
            case UsageMeasured() | MemoryMeasured():
                _measured(state, event)
            case Tick():
                jobs.age(state)
            case _:
                assert_never(event)
        if is_news_of_places and state.claims:
            booking.renew(state, before | restart.places_back(state))


def _measured(state: State, event: UsageMeasured | MemoryMeasured) -> None:
    if isinstance(event, UsageMeasured):
        state.measured_milli = {(job, member, uuid): milli for job, member, uuid, milli in event.used}
    else:
        parking.measured(state, event)
