"""One prepared member, as the node remembers it."""

from dataclasses import dataclass
from enum import StrEnum

from flexai.model import Grant

Key = tuple[str, int]
"""``(job_id, member)``."""


class Phase(StrEnum):
    """Where a prepared member stands on this node."""

    PREPARED = "prepared"
    """Its slice is ready; nothing of it runs."""
    STARTING = "starting"
    """It was decided to start it; whether its supervisor took the token is not known yet."""
    RUNNING = "running"
    FINISHED = "finished"
    """Its processes are gone; its slice is still held."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What to start, once.

    Attributes:
        argv: program and arguments.
        cwd: directory to start in.
        env: every variable it gets.
        log_path: file its output goes to.
        time_limit_ms: ended after so long; 0 for no limit.
        idle_timeout_ms: ended when it did not use its cards for so long; 0 for never.
    """

    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    log_path: str
    time_limit_ms: int = 0
    idle_timeout_ms: int = 0


@dataclass(frozen=True, slots=True)
class Tenant:
    """A member that holds a slice here.

    Attributes:
        token: names the one start it may have.
        uid: owner of its processes.
        gid: primary group of the owner.
        cpu_milli: host CPU it is held to, thousandths of a core; 0 for no limit.
        ram_bytes: host memory it is held to; 0 for no limit.
        pid: its supervisor, or for an attached member its first process; None until known.
        start_ticks: start time of ``pid`` as ``/proc`` tells it, so that a reused pid is not mistaken for it.
        attached: started by its owner and attached; otherwise started here under a supervisor.
        exit_code: None when unknown or ended by a signal.
        signal: that ended it; 0 for none.
        cause: for people.
        stopping: why it is being ended; empty when it is not.
        paused_for: why this node froze it by itself; empty when it was asked to, or it is not frozen.
        parked: its device memory is on the host, and its processes are frozen.
        moving: it is being parked or woken; where its memory is nobody knows if the agent ends meanwhile.
        bound_for: what it is being woken on, where that is other cards than those of ``grants``; empty otherwise.
        away: its programs that were parked, by pid, and the cards they left, in its numbering: written down before they
            are moved, so one of them may be on those cards still, or be back.
        idle_timeout_ms: see ``LaunchSpec``.
        over_cap: what becomes of it when it holds more device memory than its cap; empty for the agent's own policy.
    """

    job_id: str
    member: int
    token: str
    uid: int
    gid: int
    grants: tuple[Grant, ...]
    cpu_milli: int = 0
    ram_bytes: int = 0
    phase: Phase = Phase.PREPARED
    pid: int | None = None
    start_ticks: int = 0
    attached: bool = False
    exit_code: int | None = None
    signal: int = 0
    cause: str = ""
    stopping: str = ""
    paused: bool = False
    paused_for: str = ""
    parked: bool = False
    moving: bool = False
    bound_for: tuple[Grant, ...] = ()
    away: tuple[tuple[int, tuple[str, ...]], ...] = ()
    idle_timeout_ms: int = 0
    over_cap: str = ""

    @property
    def key(self) -> Key:
        """Its name on this node."""
        return self.job_id, self.member

    @property
    def seat(self) -> tuple[Grant, ...]:
        """What it may use now: while it is being woken on other cards, those."""
        return self.bound_for or self.grants

    @property
    def name(self) -> str:
        """Its name in paths and to the arbiter."""
        return f"{self.job_id}.{self.member}"
