"""The pool's event log: scheduler events to (kind, JSON) and back, and the small values kept beside it.

One generic codec over the frozen dataclasses of ``model`` and ``scheduling.events``: a field added there with a default
reads old rows as they were written. Renaming or removing a field needs a migration of the store.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache, lru_cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from flexai.model import Grant, Job, MemberState, Node, Queue, Residence
from flexai.scheduling import SchedulerSettings
from flexai.scheduling.events import Event, JobSubmitted
from flexai.wire.errors import BadInput


@dataclass(frozen=True, slots=True)
class Stop:
    """A member is being ended: asked, and after ``grace_ms`` made to. Its place is booked for ``claimant``, if any."""

    grace_ms: int
    requeue: bool
    cause: str
    claimant: str = ""


@dataclass(frozen=True, slots=True)
class Booked:
    """A place that the scheduler booked for a job that waits (``commands.Book``), in entry ``seq`` of the log."""

    seq: int
    grants: tuple[Grant, ...] = ()
    hosts: tuple[tuple[int, str], ...] = ()
    claimed: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """What the pool knows of one member of a job.

    Attributes:
        state: where it stands.
        run: how often it was started; names the start token.
        grants: what it holds of cards, from the decision to start it until its processes are gone; one without a card
            holds none.
        exit_code: of its last run.
        client_exit: exit code that the owner of a ``run`` reported, before its process tree was gone.
        stop: set while it is being ended.
        paused: frozen by its user.
        parked: its user has it in host memory until further notice.
        residence: where its device memory is; in host memory it holds nothing of its cards.
        node: where one without a card was placed.
        started_at_ms: when its process was seen running.
        claimant: the job that it was parked for, and that its place is booked for while it moves to host memory.
        left: what it had, while it is being woken on other cards.
        away_at_ms: since when it is in host memory.
        host_bytes: booked there for its device memory, since it was told to leave its cards; None where nothing is.
        booked: of the first member, while its job waits: the place of all members that is booked for it.
    """

    state: MemberState = MemberState.WAITING
    run: int = 0
    grants: tuple[Grant, ...] = ()
    exit_code: int | None = None
    client_exit: int | None = None
    stop: Stop | None = None
    paused: bool = False
    parked: bool = False
    started_at_ms: int | None = None
    residence: Residence = Residence.ON_CARD
    node: str = ""
    claimant: str = ""
    left: tuple[Grant, ...] = ()
    away_at_ms: int | None = None
    host_bytes: int | None = None
    booked: Booked | None = None

    @property
    def is_placed(self) -> bool:
        """Whether it has its place on a node, from the decision to start it until its processes are gone."""
        return self.state in {MemberState.STARTING, MemberState.RUNNING}

    @property
    def is_parked(self) -> bool:
        """Whether its device memory is to be in host memory, whoever wanted that."""
        return self.residence in {Residence.LEAVING, Residence.IN_HOST}

    @property
    def on_card(self) -> tuple[Grant, ...]:
        """What it holds of its cards now."""
        return () if self.residence is Residence.IN_HOST else self.grants


@dataclass(frozen=True, slots=True)
class ClientFinished:
    """The owner of a ``run`` says how its command ended; its process tree may still be there."""

    at_ms: int
    job_id: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """The user of a running job froze it, or let it go on."""

    at_ms: int
    job_id: str
    paused: bool


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The pool ends a running job: its limit of time was reached, or its caller left."""

    at_ms: int
    job_id: str
    grace_ms: int
    cause: str


@dataclass(frozen=True, slots=True)
class PoolStarted:
    """A pool process began to decide, by these settings.

    Attributes:
        applied_seq: the last entry of the log whose decisions were durable; those of later ones are its own.
        last_seq: the last entry there was; what was submitted until then is among ``told``.
        told: what its new scheduler was told of what went before, as :mod:`flexai.wire.retold` writes it.
    """

    at_ms: int
    scheduler: SchedulerSettings
    applied_seq: int = 0
    last_seq: int = 0
    told: tuple[tuple[str, str], ...] = ()


PoolEvent = ClientFinished | PauseAsked | StopAsked | PoolStarted
"""What happens without the scheduler having to decide anything."""

LogEvent = Event | PoolEvent

_EVENT_TYPES: dict[str, type] = {kind.__name__: kind for kind in get_args(LogEvent)}


def encode_event(event: LogEvent) -> tuple[str, str]:
    """An event to its kind and its JSON text."""
    if type(event) is JobSubmitted:  # the commonest by far, and its job's text is at hand
        return "JobSubmitted", f'{{"at_ms":{event.at_ms},"job":{encode_job(event.job)}}}'
    return type(event).__name__, dumps(_plain(event))


