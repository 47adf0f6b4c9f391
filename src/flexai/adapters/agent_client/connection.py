"""One connection to the agent that comes back whenever the agent does."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flexai.wire.agent_rpc import MAX_LINE_BYTES, VERSION

log = logging.getLogger("flexai.pool.agent")

_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.0
_CALL_TIMEOUT_S = 60.0


class AgentAway(Exception):
    """The agent cannot be asked now; what was asked may or may not have happened."""


class AgentRefused(Exception):
    """The agent answered that it will not.

    Attributes:
        code: stable PascalCase code.
        message: one sentence.
        remedy: what helps.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        self.code, self.message, self.remedy = code, message, remedy
        super().__init__(f"{message} {remedy}".strip())


class AgentClient:
    """Calls the agent and hands over its events.

    ``on_connect`` runs each time a connection stands, before anything else is told of it; while it runs, calls work.
    When it raises, the connection is given up and made anew.
    """

    def __init__(
        self,
        path: Path,
        on_event: Callable[[dict[str, Any]], None],
        on_connect: Callable[[], Awaitable[None]],
    ) -> None:
        self._path, self._on_event, self._on_connect = path, on_event, on_connect
        self._writer: asyncio.StreamWriter | None = None
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next_id = 0
        self.is_connected = False

    async def call(self, op: str, timeout_s: float = _CALL_TIMEOUT_S, **fields: Any) -> dict[str, Any]:
        """Ask, and wait for the answer.

        Raises:
            AgentAway: no connection, lost while waiting, or no answer in time.
            AgentRefused: the agent said no.
        """
        if self._writer is None:
            raise AgentAway("the agent is not connected")
        self._next_id += 1
        number = self._next_id
        line = json.dumps({"v": VERSION, "id": number, "op": op, **fields}, separators=(",", ":")).encode() + b"\n"
        if len(line) > MAX_LINE_BYTES:
            raise AgentRefused("TooLarge", f"{op} takes {len(line)} bytes; a message has at most {MAX_LINE_BYTES}.", "")
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self._writer.write(line)
            async with asyncio.timeout(timeout_s):
                reply = await answer
        except TimeoutError:
            raise AgentAway(f"no answer to {op} within {timeout_s:g} s") from None
        finally:
            self._waiting.pop(number, None)
        if reply.get("ok") is not True:
            code, message, remedy = (str(reply.get(name, "")) for name in ("code", "message", "remedy"))
            raise AgentRefused(code or "Refused", message or f"the agent refused {op}", remedy)
        return reply

    async def run(self) -> None:
        """Stay connected as long as the process lives."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path, limit=MAX_LINE_BYTES)
            except OSError:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, _LONGEST_DELAY_S)
                continue
            try:
                await self._serve(reader, self._writer)
                delay_s = _FIRST_DELAY_S
            finally:
                self._lost()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _LONGEST_DELAY_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = asyncio.create_task(self._greet(writer))
        try:
            while line := await reader.readline():
                self._take(line)
        except (OSError, ValueError) as error:
            log.warning("connection to the agent lost: %s", error)
        finally:
            greeting.cancel()
            await asyncio.gather(greeting, return_exceptions=True)

    async def _greet(self, writer: asyncio.StreamWriter) -> None:
        try:
            await self._on_connect()
            self.is_connected = True
            log.info("connected to the agent at %s", self._path)
        except Exception as error:
            log.warning("the agent at %s does not answer as expected: %s", self._path, error)
            writer.close()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            log.warning("malformed line from the agent: %r", line[:200])
        elif "event" in message:
            try:
                self._on_event(message)
            except Exception:
                log.exception("event of the agent: %r", line[:200])
        elif (waiting := self._waiting.get(message.get("id", 0))) is not None and not waiting.done():
            waiting.set_result(message)

    def _lost(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self.is_connected = None, False
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(AgentAway("the connection to the agent was lost"))
