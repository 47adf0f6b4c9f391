"""What the agent looks at by itself: health of the cards, who uses them, who is over its cap, who idles."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flexai import node as n
from flexai.apps.agent.figures import Figures
from flexai.apps.agent.hello import HelloServer
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
_OVER_CAP_ROUNDS = 3
_SLACK_BYTES = 64 << 20
_IDLE_GRACE_MS = 10_000
_SIGTERM = 15


class Audit:
    """The agent's rounds.

    Args:
        ends_over_cap: whether a member that stays over its memory cap is ended, not only reported.
    """

    def __init__(self, node: Node, hello: HelloServer, usage: UsageReader, *, ends_over_cap: bool) -> None:
        self._node, self._hello, self._usage, self._ends_over_cap = node, hello, usage, ends_over_cap
        self.figures = Figures()
        self.last: Usage | None = None
        self._health: dict[str, tuple[DeviceHealth, str]] = {}
        self._foreign: dict[str, tuple[int, int]] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._over: defaultdict[tuple[Key, str], int] = defaultdict(int)
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
        processes = self._node.parts.backend.processes()
        await self._look_at_memory(processes)
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

    async def _look_at_memory(self, processes: Sequence[DeviceProcess]) -> None:
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
        for tenant in list(self._node.machine.tenants.values()):
            for grant in tenant.grants:
                await self._check_cap(tenant, grant.device, grant.memory_bytes)

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

    async def _check_cap(self, tenant: Tenant, uuid: str, cap_bytes: int) -> None:
        used_bytes = self._used.get((tenant.name, uuid), 0)
        place = tenant.key, uuid
        if not cap_bytes or used_bytes <= cap_bytes + _SLACK_BYTES:
            self._over.pop(place, None)
            return
        self._over[place] += 1
        if self._over[place] != _OVER_CAP_ROUNDS:
            return
        log.warning("%s holds %d bytes of %s; its cap is %d", tenant.name, used_bytes, uuid, cap_bytes)
        self._node.parts.news.say(
            "over_cap",
            job_id=tenant.job_id,
            member=tenant.member,
            uuid=uuid,
            used_bytes=used_bytes,
            cap_bytes=cap_bytes,
        )
        if self._ends_over_cap:
            await self._end(tenant, f"used {used_bytes >> 20} MiB of device memory with a cap of {cap_bytes >> 20} MiB")

    async def _look_for_idle(self) -> None:
        """End members that did not use their cards for as long as they were given."""
        now_s = time.monotonic()
        for tenant in list(self._node.machine.tenants.values()):
            if not tenant.idle_timeout_ms or tenant.phase is not Phase.RUNNING or tenant.paused or tenant.parked:
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
            if place in used:
                tenant["used_milli"] = used[place]
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
                tenants.append(
                    {
                        "job_id": tenant.job_id, "member": tenant.member, "device": grant.device,
                        "got_milli_1s": rates.got_milli_1s, "got_milli_10s": rates.got_milli_10s,
                        "borrowed_milli": rates.borrowed_milli, "stopped_milli": rates.stopped_milli,
                        "wanted_milli": rates.wanted_milli, "held_ns": rates.held_ns, "n_turns": rates.n_turns,
                        "n_stops": rates.n_stops, "hostile": rates.hostile,
                        "used_bytes": max(charged[index], self._used.get((tenant.name, grant.device), 0)),
                        "charged_bytes": charged[index],
                    }
                )  # fmt: skip
        devices = [
            {
                "uuid": device.uuid, "backend": device.backend, "source": device.source, "busy_ns": device.busy_ns,
                "control_ns": device.control_ns, "note": device.note,
                "outside_milli": self.figures.rates((OUTSIDE, device.uuid)).got_milli_1s,
            }
            for device in (self.last.devices if self.last else ())
        ]  # fmt: skip
        return {"tenants": tenants, "devices": devices}
