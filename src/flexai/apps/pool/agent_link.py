"""What the pool makes of the agent: its node and devices for the scheduler, its tenants and events for the driver."""

import asyncio
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

from flexai.adapters.agent_client import AgentClient
from flexai.apps.pool.book import JobRecord
from flexai.apps.pool.core import Core
from flexai.apps.pool.driver import Driver
from flexai.apps.pool.tasks import spawn
from flexai.model import DeviceHealth, Node
from flexai.scheduling.events import DeviceChanged, ForeignUsage, NodePut
from flexai.wire.store import PauseAsked, node_from_plain

log = logging.getLogger("flexai.pool.agent")

_GREETING_TIMEOUT_S = 20.0
_OVER_CAP_SHOWN = ("member", "uuid", "used_bytes", "cap_bytes", "leak", "says", "leaks", "pids", "action")


class AgentLink:
    """Keeps pool and agent in step."""

    def __init__(self, core: Core, path: Path) -> None:
        self._core = core
        self.driver: Driver | None = None
        self.agent = AgentClient(path, self.event, self.connected)
        self.hello: dict[str, Any] = {}
        self.health: dict[str, DeviceHealth] = {}
        self.foreign: dict[str, dict[str, Any]] = {}
        self._slices: dict[Any, dict[str, Any]] = {}
        self._cards: dict[Any, dict[str, Any]] = {}
        self._lines: defaultdict[tuple[str, int], asyncio.Queue[dict[str, Any]]] = defaultdict(asyncio.Queue)
        self._workers: dict[tuple[str, int], asyncio.Task[None]] = {}
        self.node: Node | None = None

    def _driver(self) -> Driver:
        assert self.driver is not None, "composed before it runs"
        return self.driver

    @property
    def is_connected(self) -> bool:
        """Whether the agent answers now."""
        return self.agent.is_connected

    async def connected(self) -> None:
        """The agent is there: tell the scheduler of its node, and the driver of what it holds.

        Nothing is started before the driver has seen what runs; what the book says runs keeps its place till then.
        """
        self._driver().agent_lost()
        hello = await self.agent.call("hello", _GREETING_TIMEOUT_S)
        node = node_from_plain(hello.get("node"), "the agent's node")
        await self._forget_devices()
        # From the first event that the agent still has: what it said of its cards is said again.
        await self.agent.call("subscribe", _GREETING_TIMEOUT_S, from_seq=1)
        tenants = (await self.agent.call("tenants", _GREETING_TIMEOUT_S)).get("tenants", [])
        self.hello, self.node = hello, node
        await self._core.post_surely(NodePut(self._core.clock(), node))
        await self._driver().synchronize(tenants)

    def event(self, message: dict[str, Any]) -> None:
        """One event of the agent; those of a member are taken in order, one at a time."""
        match message.get("event"):
            case "started" | "finished":
                key = str(message["job_id"]), int(message["member"])
                self._lines[key].put_nowait(message)
                if key not in self._workers:
                    self._workers[key] = spawn(self._member_events(key))
            case "device":
                spawn(self._device(message))
            case "foreign":
                spawn(self._foreign(message))
            case "usage":
                self.take_usage(message)
            case "over_cap":
                spawn(self._over_cap(message))
            case "no_shim":
                body = {name: message.get(name) for name in ("member", "pid", "says")}
                self._core.note(str(message["job_id"]), "NoShim", body)
            case "hostile":
                body = {name: message.get(name) for name in ("member", "uuid", "acts", "frozen", "frozen_by", "action")}
                self._core.note(str(message["job_id"]), "Hostile", body)
            case "rescued":
                body = {name: message.get(name) for name in ("member", "uuid", "times")}
                self._core.note(str(message["job_id"]), "Rescued", body)
            case "adrift":
                self._adrift(message)
            case other:
                log.debug("event %s", other)

    async def _over_cap(self, message: dict[str, Any]) -> None:
        """A member holds more device memory than its cap. The agent has stopped it already where that is the policy."""
        job_id = str(message["job_id"])
        self._core.note(job_id, "OverCap", {name: message[name] for name in _OVER_CAP_SHOWN if name in message})
        if message.get("action") == "stop" and job_id in self._core.book.active:
            event = PauseAsked(self._core.clock(), job_id, paused=True)
            await self._core.post_surely(event, {"by": "the agent"})

    def _adrift(self, message: dict[str, Any]) -> None:
        """Bytes on a card belong to no process: each member that may hold them is told so."""
        body = {name: message.get(name) for name in ("uuid", "memory_bytes", "outside")}
        for suspect in message.get("suspects", ()):
            self._core.note(str(suspect).rpartition(".")[0], "MemoryAdrift", body)

    async def _member_events(self, key: tuple[str, int]) -> None:
        try:
            while not self._lines[key].empty():
                await self._driver().agent_event(self._lines[key].get_nowait())
        finally:
            del self._workers[key], self._lines[key]

    async def _device(self, message: dict[str, Any]) -> None:
        uuid, health = str(message["uuid"]), DeviceHealth(message["health"])
        if self.health.get(uuid, DeviceHealth.HEALTHY) is not health:
            self.health[uuid] = health
            cordoned = uuid in self._core.book.cordoned
            await self._core.post_surely(DeviceChanged(self._core.clock(), uuid, health, cordoned))

    async def _forget_devices(self) -> None:
        """An agent that was restarted speaks only of what is not as it should be."""
        ill = [uuid for uuid, health in self.health.items() if health is not DeviceHealth.HEALTHY]
        for uuid in ill:
            await self._device({"uuid": uuid, "health": DeviceHealth.HEALTHY})
        for uuid in list(self.foreign):
            await self._foreign({"uuid": uuid})
        self.foreign.clear()

    async def _foreign(self, message: dict[str, Any]) -> None:
        uuid = str(message["uuid"])
        before, self.foreign[uuid] = self.foreign.get(uuid), message
        fields = int(message.get("memory_bytes", 0)), int(message.get("compute_milli", 0))
        if before is None or fields != (int(before.get("memory_bytes", 0)), int(before.get("compute_milli", 0))):
            await self._core.post_surely(ForeignUsage(self._core.clock(), uuid, *fields))

    def take_usage(self, message: dict[str, Any]) -> None:
        """The agent's figures of its slices and cards."""
        self._slices = {
            (tenant.get("job_id"), tenant.get("member"), tenant.get("device")): {
                name: value for name, value in tenant.items() if name not in {"job_id", "member", "device"}
            }
            for tenant in message.get("tenants", ())
        }
        self._cards = {card.get("uuid"): card for card in message.get("devices", ())}

    def used(self) -> tuple[tuple[str, int, str, int], ...]:
        """What each slice makes use of, as the agent measured it last: (job, member, card, thousandths)."""
        used = {key: view.get("used_milli", view.get("got_milli_1s", 0)) for key, view in self._slices.items()}
        return tuple((*key, int(milli)) for key, milli in used.items() if milli is not None)

    def measured(self, job_id: str, member: int, device: str) -> dict[str, Any]:
        """What a slice got and holds, as the agent measured it last; empty when it has not."""
        return self._slices.get((job_id, member, device), {})

    def is_using(self, record: JobRecord, member: int) -> bool:
        """Whether a member uses its cards now; one that nobody measures, or without a card, counts as using them."""
        views = [self.measured(record.id, member, grant.device) for grant in record.members[member].grants]
        return (
            not views or not all(views) or any(view.get("got_milli_1s") or view.get("wanted_milli") for view in views)
        )

    def card(self, uuid: str) -> dict[str, Any]:
        """What is known of how a card is shared: backend, note, source of the figures."""
        return {**((self.hello.get("backends") or {}).get(uuid) or {}), **self._cards.get(uuid, {})}
