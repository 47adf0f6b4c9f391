"""An agent by script: it speaks the agent's protocol and starts nothing, so that the pool can be measured alone."""

import asyncio
import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexai.wire.agent_rpc import MAX_LINE_BYTES, VERSION

GIB = 1 << 30
_LOOK_S = 0.02


def plain_node(n_devices: int = 2, memory_bytes: int = 80 * GIB) -> dict[str, Any]:
    """A node of simulated cards, as an agent describes its own."""
    return {
        "name": "node",
        "cpu_milli": 64_000,
        "ram_bytes": 256 * GIB,
        "devices": [
            {
                "uuid": f"SIM-{i}", "model": "sim", "vendor": "simulated", "index": i, "memory_bytes": memory_bytes,
                "can_park": True,
            }
            for i in range(n_devices)
        ],
    }  # fmt: skip


@dataclass(slots=True)
class ScriptedAgent:
    """Serves ``agent.sock``; keeps its tenants when the connection is lost, as the real one does.

    Attributes:
        node: what ``hello`` says.
        run_s: a started member ends by itself after this long; None for never.
        deaf: signals are taken and change nothing.
        refuse: operation to error code, for those it will not do.
        mute: operations that it does and never answers.
        stuck: operations that it neither does nor answers.
        calls: every request, in order.
        starts: tokens of starts that were carried out.
        tenants: members held.
    """

    path: Path
    node: dict[str, Any] = field(default_factory=plain_node)
    run_s: float | None = None
    deaf: bool = False
    refuse: dict[str, str] = field(default_factory=dict)
    mute: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    calls: list[dict[str, Any]] = field(default_factory=list)
    starts: list[str] = field(default_factory=list)
    tenants: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    exit_code: Callable[[dict[str, Any]], int] = lambda _: 0
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _seq: int = 0

    @property
    def is_open(self) -> bool:
        """Whether it can be connected to."""
        return self._server is not None

    async def open(self) -> None:
        """Begin to serve."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._server = await asyncio.start_unix_server(self._serve, self.path, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        """Stop serving and cut the connections; the tenants stay."""
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.close()
            await self._server.wait_closed()
            self._server = None

    def end(self, job_id: str, member: int = 0, exit_code: int | None = 0, signal: int = 0, cause: str = "") -> None:
        """The processes of a member are gone."""
        tenant = self.tenants.get((job_id, member))
        if tenant is None or tenant["state"] == "finished":
            return
        tenant |= {"state": "finished", "exit_code": exit_code, "signal": signal, "cause": cause or "exited"}
        self.emit("finished", **tenant)

    def emit(self, event: str, **fields: Any) -> None:
        """Tell those who listen."""
        self._seq += 1
        line = json.dumps({**fields, "v": VERSION, "event": event, "seq": self._seq}).encode() + b"\n"
        for writer in self._writers:
            writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while line := await reader.readline():
                request = json.loads(line)
                self.calls.append(request)
                reply: dict[str, Any] = {"v": VERSION, "id": request["id"]}
                if code := self.refuse.get(request["op"]):
                    reply |= {"ok": False, "code": code, "message": "Refused by script.", "remedy": ""}
                elif request["op"] in self.stuck:
                    continue
                else:
                    reply |= {"ok": True, **self._do(request)}
                if request["op"] in self.mute:
                    continue
                writer.write(json.dumps(reply).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        key = request.get("job_id", ""), request.get("member", 0)
        match request["op"]:
            case "hello":
                return {"node": self.node, "privileged": False, "backends": {}, "notes": ["by script"]}
            case "tenants":
                return {"tenants": list(self.tenants.values())}
            case "prepare":
                if key not in self.tenants or self.tenants[key]["token"] != request["token"]:
                    self.tenants[key] = {
                        "job_id": key[0], "member": key[1], "token": request["token"], "state": "prepared", "pid": None,
                    }  # fmt: skip
                return {"env": {"FLEXAI_TENANT_DIR": f"/tenants/{key[0]}.{key[1]}"}, "cgroup": None, "tenant_dir": "/"}
            case "start" | "attach":
                return self._start(request, self.tenants[key])
            case "signal" if not self.deaf:
                self._after(0.0, lambda: self.end(*key, exit_code=None, signal=request["signal"]))
            case "park" | "wake":
                self.tenants[key]["parked"] = request["op"] == "park"
            case "unprepare":
                self.tenants.pop(key, None)
            case "doctor":
                return {"checks": [{"name": "script", "ok": True, "detail": "fine", "remedy": ""}]}
            case _:
                pass
        return {}

    def _start(self, request: dict[str, Any], tenant: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "attach":
            tenant |= {"state": "running", "pid": request["pid"]}
            self._watch(_key(request), request["pid"])
        elif tenant["state"] == "prepared":
            self.starts.append(request["token"])
            tenant |= {"state": "running", "pid": 1000 + len(self.starts)}
            if self.run_s is not None:
                self._after(self.run_s, lambda: self.end(*_key(request), exit_code=self.exit_code(request)))
        return {"pid": tenant["pid"], "start_ticks": 0}

    def _watch(self, key: tuple[str, int], pid: int) -> None:
        """The process of a ``run`` is its caller's: its end is seen, not how it ended."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            self.end(*key, exit_code=None)
        else:
            self._after(_LOOK_S, lambda: self._watch(key, pid))

    def _after(self, delay_s: float, act: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, act)


def _key(request: dict[str, Any]) -> tuple[str, int]:
    return request["job_id"], request["member"]