def decode_event(kind: str, text: str) -> LogEvent:
    """Inverse of :func:`encode_event`.

    Raises:
        BadInput: an unknown kind, or fields that do not fit it.
    """
    event_type = _EVENT_TYPES.get(kind)
    if event_type is None:
        raise BadInput("event log", kind, "is an unknown kind of event", "It was written by a newer release; upgrade")
    event: LogEvent = _decode(event_type, text)
    return event


def encode_value(value: Queue | Node) -> str:
    """A value of the model to JSON text."""
    return dumps(_plain(value))


@lru_cache(maxsize=1024)
def encode_members(members: tuple[Member, ...]) -> str:
    """The members of a job to JSON text; most of those that wait are alike."""
    return dumps(_plain(members))


@lru_cache(maxsize=4096)
def encode_job(job: Job) -> str:
    """A job to JSON text; remembered, since it is written with every change of where the job stands."""
    return dumps(_plain(job))


def decode_job(text: str) -> Job:
    """Inverse of :func:`encode_value`; raises BadInput."""
    job: Job = _decode(Job, text)
    return job


def decode_queue_row(text: str) -> Queue:
    """Inverse of :func:`encode_value`; raises BadInput."""
    queue: Queue = _decode(Queue, text)
    return queue


def decode_members(text: str) -> tuple[Member, ...]:
    """Inverse of :func:`encode_value`; raises BadInput."""
    members: tuple[Member, ...] = _decode(tuple[Member, ...], text)
    return members


def node_from_plain(plain: Any, thing: str) -> Node:
    """A node out of an already parsed JSON object.

    Raises:
        BadInput: it lacks a field or has one of the wrong type.
    """
    try:
        node: Node = _decoder(Node)(plain)
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(thing, str(plain)[:80], f"is not a node ({error!r})", "Use an agent of this release") from None
    return node


def to_plain(value: Any) -> Any:
    """A value of the model as parsed JSON: dataclasses become objects, tuples lists."""
    return _plain(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)


def dumps(plain: Any) -> str:
    """Compact JSON, ASCII only, so that any text of the outside world fits a database column."""
    return _ENCODER.encode(plain)


def _decode(kind: Any, text: str) -> Any:
    try:
        return _decoder(kind)(json.loads(text))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise BadInput(
            f"stored {name}", text[:80], f"cannot be read ({error!r})", "The database is damaged; restore a backup"
        ) from None


def _plain(value: Any) -> Any:
    kind: Any = type(value)
    if kind in _SCALARS:
        return value
    if kind in (tuple, list):
        return [_plain(item) for item in value]
    names = _names(kind)
    return value if names is None else {name: _plain(getattr(value, name)) for name in names}


_SCALARS = frozenset({str, int, float, bool, type(None), dict})


@cache
def _names(kind: Any) -> tuple[str, ...] | None:
    """Fields of a dataclass; None for what is written as it is."""
    return tuple(field.name for field in fields(kind)) if is_dataclass(kind) else None


@cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    """A function from parsed JSON to a value of ``kind``, built once per type."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = [_decoder(arg) for arg in get_args(kind) if arg is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"only optional unions are stored, not {kind}")
        return lambda plain: None if plain is None else inner[0](plain)
    if origin is tuple:
        arguments = get_args(kind)
        if arguments[-1] is Ellipsis:
            item = _decoder(arguments[0])
            return lambda plain: tuple([item(part) for part in _checked(plain, list)])
        parts = [_decoder(argument) for argument in arguments]
        return lambda plain: tuple([part(p) for part, p in zip(parts, _checked(plain, list), strict=True)])
    if origin is dict:
        return lambda plain: dict(_checked(plain, dict))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind
    if is_dataclass(kind):
        return _record_decoder(kind)
    return lambda plain: _checked(plain, kind)


def _record_decoder(kind: Any) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    decoders = {field.name: _decoder(hints[field.name]) for field in fields(kind)}
    required = {f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING}

    def decode(plain: Any) -> Any:
        known = {name: decoders[name](plain[name]) for name in _checked(plain, dict) if name in decoders}
        if missing := required - known.keys():
            raise KeyError(*sorted(missing))
        return kind(**known)

    return decode


def _checked(plain: Any, kind: Any) -> Any:
    if type(plain) is not kind:
        raise TypeError(f"{plain!r} is not {kind.__name__}")
    return plain
