"""What the scheduler asks the world to do. Each carries its recorded cause."""

from dataclasses import dataclass

from flexai.model import Grant, JobState, PendingReason


@dataclass(frozen=True, slots=True)
class Start:
    """Prepare these grants and start the member. All members of a gang are commanded in one step.

    ``node`` says where a member without a card runs; of others their grants do.
    """

    job_id: str
    member: int
    grants: tuple[Grant, ...]
    cause: str
    node: str = ""


@dataclass(frozen=True, slots=True)
class Evict:
    """Stop a running member: ask it to checkpoint and end, and after ``grace_ms`` make it.

    ``requeue`` keeps the job's place in its queue; otherwise it ends as cancelled. ``claimant`` is the job that its
    place is booked for, if it is stopped for one.
    """

    job_id: str
    member: int
    grace_ms: int
    requeue: bool
    cause: str
    claimant: str = ""


@dataclass(frozen=True, slots=True)
class Resize:
    """Change a running member's shares in place (never its memory)."""

    job_id: str
    member: int
    grants: tuple[Grant, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Weigh:
    """Change what a running member, which borrows, weighs beside others that borrow on its card.

    ``grants`` are what it holds, with the weight in them and nothing else changed.
    """

    job_id: str
    member: int
    grants: tuple[Grant, ...]
    cause: str


@dataclass(frozen=True, slots=True)
class Park:
    """Move the device memory of a running member to the host; ``MemberParked`` answers, and its place is free.

    ``claimant`` is the job that the place is booked for, ``host_bytes`` the host memory that is booked for it.
    """

    job_id: str
    member: int
    cause: str
    claimant: str = ""
    host_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Wake:
    """Move it back to the place that is held for it again; ``MemberWoken`` answers.

    ``grants`` are what it holds if that is on other cards than those that it left; else empty.
    """

    job_id: str
    member: int
    cause: str
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Book:
    """A place is booked for a waiting job, or none any more; there is nothing to do but to remember it.

    Its members will hold ``grants``, those without a card be on the nodes ``hosts``, once the members ``claimed`` (job,
    member), which are being stopped or parked, are gone. A new scheduler is told so by ``PlaceBooked``.
    """

    job_id: str
    grants: tuple[Grant, ...] = ()
    hosts: tuple[tuple[int, str], ...] = ()
    claimed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class NoteAdvance:
    """What a queue's large jobs had beyond its share is to be remembered; the fields are those of ``policy.advance``.

    Told whenever that goes on at another rate: until then it follows from this. A new scheduler is told by
    ``AdvanceTold``.
    """

    queue: str
    resource: str
    share_milli: int
    at_ms: int
    held_milli: int
    owed: int
    most_saved: int


@dataclass(frozen=True, slots=True)
class SetJobState:
    """A job's visible state changed; the store and the watchers want to know."""

    job_id: str
    state: JobState
    cause: str
    reason: PendingReason | None = None


Command = Start | Evict | Resize | Weigh | Park | Wake | Book | NoteAdvance | SetJobState
