"""How fast the pool is: a pool of its own with a scripted agent, measured over its socket as clients would."""

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexai.apps.bench.scripted_agent import GIB, ScriptedAgent, plain_node

_START_S = 30.0


@dataclass(frozen=True, slots=True)
class SubmitRate:
    """Durable submissions over the socket.

    Attributes:
        n_clients: connections, each with one request under way.
        n_jobs: acknowledged.
        jobs_per_s: over all clients.
        p50_ms, p99_ms: of one request.
    """

    n_clients: int
    n_jobs: int
    jobs_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """A long queue while the pool decides.

    Attributes:
        n_queued: jobs that wait.
        list_p50_ms, list_max_ms: first page of ``GET /v1/jobs``.
        decision_p50_us, decision_p99_us: of one step of the scheduler.
        end_to_start_p50_ms, end_to_start_p99_ms: from the end of one job to the start of the next at the agent.
    """

    n_queued: int
    list_p50_ms: float
    list_max_ms: float
    decision_p50_us: int
    decision_p99_us: int
    end_to_start_p50_ms: float
    end_to_start_p99_ms: float


@contextlib.asynccontextmanager
async def loaded_pool(
    n_devices: int = 8, command: tuple[str, ...] = (sys.executable, "-m", "flexai.apps.pool")
) -> AsyncIterator[tuple[Path, ScriptedAgent]]:
    """A pool process on directories of its own, with a scripted agent; yields its socket and the agent."""
    with tempfile.TemporaryDirectory(prefix="flexai-bench-") as name:
        run_dir, state_dir = Path(name) / "r", Path(name) / "s"
        run_dir.mkdir()
        agent = ScriptedAgent(run_dir / "agent.sock", node=plain_node(n_devices))
        await agent.open()
        log = (run_dir / "pool.log").open("wb")
        process = await asyncio.create_subprocess_exec(
            *command, "--run-dir", str(run_dir), "--state-dir", str(state_dir), stderr=log
        )
        try:
            async with asyncio.timeout(_START_S):
                await _answers(run_dir / "pool.sock", process, run_dir / "pool.log")
            yield run_dir / "pool.sock", agent
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            await agent.close()
            log.close()


class Client:
    """One connection that speaks just enough HTTP to ask for JSON: the client must not be what is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, path: Path) -> "Client":
        """Connect to the pool's socket; raises OSError."""
        return cls(*await asyncio.open_unix_connection(path))

    async def ask(self, method: str, path: str, body: bytes = b"") -> Any:
        """The answer's JSON; raises RuntimeError for a status of 400 or above."""
        head = f"{method} {path} HTTP/1.1\r\nhost: pool\r\ncontent-length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        headers = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2])
            for line in headers.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        content = await self._reader.readexactly(length)
        if int(headers[9:12]) >= 400:
            raise RuntimeError(content.decode())
        return json.loads(content)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def submit_rate(path: Path, n_clients: int, seconds: float) -> SubmitRate:
    """Submit held jobs from several clients for a while; held ones cost the scheduler nothing and never start."""
    clients = [await Client.connect(path) for _ in range(n_clients)]
    body = submission(held=True)
    times_s: list[float] = []
    until_s = time.perf_counter() + seconds

    async def submit(client: Client) -> None:
        while (began_s := time.perf_counter()) < until_s:
            await client.ask("POST", "/v1/jobs", body)
            times_s.append(time.perf_counter() - began_s)

    began_s = time.perf_counter()
    await asyncio.gather(*(submit(client) for client in clients))
    took_s = time.perf_counter() - began_s
    for client in clients:
        client.close()
    return SubmitRate(
        n_clients, len(times_s), len(times_s) / took_s, _at(times_s, 0.50) * 1e3, _at(times_s, 0.99) * 1e3
    )


async def queue_load(path: Path, agent: ScriptedAgent, n_queued: int, n_ends: int = 200) -> QueueLoad:
    """Fill the queue behind running jobs, then end jobs one by one while clients look at the list."""
    client = await Client.connect(path)
    last = n_queued - 1
    for first in range(0, n_queued, 1000):
        body = submission(array=f"{first}-{min(first + 999, last)}", compute_milli=1000, memory_bytes=0)
        await client.ask("POST", "/v1/jobs", body)
    await _settled(client, n_queued - len(agent.node["devices"]))
    lists_s: list[float] = []
    waits_s: list[float] = []
    looking = asyncio.create_task(_look(path, lists_s))
    for _ in range(n_ends):
        n_started = len(agent.starts)
        job_id = next(key[0] for key, tenant in agent.tenants.items() if tenant["state"] == "running")
        began_s = time.perf_counter()
        agent.end(job_id)
        while len(agent.starts) == n_started:  # noqa: ASYNC110  # the time is what is measured
            await asyncio.sleep(0.0005)
        waits_s.append(time.perf_counter() - began_s)
    looking.cancel()
    status = await client.ask("GET", "/v1/status")
    client.close()
    decisions = status["pool"]["decision_us"]
    return QueueLoad(
        status["jobs"]["queued"], _at(lists_s, 0.5) * 1e3, max(lists_s) * 1e3, decisions["p50"], decisions["p99"],
        _at(waits_s, 0.5) * 1e3, _at(waits_s, 0.99) * 1e3,
    )  # fmt: skip


def submission(**fields: Any) -> bytes:
    """The body of a submission with an environment as large as a user's usually is."""
    env = {f"VARIABLE_{i}": "x" * 40 for i in range(40)}
    body = {"command": ["python", "train.py"], "cwd": "/", "env": env, "compute_milli": 500, "memory_bytes": GIB}
    return json.dumps({**body, **fields}).encode()


async def _look(path: Path, lists_s: list[float]) -> None:
    client = await Client.connect(path)
    try:
        while True:
            began_s = time.perf_counter()
            await client.ask("GET", "/v1/jobs")
            lists_s.append(time.perf_counter() - began_s)
            await asyncio.sleep(0.05)
    finally:
        client.close()


async def _settled(client: Client, n_queued: int) -> None:
    while True:
        jobs = (await client.ask("GET", "/v1/status"))["jobs"]
        if jobs["queued"] == n_queued and not jobs["starting"]:
            return
        await asyncio.sleep(0.1)


async def _answers(path: Path, process: asyncio.subprocess.Process, log: Path) -> None:
    while True:
        if process.returncode is not None:
            said = await asyncio.to_thread(log.read_text)
            raise RuntimeError(f"the pool ended with {process.returncode}: {said}")
        try:
            client = await Client.connect(path)
        except OSError:
            await asyncio.sleep(0.02)
            continue
        status = await client.ask("GET", "/v1/status")
        client.close()
        if status["agent"]["connected"]:
            return
        await asyncio.sleep(0.02)


def _at(times_s: list[float], part: float) -> float:
    ordered = sorted(times_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


async def measure(seconds: float = 3.0, n_queued: int = 10_000) -> dict[str, Any]:
    """All measurements of the pool: for 1 and 16 clients, and with a long queue."""
    results: dict[str, Any] = {"n_cpus": os.cpu_count()}
    async with loaded_pool() as (path, _):
        for n_clients in (1, 16):
            results[f"submit_{n_clients}"] = await submit_rate(path, n_clients, seconds)
    async with loaded_pool() as (path, agent):
        results["queue"] = await queue_load(path, agent, n_queued)
    return results
