"""Carries out what the state machine asks for: the one place where members change."""

import asyncio
import contextlib
import logging
import signal
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from flexai import node as n
from flexai.adapters.local import processes
from flexai.adapters.local.host import free_ram_bytes
from flexai.adapters.local.starts import Starts
from flexai.apps.agent.checkpoint_file import CheckpointFile
from flexai.apps.agent.memory_look import MemoryLook
from flexai.apps.agent.news import News
from flexai.apps.agent.tenant_env import TenantEnv
from flexai.apps.agent.watch import Watch
from flexai.model import Grant
from flexai.node import Key, Phase, Refusal, Tenant
from flexai.ports import ChannelPolicy, Containment, DeviceBackend, Place, Regions, TenantPolicy
from flexai.wire.agent_rpc import tenant_fields

log = logging.getLogger("flexai.agent")

_KILL_AGAIN_S = 0.5
_PARK_ROUNDS = 4


class Refused(Exception):
    """What was asked will not be done; carries the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(refusal.message)


@dataclass(slots=True)
class Parts:
    """What the node works with."""

    backend: DeviceBackend
    containment: Containment
    regions: Regions
    arbiter: ChannelPolicy
    starts: Starts
    env: TenantEnv
    news: News


@dataclass(slots=True)
class Node:
    """The machine and its hands. One member changes at a time; different members change side by side."""

    parts: Parts
    machine: n.NodeMachine
    checkpoint: CheckpointFile
    watch: Watch = field(init=False)
    _places: dict[Key, Place] = field(default_factory=dict)
    _locks: defaultdict[Key, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    _killers: dict[Key, asyncio.Task[None]] = field(default_factory=dict)
    _knowing: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.watch = Watch(self.parts.containment, self.parts.starts, self.feed)

    def know_cards(self, kept: Path, memory: MemoryLook) -> None:
        """Begin to measure what a context takes on each card, unless the file tells, and look at it while it is empty.

        Nobody gets a region before.
        """
        backend = self.parts.backend

        async def measure() -> None:
            self.parts.regions.context_bytes = await asyncio.to_thread(backend.context_bytes, str(kept))
            memory.stands({r.uuid: r.used_bytes for r in backend.readings()}, {p.uuid for p in backend.processes()})

        self._knowing = asyncio.create_task(measure())

    def tenant(self, key: Key) -> Tenant | None:
        """The member, if it is held here."""
        return self.machine.tenants.get(key)

    def by_name(self, name: str | None) -> Tenant | None:
        """The member whose box or region has this name."""
        job_id, _, member = (name or "").rpartition(".")
        return self.machine.tenants.get((job_id, int(member))) if member.isdigit() else None

    def place(self, key: Key) -> Place:
        """Where a prepared member's processes go."""
        return self._places[key]

    async def feed(self, event: n.Event) -> None:
        """Take one event, and do all that follows from it.

        Raises:
            Refused: the machine says no, or what it asked for cannot be done.
            OSError: this machine does not do what it must.
        """
        key = event.tenant.key if isinstance(event, n.PrepareAsked | n.Recovered) else event.key
        async with self._locks[key]:
            await self._feed(event)
        if key not in self.machine.tenants and not self._locks[key].locked():
            del self._locks[key]

    async def _feed(self, event: n.Event) -> None:
        outcome = self.machine.step(event)
        if isinstance(outcome, Refusal):
            raise Refused(outcome)
        for command in outcome:
            await self._carry_out(command)

    async def _carry_out(self, command: n.Command) -> None:
        parts = self.parts
        match command:
            case n.Save():
                await self.checkpoint.save()
            case n.MakePlace(tenant=tenant):
                await self._cards_known()
                self._make_place(tenant)
            case n.AddTenant(tenant=tenant):
                if tenant.grants:  # one without a card shares none
                    parts.arbiter.put(self._policy(tenant))
            case n.SetLimits(tenant=tenant):
                await self._cards_known()
                parts.regions.put(tenant.name, tenant.uid, tenant.gid, tenant.grants)
            case n.Launch(tenant=tenant, launch=launch):
                await self._launch(tenant, launch)
            case n.Admit(tenant=tenant, pid=pid):
                await self._admit(tenant, pid)
            case n.Forbid(tenant=tenant):
                parts.starts.forbid(tenant)
            case n.End(tenant=tenant, signal=number, grace_ms=grace_ms):
                self._end(tenant, number, grace_ms)
            case n.SetFrozen(tenant=tenant, frozen=frozen):
                parts.containment.freeze(tenant.name, frozen)
            case n.Park(tenant=tenant, most_bytes=most_bytes):
                await self._move(tenant, parked=True, most_bytes=most_bytes)
            case n.Wake(tenant=tenant):
                await self._move(tenant, parked=False)
            case n.DropTenant(key=(job_id, member)):
                parts.arbiter.gone(f"{job_id}.{member}")
            case n.RemovePlace(tenant=tenant):
                await self._remove_place(tenant)
            case n.Say(event=event, tenant=tenant):
                self._say(event, tenant)

    async def _cards_known(self) -> None:
        if self._knowing is not None:
            await asyncio.wait([self._knowing])

    def _make_place(self, tenant: Tenant) -> None:
        parts = self.parts
        granted = [grant.device for grant in tenant.seat]
        allowed: list[str] = []
        denied: list[str] = []
        for device in parts.backend.devices():
            files = parts.backend.device_files(device.uuid)
            (allowed if device.uuid in granted else denied).extend(files)
        parts.regions.put(tenant.name, tenant.uid, tenant.gid, tenant.seat)
        ram_bytes = tenant.ram_bytes
        if ram_bytes and (tenant.parked or tenant.moving):  # what moves to the host counts as memory of its processes
            ram_bytes += sum(grant.memory_bytes for grant in tenant.grants)
        self._places[tenant.key] = parts.containment.make(tenant.name, tenant.cpu_milli, ram_bytes, allowed, denied)

    def _policy(self, tenant: Tenant) -> TenantPolicy:
        place = self._places.get(tenant.key)
        cgroup = (place.cgroup if place else None) or ""
        return TenantPolicy(
            tenant.name, self.parts.regions.directory(tenant.name), cgroup, 0 if cgroup else tenant.pid or 0,
            tenant.seat, tenant.paused,
        )  # fmt: skip

    async def _launch(self, tenant: Tenant, launch: n.LaunchSpec) -> None:
        parts = self.parts
        try:
            word = await parts.starts.start(
                tenant, launch, self._places[tenant.key], parts.containment.supervisor_place()
            )
        except (OSError, ValueError) as error:
            word = f"failed {error}"
        began = parts.starts.began(tenant)
        if began is not None:
            await self._feed(n.Began(tenant.key, *began))
            return
        await self._feed(n.LaunchFailed(tenant.key, word))
        if word == "used":
            raise Refused(Refusal("TokenUsed", f"Start {tenant.token} was used or withdrawn.", "Prepare a new start"))
        raise Refused(Refusal("CannotStart", f"{tenant.name} cannot be started: {word.removeprefix('failed ')}."))

    async def _admit(self, tenant: Tenant, pid: int) -> None:
        ticks, owner = processes.start_ticks(pid), processes.owner(pid)
        try:
            if owner is None or not ticks:
                raise ProcessLookupError("it is gone")
            if owner != tenant.uid:
                raise PermissionError(f"it belongs to user {owner}")
            self.parts.containment.admit(tenant.name, pid)
        except OSError as error:
            message = f"Process {pid} cannot be put under {tenant.name}: {error.strerror or error}."
            raise Refused(Refusal("CannotAttach", message)) from None
        await self._feed(n.Attached(tenant.key, pid, ticks))

    def _end(self, tenant: Tenant, number: int, grace_ms: int) -> None:
        self.parts.containment.signal(tenant.name, number)
        if grace_ms < 0:
            return
        killer = self._killers.get(tenant.key)
        if killer is None or killer.done() or grace_ms == 0:
            self._killers[tenant.key] = asyncio.create_task(self._kill_after(tenant, grace_ms / 1000))

    async def _kill_after(self, tenant: Tenant, grace_s: float) -> None:
        await asyncio.sleep(grace_s)
        while (held := self.tenant(tenant.key)) and held.token == tenant.token and held.phase is Phase.RUNNING:
            self.parts.containment.signal(tenant.name, signal.SIGKILL)
            await asyncio.sleep(_KILL_AGAIN_S)

    async def _move(self, tenant: Tenant, parked: bool, most_bytes: int = -1) -> None:
        can, why_not = self.parts.backend.can_park()
        if can:
            try:
                await (self._to_host(tenant, most_bytes) if parked else self._to_card(tenant))
            except OSError as error:
                can, why_not = False, str(error)
        await self._feed(n.Parked(tenant.key, parked is can))
        if not can:
            what, remedy = ("parked", "Pause it instead") if parked else ("woken", "")
            raise Refused(Refusal("CannotPark", f"{tenant.name} cannot be {what}: {why_not}.", remedy))

    async def _to_host(self, tenant: Tenant, most_bytes: int) -> None:
        """Park every program of the member that is on a card, then freeze all: nothing of it comes to the card again.

        Raises:
            OSError: why its memory stays, or is again, where it was.
        """
        containment, n_bytes = self.parts.containment, 0
        try:
            for _ in range(_PARK_ROUNDS):
                containment.freeze(tenant.name, frozen=False)
                n_bytes += sum(sum(used_bytes.values()) for used_bytes in self._on_cards(tenant).values())
                if 0 <= most_bytes < n_bytes:
                    held, booked = (f"{each / 2**30:.3g} GiB" for each in (n_bytes, most_bytes))
                    _fail(f"it holds {held} by now, and {booked} of host memory are booked for it")
                await self._park(tenant)
                containment.freeze(tenant.name, frozen=True)
                if not self._on_cards(tenant):
                    return
            _fail("its programs come to the card as fast as they are moved off it")
        except OSError:
            containment.freeze(tenant.name, frozen=False)
            if self.machine.tenants[tenant.key].away:
                with contextlib.suppress(OSError):
                    await self._wake(tenant)
            containment.freeze(tenant.name, tenant.paused)
            raise

    async def _park(self, tenant: Tenant, but_on: AbstractSet[str] = frozenset()) -> None:
        """Park the programs that are on other cards than those, if the host has the memory."""
        for pid, used_bytes in self._on_cards(tenant).items():
            if used_bytes.keys() <= but_on:
                continue
            n_bytes, free_bytes = sum(used_bytes.values()), free_ram_bytes()
            if n_bytes > free_bytes:
                held, free = (f"{each / 2**30:.3g} GiB" for each in (n_bytes, free_bytes))
                _fail(f"process {pid} holds {held}, and {free} of host memory are free")
            # Where it is counts, not where it is to be: an agent may have ended while it was brought elsewhere.
            is_ahead = tenant.bound_for and used_bytes.keys() <= {*cards_of(tenant.bound_for)}
            here = cards_of(tenant.bound_for if is_ahead else tenant.grants)
            await self._feed(n.ProgramLeaves(tenant.key, pid, here))
            await asyncio.to_thread(self.parts.backend.park, pid)

    async def _to_card(self, tenant: Tenant) -> None:
        """Thaw and wake every program of the member, on the cards that it has now or is bound for.

        Raises:
            OSError: one of them could not be brought back; then none of them is on a card.
        """
        containment = self.parts.containment
        containment.freeze(tenant.name, frozen=False)
        try:
            if tenant.bound_for:
                await self._park(tenant, but_on={*cards_of(tenant.seat)})
            if tenant.grants:  # one without a card was only frozen
                await self._wake(tenant)
        except OSError:
            with contextlib.suppress(OSError):
                await self._park(tenant)
            containment.freeze(tenant.name, frozen=True)
            raise
        containment.freeze(tenant.name, tenant.paused)

    async def _wake(self, tenant: Tenant) -> None:
        """Wake the programs of the member where its seat is, and see that they are there and nowhere else."""
        inside, seat = set(self.parts.containment.pids(tenant.name)), cards_of(tenant.seat)
        known = self.machine.tenants[tenant.key].away
        left = {pid: cards for pid, cards in known if pid in inside}
        # An agent without this list may have parked it: then each program may be one, and none ever changed cards.
        of_cards: dict[tuple[str, ...], list[int]] = {} if known else {cards_of(tenant.grants): sorted(inside)}
        for pid, cards in sorted(left.items()):
            of_cards.setdefault(cards, []).append(pid)
        for cards, pids in of_cards.items():
            to = None if cards == seat else dict(zip(cards, seat, strict=True))
            await asyncio.to_thread(self.parts.backend.wake, pids, to)
        found = self._on_cards(tenant)
        missing = left.keys() & set(self.parts.containment.pids(tenant.name)) - found.keys()
        if missing:
            _fail(f"process {min(missing)} has not come back to its card")
        astray = [pid for pid, used_bytes in found.items() if not used_bytes.keys() <= {*seat}]
        if astray and tenant.bound_for:
            _fail(f"process {astray[0]} has come back to another card than it was to")

    def _on_cards(self, tenant: Tenant) -> dict[int, dict[str, int]]:
        """Programs of the member that the cards list, so none that is parked, and what each holds, by card."""
        inside, found = set(self.parts.containment.pids(tenant.name)), dict[int, dict[str, int]]()
        for process in self.parts.backend.processes():
            if process.pid in inside:
                found.setdefault(process.pid, {})[process.uuid] = max(0, process.used_bytes)
        return dict(sorted(found.items()))

    async def _remove_place(self, tenant: Tenant) -> None:
        self.watch.forget(tenant.key)
        self._places.pop(tenant.key, None)
        killer = self._killers.pop(tenant.key, None)
        if killer is not None:
            killer.cancel()
        await asyncio.to_thread(self.parts.containment.remove, tenant.name)
        self.parts.regions.remove(tenant.name)

    def _say(self, event: str, tenant: Tenant) -> None:
        if event == "started":
            self.watch.begin(tenant)
        else:
            self.watch.forget(tenant.key)
        log.info("%s %s: %s", tenant.name, event, tenant.cause or f"pid {tenant.pid}")
        self.parts.news.say(event, **tenant_fields(tenant))


def cards_of(grants: Iterable[Grant]) -> tuple[str, ...]:
    """Their cards, in order."""
    return tuple(grant.device for grant in grants)


def _fail(why: str) -> NoReturn:
    raise OSError(why)
