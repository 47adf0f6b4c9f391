"""The agent's socket for the pool: JSON lines, as ``wire.agent_rpc`` says."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from flexai import node as n
from flexai.apps.agent.node import Node, Refused
from flexai.apps.agent.sockets import listen, peer
from flexai.node import Key, Tenant
from flexai.wire import agent_rpc
from flexai.wire.agent_rpc import Request
from flexai.wire.errors import BadInput
from flexai.wire.fields import integer

log = logging.getLogger("flexai.agent.rpc")

_MAX_WAITING_BYTES = 8 << 20
_MAX_CALLS = 4096
_SIGTERM = 15

Answer = Mapping[str, Any]
Show = Callable[[], Answer | Awaitable[Answer]]


class RpcServer:
    """Answers the pool.

    Args:
        node: where members change.
        shows: what only shows something: ``hello``, ``usage``, ``doctor``.
    """

    def __init__(self, node: Node, shows: Mapping[str, Show]) -> None:
        self._node, self._shows = node, shows
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self, path: Path) -> None:
        """Serve at ``path``.

        Raises:
            BadInput: the socket cannot be made.
        """
        listener = listen(path, socket.SOCK_STREAM, 0o600)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=agent_rpc.MAX_LINE_BYTES)

    async def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        calls: set[asyncio.Task[None]] = set()

        def tell(line: bytes) -> None:
            if writer.transport.get_write_buffer_size() > _MAX_WAITING_BYTES:
                writer.transport.abort()  # a reader that does not read comes back and asks for what it missed
            elif not writer.is_closing():
                writer.write(line)

        try:
            if peer(writer.get_extra_info("socket")).uid not in {0, os.geteuid()}:
                tell(agent_rpc.refusal(None, "NotYours", "Only root and the agent's user may ask the agent."))
                return
            while True:
                line, is_whole = await _read_line(reader)
                if not line:
                    return
                if not is_whole:
                    limit = agent_rpc.MAX_LINE_BYTES
                    tell(agent_rpc.refusal(None, "BadRequest", f"A line has at most {limit} bytes."))
                    continue
                while len(calls) >= _MAX_CALLS:
                    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
                call = asyncio.create_task(self._call(line, tell))
                calls.add(call)
                call.add_done_callback(calls.discard)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._node.parts.news.leave(tell)
            self._connections.discard(task)
            # What was asked is done to its end; only the answers have nowhere to go.
            with contextlib.suppress(OSError):
                if not calls:
                    await writer.drain()
            writer.close()

    async def _call(self, line: bytes, tell: Callable[[bytes], None]) -> None:
        number: int | None = None
        try:
            request = agent_rpc.request(line)
            number = request.id
            answer = await self._do(request, tell)
            tell(agent_rpc.answer(number, answer))
        except BadInput as error:
            tell(agent_rpc.refusal(number, "BadRequest", f"{error.thing}: {error.problem}.", error.remedy))
        except Refused as error:
            refusal = error.refusal
            tell(agent_rpc.refusal(number, refusal.code, refusal.message, refusal.remedy))
        except OSError as error:
            log.warning("%s", error)
            tell(agent_rpc.refusal(number, "SystemError", f"This machine refused: {error}."))
        except Exception as error:
            log.exception("our own fault")
            tell(agent_rpc.refusal(number, "Internal", f"{type(error).__name__}: {error}", "Please report this"))

    async def _do(self, request: Request, tell: Callable[[bytes], None]) -> Answer:
        fields, feed = request.fields, self._node.feed
        if (show := self._shows.get(request.op)) is not None:
            shown = show()
            return await shown if isinstance(shown, Awaitable) else shown
        match request.op:
            case "tenants":
                tenants = self._node.machine.tenants.values()
                return {"tenants": [agent_rpc.tenant_fields(tenant) for tenant in tenants]}
            case "subscribe":
                return {"next_seq": self._node.parts.news.subscribe(tell, integer(fields, "from_seq", 0, 1 << 62, 0))}
            case "prepare":
                return await self._prepare(agent_rpc.tenant_of(fields))
            case "start" | "attach" | "signal" | "pause" | "unpause" | "park" | "wake" | "resize" | "unprepare":
                return await self._of_member(request.op, agent_rpc.key_of(fields), fields, feed)
            case other:
                raise BadInput("op", other, f"is not an operation: {other!r}", "Run pool and agent of one version")

    async def _prepare(self, tenant: Tenant) -> Answer:
        try:
            await self._node.feed(n.PrepareAsked(tenant))
        except (OSError, BadInput):
            await self._node.feed(n.UnprepareAsked(tenant.key))
            raise
        parts, place = self._node.parts, self._node.place(tenant.key)
        directory = parts.regions.directory(tenant.name)
        env = parts.env.of(directory, [grant.device for grant in tenant.grants])
        return {"env": env, "cgroup": place.cgroup, "tenant_dir": directory}

    async def _of_member(
        self, op: str, key: Key, fields: Mapping[str, Any], feed: Callable[[n.Event], Awaitable[None]]
    ) -> Answer:
        match op:
            case "start":
                await feed(n.StartAsked(key, str(fields.get("token")), agent_rpc.launch_of(fields)))
                return self._started(key)
            case "attach":
                await feed(n.AttachAsked(key, integer(fields, "pid", 1, 2**31 - 1)))
                return self._started(key)
            case "signal":
                number = integer(fields, "signal", 1, 64, _SIGTERM)
                grace_ms = integer(fields, "grace_ms", 0, 86_400_000, 0)
                await feed(n.SignalAsked(key, number, grace_ms))
            case "pause" | "unpause":
                await feed(n.PauseAsked(key, op == "pause"))
            case "park" | "wake":
                before = asyncio.get_running_loop().time()
                grants = agent_rpc.grants_of(fields) if op == "wake" and "grants" in fields else ()
                host_bytes = integer(fields, "host_bytes", -1, 1 << 62, -1)
                await feed(n.ParkAsked(key, op == "park", grants, host_bytes))
                return {"seconds": round(asyncio.get_running_loop().time() - before, 3)}
            case "resize":
                await feed(n.ResizeAsked(key, agent_rpc.grants_of(fields)))
            case _:
                await feed(n.UnprepareAsked(key))
        return {}

    def _started(self, key: Key) -> Answer:
        tenant = self._node.tenant(key)
        return {"pid": tenant.pid, "start_ticks": tenant.start_ticks} if tenant else {}


async def _read_line(reader: asyncio.StreamReader) -> tuple[bytes, bool]:
    """A line and whether all of it fits; a longer one is read to its end and thrown away."""
    is_whole = True
    while True:
        try:
            return await reader.readuntil(b"\n"), is_whole
        except asyncio.IncompleteReadError:
            return b"", is_whole
        except asyncio.LimitOverrunError as error:
            is_whole = False
            await reader.readexactly(error.consumed or 1)
