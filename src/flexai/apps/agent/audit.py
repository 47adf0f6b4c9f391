"""What the agent looks at by itself: health of the cards, who uses them, who is over its cap, who idles."""

import asyncio
import logging
import time
from collections import defaultdict, deque
from typing import Any

from flexai import node as n
from flexai.apps.agent.figures import Figures
from flexai.apps.agent.hello import HelloServer
from flexai.apps.agent.memory_look import SENTENCES, Adrift, Cap, Holding, Leak, MemoryLook, Over
from flexai.apps.agent.node import Node, Refused
from flexai.model import DeviceHealth
from flexai.node import Key, Phase, Tenant
from flexai.ports import DeviceProcess, Usage, UsageReader
from flexai.wire.arbiter import OUTSIDE

log = logging.getLogger("flexai.agent.audit")

_EVERY_S = 1.0
_USAGE_EVERY_S = 0.5
_REAP_EVERY = 5
_HEALTH_EVERY = 2
_MEMORY_STEP_BYTES = 64 << 20
_COMPUTE_STEP_MILLI = 50
_IDLE_GRACE_MS = 10_000
_BARE_ROUNDS = 5  # a shim says hello as its process first touches the driver, and again soon after an agent came back
_SIGTERM = 15
_HELD_BACK_MILLI = 200


