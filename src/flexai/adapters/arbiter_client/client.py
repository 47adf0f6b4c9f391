"""Keeps the arbiter at what the agent wants: all of it to each new arbiter, then what changed."""

import asyncio
import itertools
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

from flexai.ports import TenantPolicy
from flexai.wire import arbiter
from flexai.wire.arbiter import Op
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.agent.arbiter")

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0
_ANSWER_WITHIN_S = 2.0


class ArbiterClient:
    """``ports.ChannelPolicy`` over the arbiter's socket. ``run`` keeps the line; the rest says what is wanted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tenants: dict[str, TenantPolicy] = {}
        self._devices: dict[str, int] = {}
        self._told: dict[str, TenantPolicy] = {}
        self._told_devices: dict[str, int] = {}
        self._refused: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._seq = itertools.count(1)
        self.is_connected = False

    def put(self, policy: TenantPolicy) -> None:
        """See ``ports.ChannelPolicy``."""
        self._tenants[policy.tenant] = policy
        self._changed.set()

    def gone(self, tenant: str) -> None:
        """See ``ports.ChannelPolicy``."""
        if self._tenants.pop(tenant, None) is not None:
            self._refused.pop(tenant, None)
            self._changed.set()

    def manage(self, uuid: str, backend: int) -> None:
        """See ``ports.ChannelPolicy``."""
        self._devices[uuid] = backend
        self._changed.set()

    def refusals(self) -> dict[str, str]:
        """See ``ports.ChannelPolicy``."""
        return dict(self._refused)

    async def run(self) -> None:
        """Stay connected as long as the process lives."""
        delay_s = _FIRST_DELAY_S
        while True:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
                line.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(line, str(self._path))
                    await self._exchange(line, arbiter.message(Op.HELLO, next(self._seq)))
                except (OSError, BadInput, TimeoutError):
                    pass
                else:
                    delay_s = _FIRST_DELAY_S
                    log.info("connected to the arbiter")
                    try:
                        await self._keep(line)
                    except (OSError, BadInput, TimeoutError) as error:
                        log.warning("the arbiter is gone: %s", error)
                self.is_connected = False
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _keep(self, line: socket.socket) -> None:
        self._told, self._told_devices = {}, {}
        await self._catch_up(line)
        await self._exchange(line, arbiter.message(Op.SYNC, next(self._seq)))
        self.is_connected = True
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        while True:
            if not self._changed.is_set():
                # Between exchanges the arbiter says nothing: readable then means that it is gone.
                loop.add_reader(line, gone.set)
                waits = [asyncio.ensure_future(self._changed.wait()), asyncio.ensure_future(gone.wait())]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    loop.remove_reader(line)
                    for wait in waits:
                        wait.cancel()
                if gone.is_set():
                    raise ConnectionResetError("it closed the connection")
            await self._catch_up(line)

    async def _catch_up(self, line: socket.socket) -> None:
        self._changed.clear()
        for message, tenant in self._due():
            reply = await self._exchange(line, message)
            if tenant:
                self._note(tenant, reply)
            elif reply.code:
                log.warning("the arbiter refused a card: %s: %s", reply.code, reply.message)

    def _due(self) -> Iterator[tuple[bytes, str]]:
        """Messages that take the arbiter from what it was told to what is wanted."""
        for uuid, backend in list(self._devices.items()):
            if self._told_devices.get(uuid) != backend:
                self._told_devices[uuid] = backend
                yield arbiter.message(Op.DEVICE_PUT, next(self._seq), device=(uuid, backend)), ""
        for name in [name for name in self._told if name not in self._tenants]:
            del self._told[name]
            yield arbiter.message(Op.TENANT_GONE, next(self._seq), tenant=name), ""
        for name, wanted in list(self._tenants.items()):
            told = self._told.get(name)
            if told == wanted:
                continue
            self._told[name] = wanted
            yield (
                arbiter.message(
                    Op.TENANT_PUT, next(self._seq), tenant=name, directory=wanted.directory, cgroup=wanted.cgroup,
                    root_pid=wanted.root_pid, grants=wanted.grants,
                ),
                name,
            )  # fmt: skip
            if wanted.suspended != (told is not None and told.suspended):
                op = Op.SUSPEND if wanted.suspended else Op.RESUME
                yield arbiter.message(op, next(self._seq), tenant=name), name

    def _note(self, tenant: str, reply: arbiter.Reply) -> None:
        if reply.code:
            self._refused[tenant] = f"{reply.code}: {reply.message}"
            log.warning("the arbiter refused %s: %s: %s", tenant, reply.code, reply.message)
        else:
            self._refused.pop(tenant, None)

    async def _exchange(self, line: socket.socket, message: bytes) -> arbiter.Reply:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            await loop.sock_sendall(line, message)
            data = await loop.sock_recv(line, arbiter.REPLY_BYTES + 1)
        if not data:
            raise ConnectionResetError("it closed the connection")
        return arbiter.reply(data)
