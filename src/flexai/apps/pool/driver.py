"""Carries out what the book says, through the agent: one member at a time towards what is wanted of it.

Nothing is done on a command; after every change, and whenever the agent comes back, a member is *looked at*: what the
book wants of it against what the agent is known to hold. Every operation of the agent is idempotent, and a start has
its token, so looking twice does no harm and forgetting nothing matters.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from flexai.adapters.agent_client import AgentAway, AgentRefused
from flexai.apps.pool.book import JobRecord, MemberKey
from flexai.apps.pool.core import Core
from flexai.apps.pool.transitions import Outcome
from flexai.model import Grant, MemberState, Residence
from flexai.scheduling.events import MemberFinished, MemberParked, MemberStarted, MemberWoken
from flexai.wire.api import Submission
from flexai.wire.store import Member, PauseAsked, Stop, to_plain

log = logging.getLogger("flexai.pool.driver")

EXIT_CANNOT_START = 126
EXIT_LOST = 255
_TERM = 15
_KILL_GRACE_MS = 5_000
_MOVE_WITHIN_S = 600.0
_CLIENT_EXIT_WAIT_S = 1.0
_JOINED = ("LD_PRELOAD", "LD_LIBRARY_PATH")

Call = Callable[..., Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class Held:
    """What the agent holds for one member.

    Attributes:
        token: which start of the member it is.
        state: ``prepared``, ``running`` or ``finished``.
        is_told: ``grants`` are what the agent was told, and not only what it should have been.
        env: variables the member must run with; None until ``prepare`` answered this process.
    """

    token: str
    state: str
    grants: tuple[Grant, ...] = ()
    is_told: bool = True
    env: dict[str, str] | None = None
    cgroup: str | None = None
    pid: int | None = None
    paused: bool = False
    parked: bool = False
    stop: Stop | None = None


@dataclass(slots=True)
class _Work:
    again: bool = False
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Driver:
    """Keeps the agent at what the book wants.

    Attributes:
        call: asks the agent.
        submission: what a user sent, with its environment, by submission number.
        held: what the agent holds, by member.
        on_granted: told when a ``run`` may begin, or anything else of it changed here.
    """

    core: Core
    call: Call
    submission: Callable[[int], Awaitable[Submission]]
    log_path: Callable[[str, int], str]
    on_granted: Callable[[str], None]
    held: dict[MemberKey, Held] = field(default_factory=dict)
    _work: dict[MemberKey, _Work] = field(default_factory=dict)
    _synced: bool = False

    def durable(self, outcome: Outcome) -> None:
        """Effects are durable: see to the members they touch."""
        self.look(outcome.members)

    def look(self, keys: Iterable[MemberKey]) -> None:
        """See to these members soon."""
        if not self._synced:
            return  # whoever connects looks at all of them
        for key in keys:
            work = self._work.get(key)
            if work is not None:
                work.again = True
            else:
                work = self._work[key] = _Work()
                work.task = asyncio.create_task(self._see_to(key, work))

    def agent_lost(self) -> None:
        """Nothing can be done until the agent is back."""
        self._synced = False

    async def synchronize(self, tenants: Iterable[dict[str, Any]]) -> None:
        """Take the agent's list of members for the truth, and see to every member.

        What runs there and is wanted is found again; what is not wanted is ended; what should run and is not there was
        lost.
        """
        self.held = {}
        tenants = list(tenants)
        for tenant in tenants:
            key = str(tenant["job_id"]), int(tenant["member"])
            self.held[key] = Held(str(tenant["token"]), str(tenant["state"]), pid=tenant.get("pid"))
        told = {(str(tenant["job_id"]), int(tenant["member"])): tenant for tenant in tenants}
        for record, number, _ in list(self.core.book.holders()):
            # Looked at anew after each wait: news that comes meanwhile may have changed it.
            member = record.members[number]
            if not member.is_placed:
                continue
            key = record.id, number
            held = self.held.get(key)
            if held is None or held.token != token(record.id, number, member):
                if member.state is MemberState.RUNNING:
                    event = self._finished(record, number, member, EXIT_LOST, "lost while the agent was away")
                    await self.core.post_surely(event)
                continue
            # The agent may not have had the latest; of one that moves it may have the old card's, until its wake.
            held.grants, held.is_told = member.grants, bool(member.left)
            if told[key].get("paused_for") and not member.paused:  # the agent stopped it by itself meanwhile
                await self.core.post_surely(PauseAsked(self.core.clock(), record.id, paused=True), {"by": "the agent"})
                member = record.members[number]
            held.paused = bool(told[key].get("paused", member.paused))
            held.parked = bool(told[key].get("parked", member.is_parked))
            if held.state == "running":
                await self._post_started(key)
            elif held.state == "finished":
                await self.core.post_surely(self._finished(record, number, member, *ending(told[key], member)))
        self._synced = True
        self.look({(record.id, number) for record, number, _ in self.core.book.holders()} | self.held.keys())

    async def agent_event(self, message: dict[str, Any]) -> None:
        """``started`` or ``finished`` of a member."""
        key = str(message["job_id"]), int(message["member"])
        held = self.held.get(key)
        if held is None or held.token != str(message.get("token")):
            return
        if message["event"] == "started":
            held.state, held.pid = "running", message.get("pid")
            await self._post_started(key)
            self.look([key])
            return
        held.state = "finished"
        record, member = self._member(key)
        if record is not None and member is not None and token(record.id, key[1], member) == held.token:
            if record.is_run and message.get("exit_code") is None and member.client_exit is None:
                await self._wait_for_client_exit(key)
                record, member = self._member(key)
            if record is not None and member is not None and member.is_placed:
                await self.core.post_surely(self._finished(record, key[1], member, *ending(message, member)))
        self.look([key])

    async def attach(self, record: JobRecord, pid: int) -> None:
        """The caller of a ``run`` made its child; put it under the grant before it executes.

        Raises:
            AgentAway, AgentRefused: it is not under the grant.
        """
        key = record.id, 0
        await self.call("attach", job_id=record.id, member=0, pid=pid)
        if held := self.held.get(key):
            held.state, held.pid = "running", pid
        await self._post_started(key)

    async def _post_started(self, key: MemberKey) -> None:
        _, member = self._member(key)
        if member is not None and member.state is MemberState.STARTING:
            await self.core.post_surely(MemberStarted(self.core.clock(), *key))

    async def _wait_for_client_exit(self, key: MemberKey) -> None:
        """The process tree of a ``run`` can be gone a moment before its owner says how it ended."""
        deadline = asyncio.get_running_loop().time() + _CLIENT_EXIT_WAIT_S
        while asyncio.get_running_loop().time() < deadline:
            record, member = self._member(key)
            if record is None or member is None or member.client_exit is not None:
                return
            await asyncio.wait([self.core.changed(key[0])], timeout=deadline - asyncio.get_running_loop().time())

    async def _see_to(self, key: MemberKey, work: _Work) -> None:
        try:
            while True:
                work.again = False
                await self._towards(key)
                if not work.again:
                    return
        except AgentAway as error:
            log.info("member %s.%d waits for the agent: %s", *key, error)
        except AgentRefused as error:
            log.warning("member %s.%d: the agent refused: %s", *key, error)
        except Exception:
            log.exception("member %s.%d", *key)
        finally:
            del self._work[key]

    async def _towards(self, key: MemberKey) -> None:
        """Take the member to where the book wants it."""
        record, member = self._member(key)
        held = self.held.get(key)
        if record is None or member is None or not member.is_placed:
            await self._remove(key, held)
            return
        wanted = token(record.id, key[1], member)
        if held is not None and held.token != wanted:
            await self._remove(key, held)
            if key in self.held:
                return  # its end is news that brings us here again
            held = None
        if held is not None and held.state == "finished":
            return
        if held is None or held.state == "prepared":
            if member.stop is not None:
                await self.core.post_surely(self._finished(record, key[1], member, 128 + _TERM, member.stop.cause))
                return
            if record.is_run and member.client_exit is not None:  # its caller gave up before it began
                await self.core.post_surely(self._finished(record, key[1], member, member.client_exit, "exited"))
                return
            await self._begin(record, key, member)
            return
        await self._adjust(key, held, member)

    async def _remove(self, key: MemberKey, held: Held | None) -> None:
        if held is None:
            return
        if held.state == "running":
            await self._ask("signal", key, signal=_TERM, grace_ms=_KILL_GRACE_MS)
            return
        await self._ask("unprepare", key)
        self.held.pop(key, None)

    async def _begin(self, record: JobRecord, key: MemberKey, member: Member) -> None:
        start_token, role = token(record.id, key[1], member), record.job.role_of(key[1])
        try:
            reply = await self._ask(
                "prepare", key, token=start_token, uid=record.uid, gid=record.gid, grants=to_plain(member.grants),
                cpu_milli=role.cpu_milli, ram_bytes=role.ram_bytes,
                over_cap=self._over_cap(record.job.queue),
            )  # fmt: skip
            env = {str(name): str(value) for name, value in reply.get("env", {}).items()} | self._names(record, key[1])
            self.held[key] = held = Held(start_token, "prepared", member.grants, env=env, cgroup=reply.get("cgroup"))
            if record.is_run:
                self.on_granted(record.id)
                return
            submission = await self.submission(record.number)
            runs = submission.what_runs(record.job.role_index(key[1]))
            reply = await self._ask(
                "start", key, token=start_token, argv=list(runs.command), cwd=runs.cwd,
                env=merged(dict(runs.env), env), uid=record.uid, gid=record.gid,
                log_path=self.log_path(record.id, key[1]), time_limit_ms=submission.time_limit_ms,
                idle_timeout_ms=submission.idle_timeout_ms,
            )  # fmt: skip
        except AgentRefused as error:
            log.warning("member %s.%d cannot start: %s", *key, error)
            await self.core.post_surely(
                self._finished(record, key[1], member, EXIT_CANNOT_START, f"cannot start: {error}")
            )
            return
        if held.state == "prepared":  # unless news of its end came before the answer
            held.state, held.pid = "running", reply.get("pid")
        await self._post_started(key)

    async def _adjust(self, key: MemberKey, held: Held, member: Member) -> None:
        if member.stop is not None and held.stop != member.stop:
            if held.paused:
                await self._ask("unpause", key)
            await self._ask("signal", key, signal=_TERM, grace_ms=member.stop.grace_ms)
            held.stop = member.stop
        is_news = held.grants != member.grants or not held.is_told
        if is_news and cards_of(held.grants) == cards_of(member.grants):  # others: at its wake
            await self._ask("resize", key, grants=to_plain(member.grants))
            held.grants, held.is_told = member.grants, True
        if member.stop is None:
            await self._move(key, held, member)
        if held.paused != member.paused and member.stop is None:
            await self._ask("pause" if member.paused else "unpause", key)
            held.paused = member.paused

    async def _move(self, key: MemberKey, held: Held, member: Member) -> None:
        """Park or wake it, as its user or the scheduler has it; the scheduler is told what became of what it said."""
        refused = ""
        if held.parked != member.is_parked:
            more: dict[str, Any] = {}
            if member.is_parked and member.host_bytes is not None:
                more = {"host_bytes": member.host_bytes}
            elif not member.is_parked and member.left:
                more = {"grants": to_plain(member.grants)}
            try:
                await self._ask("park" if member.is_parked else "wake", key, timeout_s=_MOVE_WITHIN_S, **more)
                held.parked, held.grants = member.is_parked, member.grants
            except AgentRefused as error:
                if member.residence not in {Residence.LEAVING, Residence.RETURNING}:
                    raise
                refused = str(error)
        if member.residence is Residence.LEAVING:
            await self.core.post_surely(MemberParked(self.core.clock(), *key, refused))
        elif member.residence is Residence.RETURNING:
            await self.core.post_surely(MemberWoken(self.core.clock(), *key, refused))

    async def _ask(self, op: str, key: MemberKey, **fields: Any) -> dict[str, Any]:
        return await self.call(op, job_id=key[0], member=key[1], **fields)

    def _member(self, key: MemberKey) -> tuple[JobRecord | None, Member | None]:
        record = self.core.book.active.get(key[0])
        if record is None or key[1] >= len(record.members):
            return None, None
        return record, record.members[key[1]]

    def _over_cap(self, queue: str) -> str:
        """What the job's queue, or the nearest above it, says of more device memory than the cap; empty: nothing."""
        queues = self.core.book.queues
        while (found := queues.get(queue)) is not None and not found.over_cap:
            queue = found.parent
        return found.over_cap if found else ""

    def _finished(self, record: JobRecord, number: int, member: Member, exit_code: int, cause: str) -> MemberFinished:
        if member.stop is not None and cause != "lost while the agent was away":
            cause = member.stop.cause
        return MemberFinished(self.core.clock(), record.id, number, exit_code, cause)

    @staticmethod
    def _names(record: JobRecord, number: int) -> dict[str, str]:
        # A job that was evicted before is to go on from what it saved.
        n_restarts = record.members[number].run - 1
        names = {"FLEXAI_JOB_ID": record.id, "FLEXAI_QUEUE": record.job.queue, "FLEXAI_RESTARTS": str(n_restarts)}
        if record.job.n_members > 1:
            names |= {"FLEXAI_MEMBER": str(number), "FLEXAI_MEMBERS": str(record.job.n_members)}
        if record.job.roles:
            at = record.job.role_index(number)
            role = record.job.roles[at]
            first = sum(each.n_members for each in record.job.roles[:at])
            names |= {
                "FLEXAI_ROLE": role.name, "FLEXAI_ROLE_MEMBER": str(number - first),
                "FLEXAI_ROLE_MEMBERS": str(role.n_members),
            }  # fmt: skip
        if record.array_index is not None:
            index = str(record.array_index)
            # The last is the name that Kubernetes gives to the same thing.
            names |= {"FLEXAI_ARRAY_ID": str(record.number), "FLEXAI_ARRAY_INDEX": index, "JOB_COMPLETION_INDEX": index}
        return names


def token(job_id: str, number: int, member: Member) -> str:
    """The name of the member's current start."""
    return f"{job_id}.{number}.{member.run}"


def cards_of(grants: tuple[Grant, ...]) -> list[str]:
    """Their cards, in order."""
    return [grant.device for grant in grants]


def ending(news: dict[str, Any], member: Member) -> tuple[int, str]:
    """(exit code, cause) out of the agent's words, or the owner's for a ``run``."""
    code, cause = news.get("exit_code"), str(news.get("cause") or "exited")
    if news.get("signal"):
        code, cause = 128 + int(news["signal"]), news.get("cause") or f"signal {news['signal']}"
    if member.client_exit is not None:
        return member.client_exit, cause
    return (EXIT_LOST, "lost: its caller died before it said how the command ended") if code is None else (code, cause)


def merged(users: dict[str, str], ours: dict[str, str]) -> dict[str, str]:
    """The user's variables with ours; lists of paths begin with ours and keep the user's."""
    both = users | ours
    for name in _JOINED:
        if name in users and name in ours and users[name] not in ("", ours[name]):
            both[name] = f"{ours[name]}:{users[name]}"
    return both