class Audit:
    """The agent's rounds.

    Args:
        over_cap: of members that stay over their memory cap and bring no policy of their own: ``warn``, ``stop`` or
            ``kill``.
        memory: what was seen of the cards before any job was on them.
        hostile_acts: acts against the arbiter after which a member is ended, since stopping it again and freezing it
            were no help; 0 for never.
    """

    def __init__(
        self,
        node: Node,
        hello: HelloServer,
        usage: UsageReader,
        *,
        over_cap: str,
        hostile_acts: int = 20,
        memory: MemoryLook | None = None,
    ) -> None:
        self._node, self._hello, self._usage, self._over_cap = node, hello, usage, over_cap
        self._hostile_acts = hostile_acts
        self.figures = Figures()
        self.last: Usage | None = None
        self._health: dict[str, tuple[DeviceHealth, str]] = {}
        self._foreign: dict[str, tuple[int, int]] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._memory = memory or MemoryLook()
        self._over: dict[tuple[str, str], Over] = {}
        self._adrift: dict[str, Adrift] = {}
        self._adrift_told: set[str] = set()
        self._untold: deque[dict[str, Any]] = deque(maxlen=1000)
        self._bare: dict[tuple[int, str], int] = {}
        self._told_bare: set[tuple[int, str]] = set()
        self._hostile: dict[tuple[str, str], int] = {}
        self._rescued: dict[tuple[str, str], int] = {}
        self._idle_since: dict[Key, tuple[int, float]] = {}

    async def run(self) -> None:
        """Go round as long as the process lives."""
        rounds = 0
        while True:
            try:
                await self._round(rounds)
            except Exception:
                log.exception("a round of the audit")
            rounds += 1
            await asyncio.sleep(_EVERY_S)

    async def _round(self, rounds: int) -> None:
        if rounds % _HEALTH_EVERY == 0:
            self._look_at_health()
        await self._look_at_memory()
        await self._look_for_hostile()
        self._tell_rescued()
        await self._look_for_idle()
        if rounds % _REAP_EVERY == 0:
            for key, tenant in list(self._node.machine.tenants.items()):
                if tenant.phase is Phase.RUNNING:
                    await self._hello.reap(key)

    def _look_at_health(self) -> None:
        for reading in self._node.parts.backend.readings():
            now = reading.health, reading.note
            if self._health.get(reading.uuid, (DeviceHealth.HEALTHY, "")) != now:
                self._node.parts.news.say("device", uuid=reading.uuid, health=reading.health, note=reading.note)
            self._health[reading.uuid] = now

    async def _look_at_memory(self) -> None:
        backend = self._node.parts.backend
        before = {reading.uuid: reading.used_bytes for reading in backend.readings()}
        processes = backend.processes()
        # A card that moved meanwhile is left out of the sums this time.
        in_use = {r.uuid: r.used_bytes for r in backend.readings() if before.get(r.uuid) == r.used_bytes}
        holders = {pid: self._node.parts.containment.holder(pid) for pid in {p.pid for p in processes}}
        used: defaultdict[tuple[str, str], int] = defaultdict(int)
        outside: defaultdict[str, list[DeviceProcess]] = defaultdict(list)
        for process in processes:
            name = holders[process.pid]
            if self._node.by_name(name) is None:
                outside[process.uuid].append(process)
            else:
                used[str(name), process.uuid] += max(0, process.used_bytes)
        self._used = dict(used)
        for device in self._node.parts.backend.devices():
            self._tell_foreign(device.uuid, outside[device.uuid])
        holdings = [
            Holding(p.uuid, p.pid, tenant.name if tenant else "", p.used_bytes, p.pid in self._hello.shims)
            for p in processes
            for tenant in [self._node.by_name(holders[p.pid])]
        ]
        self._tell_bare(holdings)
        over, new = self._memory.look(in_use, holdings, self._caps())
        self._over = {(one.tenant, one.uuid): one for one in over}
        for one in new:
            await self._act(one)
        while self._untold and self._node.parts.news.has_listeners:
            self._node.parts.news.say("over_cap", keep=False, **self._untold.popleft())
        self._adrift = dict(self._memory.adrift)
        self._tell_adrift()

    def _tell_bare(self, holdings: list[Holding]) -> None:
        """A program of a job on a card without the shim runs as if it had no slice, and ends well: its user is told."""
        bare = {(h.pid, h.tenant) for h in holdings if h.tenant and not h.has_shim}
        self._bare = {one: self._bare.get(one, 0) + 1 for one in bare}
        self._told_bare &= bare
        if not self._node.parts.news.has_listeners:
            return
        for one, n_rounds in self._bare.items():
            tenant = self._node.by_name(one[1])
            if n_rounds >= _BARE_ROUNDS and tenant is not None and one not in self._told_bare:
                self._told_bare.add(one)
                log.warning("%s: process %d uses a card without the shim", tenant.name, one[0])
                fields = {"job_id": tenant.job_id, "member": tenant.member, "pid": one[0]}
                self._node.parts.news.say("no_shim", keep=False, **fields, says=SENTENCES[Leak.NO_SHIM])

    def _caps(self) -> list[Cap]:
        caps = []
        for tenant in self._node.machine.tenants.values():
            charged = self._node.parts.regions.charged(tenant.name)
            caps += [
                Cap(tenant.name, grant.device, grant.memory_bytes, charged[index])
                for index, grant in enumerate(tenant.grants)
            ]
        return caps

    async def _act(self, over: Over) -> None:
        """Tell of a member over its cap, and do what its queue or the pool wants done."""
        tenant = self._node.by_name(over.tenant)
        if tenant is None:
            return
        action = tenant.over_cap or self._over_cap
        leak = over.leaks[0][0]
        why = f"holds {over.used_bytes >> 20} MiB of card memory with a cap of {over.cap_bytes >> 20} MiB"
        log.warning("%s %s (%s): %s; %s", tenant.name, why, over.uuid, SENTENCES[leak], action)
        self._untold.append(
            {
                "job_id": tenant.job_id, "member": tenant.member, "uuid": over.uuid, "used_bytes": over.used_bytes,
                "cap_bytes": over.cap_bytes, "leak": leak, "says": SENTENCES[leak],
                "leaks": {name.value: n_bytes for name, n_bytes in over.leaks}, "pids": list(over.pids[:64]),
                "action": action,
            }
        )  # fmt: skip
        if action == "kill":
            await self._end(tenant, why)
        elif action == "stop":
            try:
                await self._node.feed(n.PauseAsked(tenant.key, paused=True, cause=why))
            except (Refused, OSError) as error:
                log.warning("%s cannot be stopped: %s", tenant.name, error)

    def _tell_adrift(self) -> None:
        news = self._node.parts.news
        for uuid, adrift in self._adrift.items():
            if uuid in self._adrift_told or not news.has_listeners:
                continue
            self._adrift_told.add(uuid)
            log.warning(
                "%d MiB on %s belong to no process; %s may hold them", adrift.n_bytes >> 20, uuid, adrift.suspects
            )
            news.say(
                "adrift", keep=False, uuid=uuid, memory_bytes=adrift.n_bytes, suspects=list(adrift.suspects),
                outside=adrift.outside,
            )  # fmt: skip
        self._adrift_told &= self._adrift.keys()

    def _tell_foreign(self, uuid: str, processes: list[DeviceProcess]) -> None:
        memory_bytes = sum(max(0, process.used_bytes) for process in processes)
        # Without a process of others, what lies outside is the first and last moment of our own: it would keep a whole
        # card from the next job for as long as the figures remember it.
        compute_milli = self.figures.rates((OUTSIDE, uuid)).got_milli_10s if processes else 0
        before = self._foreign.get(uuid, (0, 0))
        if abs(memory_bytes - before[0]) < _MEMORY_STEP_BYTES and (memory_bytes == 0) == (before[0] == 0):
            memory_bytes = before[0]
        if abs(compute_milli - before[1]) < _COMPUTE_STEP_MILLI and (compute_milli == 0) == (before[1] == 0):
            compute_milli = before[1]
        if (memory_bytes, compute_milli) != before:
            self._foreign[uuid] = memory_bytes, compute_milli
            pids = [process.pid for process in processes]
            self._node.parts.news.say(
                "foreign", uuid=uuid, memory_bytes=memory_bytes, compute_milli=compute_milli, pids=pids[:64]
            )

    async def _look_for_hostile(self) -> None:
        """Tell of members that act against the arbiter, and end those that go on when they have been stopped again."""
        if self.last is None:
            return
        for row in self.last.tenants:
            tenant, place = self._node.by_name(row.tenant), (row.tenant, row.uuid)
            new = row.hostile - self._hostile.get(place, 0)
            if tenant is None or not new:
                continue
            self._hostile[place] = row.hostile
            why = f"undid {row.hostile} acts of the arbiter: it resumed itself or changed its time slice"
            ends = 0 < self._hostile_acts <= row.hostile and not tenant.stopping
            action = "kill" if ends else "stopped again"
            log.warning(
                "%s on %s %s; %s", tenant.name, row.uuid, why, f"frozen by {row.frozen}" if row.frozen else action
            )
            self._node.parts.news.say(
                "hostile", job_id=tenant.job_id, member=tenant.member, uuid=row.uuid, acts=row.hostile,
                frozen=bool(row.frozen), frozen_by=row.frozen, action=action,
            )  # fmt: skip
            if action == "kill":
                await self._end(tenant, why)

    def _tell_rescued(self) -> None:
        """Tell members on whose channels somebody else acted; who it was the driver does not say."""
        for row in self.last.tenants if self.last is not None else ():
            tenant, place = self._node.by_name(row.tenant), (row.tenant, row.uuid)
            if tenant is None or row.rescued == self._rescued.get(place, 0):
                continue
            self._rescued[place] = row.rescued
            log.warning("%s on %s was stopped or resumed by somebody else: put right", tenant.name, row.uuid)
            self._node.parts.news.say(
                "rescued", job_id=tenant.job_id, member=tenant.member, uuid=row.uuid, times=row.rescued
            )

    async def _look_for_idle(self) -> None:
        """End members that did not use their cards for as long as they were given."""
        now_s = time.monotonic()
        for tenant in list(self._node.machine.tenants.values()):
            watched = tenant.idle_timeout_ms and tenant.grants and not tenant.paused and not tenant.parked
            if not watched or tenant.phase is not Phase.RUNNING:
                self._idle_since.pop(tenant.key, None)
                continue
            active_ns = self._active_ns(tenant)
            seen_ns, since_s = self._idle_since.get(tenant.key, (-1, now_s))
            if active_ns != seen_ns or active_ns < 0:
                self._idle_since[tenant.key] = active_ns, now_s
            elif (now_s - since_s) * 1000 >= tenant.idle_timeout_ms and not tenant.stopping:
                await self._end(tenant, f"idle for {tenant.idle_timeout_ms / 1000:g} s")

    def _active_ns(self, tenant: Tenant) -> int:
        """A number that grows while the member uses its cards; -1 when nobody measures."""
        if self.last is None:
            return -1
        return sum(row.wanted_ns + row.held_ns for row in self.last.tenants if row.tenant == tenant.name)

    async def _end(self, tenant: Tenant, why: str) -> None:
        try:
            await self._node.feed(n.SignalAsked(tenant.key, _SIGTERM, _IDLE_GRACE_MS, why))
        except (Refused, OSError) as error:
            log.warning("%s cannot be ended: %s", tenant.name, error)

    async def publish(self) -> None:
        """Read the arbiter's figures twice a second, and tell subscribers."""
        news = self._node.parts.news
        while True:
            try:
                usage = self._usage.read()
                self.last = usage
                if usage is not None:
                    self.figures.take(usage)
                if news.has_listeners:
                    news.say("usage", keep=False, **self.usage_fields())
            except Exception:
                log.exception("reading the figures")
            await asyncio.sleep(_USAGE_EVERY_S if news.has_listeners else _EVERY_S)

    async def measured(self) -> dict[str, Any]:
        """The figures of this moment, with what each slice made use of: for whoever would lend what is idle."""
        usage = self._usage.read()
        if usage is not None:
            self.last = usage
            self.figures.take(usage)
        readings = await asyncio.to_thread(self._node.parts.backend.readings)
        fields = self.usage_fields()
        used: dict[tuple[str, str], int] = {}
        for reading in readings:
            used |= self.figures.used_milli(reading.uuid, reading.busy_milli)
        for tenant in fields["tenants"]:
            place = f"{tenant['job_id']}.{tenant['member']}", tenant["device"]
            tenant["used_milli"] = used.get(place)
            if place in used and tenant["stopped_milli"] >= _HELD_BACK_MILLI:
                # It would take what is idle before anybody new could: so it counts as taken.
                tenant["used_milli"] = max(used[place], tenant["wanted_milli"])
        return fields

    def usage_fields(self) -> dict[str, Any]:
        """What each slice got and holds, and each card."""
        tenants = []
        for tenant in self._node.machine.tenants.values():
            if tenant.phase is not Phase.RUNNING:
                continue
            charged = self._node.parts.regions.charged(tenant.name)
            for index, grant in enumerate(tenant.grants):
                rates = self.figures.rates((tenant.name, grant.device))
                over = self._over.get((tenant.name, grant.device))
                tenants.append(
                    {
                        "job_id": tenant.job_id, "member": tenant.member, "device": grant.device,
                        "got_milli_1s": rates.got_milli_1s, "got_milli_10s": rates.got_milli_10s,
                        "borrowed_milli": rates.borrowed_milli, "stopped_milli": rates.stopped_milli,
                        "wanted_milli": rates.wanted_milli, "held_ns": rates.held_ns, "n_turns": rates.n_turns,
                        "n_stops": rates.n_stops, "hostile": rates.hostile,
                        "used_bytes": max(charged[index], self._used.get((tenant.name, grant.device), 0)),
                        "charged_bytes": charged[index],
                        "over_cap_bytes": over.used_bytes - over.cap_bytes if over else 0,
                        "leak": over.leaks[0][0] if over else "",
                        "leak_says": SENTENCES[over.leaks[0][0]] if over else "",
                    }
                )  # fmt: skip
        devices = [
            {
                "uuid": device.uuid, "backend": device.backend, "source": device.source, "busy_ns": device.busy_ns,
                "control_ns": device.control_ns, "round_ns": device.round_ns, "note": device.note,
                "outside_milli": self.figures.rates((OUTSIDE, device.uuid)).got_milli_1s,
                "adrift_bytes": self._adrift[device.uuid].n_bytes if device.uuid in self._adrift else 0,
            }
            for device in (self.last.devices if self.last else ())
        ]  # fmt: skip
        return {"tenants": tenants, "devices": devices}
