"""A pool in this process over a scripted agent, and clients of its socket."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from flexai.apps.bench.scripted_agent import GIB, ScriptedAgent
from flexai.apps.pool import main, service
from flexai.apps.simulator import recorded
from flexai.scheduling import Scheduler

_TO_CLOSE = []


def job(**fields) -> dict[str, Any]:
    return {"command": ["true"], "cwd": "/tmp", "compute_milli": 500, "memory_bytes": GIB} | fields


@dataclass
class Rig:
    directory: Path
    agent: ScriptedAgent
    settings: service.Settings
    pool: service.Pool | None = None
    client: httpx.AsyncClient | None = None
    scheduler: Any = Scheduler
    _task: asyncio.Task[int] | None = None

    async def start(self):
        """Start a pool on the state there is."""

        async def opened(*args):
            self.pool = await open_pool(*args)
            return self.pool

        open_pool = service.open_pool
        main.open_pool = opened
        try:
            self._task = asyncio.create_task(main.serve(self.settings, self.scheduler))
            self.client = httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(self.settings.run_dir / "pool.sock")),
                base_url="http://pool",
                timeout=20,
            )
            await until(self._answers)
            if self.agent.is_open:
                await until(self._connected)
        finally:
            main.open_pool = open_pool

    async def _answers(self):
        if self._task.done():
            self._task.result()
        try:
            return (await self.client.get("/v1/status")).status_code == 200
        except httpx.TransportError:
            return False

    async def _connected(self):
        return (await self.get("/v1/status"))["agent"]["connected"]

    async def empty(self):
        """The agent holds nothing more."""

        async def nothing():
            return not self.agent.tenants

        await until(nothing)

    async def stop(self):
        await self.client.aclose()
        if not self._task.done():
            self.pool.quit.set()
            await self._task

    async def submit(self, **fields) -> str:
        response = await self.client.post("/v1/jobs", json=job(**fields))
        assert response.status_code == 201, response.text
        return response.json()["ids"][0]

    async def get(self, path, **params):
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path, status=200, **body):
        response = await self.client.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def in_state(self, job_id, state):
        async def there():
            return (await self.get(f"/v1/jobs/{job_id}"))["state"] == state

        await until(there)
        return await self.get(f"/v1/jobs/{job_id}")


async def until(condition, timeout_s=60.0):
    async with asyncio.timeout(timeout_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def new_rig(tmp_path):
    @contextlib.asynccontextmanager
    async def make(agent=True, scheduler=None, options=(), **agent_fields) -> AsyncIterator[Rig]:
        run, state = tmp_path / "r", tmp_path / "s"
        run.mkdir(exist_ok=True)
        settings = main.settings_of(["--run-dir", str(run), "--state-dir", str(state), *options])
        rig = Rig(
            tmp_path,
            ScriptedAgent(run / "agent.sock", **agent_fields),
            settings,
            scheduler=scheduler or (lambda: Scheduler(settings.scheduler)),
        )
        if agent:
            await rig.agent.open()
        await rig.start()
        try:
            yield rig
        finally:
            await rig.stop()
            await rig.agent.close()

    return make


def assert_replayed_alike(state_dir: Path) -> None:
    """Every decision that a pool's processes took comes from its log again, byte for byte."""
    file = state_dir / "recorded.jsonl"
    file.write_text("\n".join(recorded.export(state_dir / "pool.db")))
    recording = recorded.read(file)
    made = [line for line in map(recorded.decision_of, recorded.decide(recording)) if line is not None]
    assert made == list(recording.decisions), f"{recording.n_pools} processes"


@dataclass
class PoolProcess:
    """A pool in a process of its own, to be killed."""

    run_dir: Path
    state_dir: Path
    environment: dict[str, str] | None = None
    process: subprocess.Popen[bytes] | None = None
    client: httpx.AsyncClient | None = None
    with_agent: bool = True
    options: tuple[str, ...] = ()

    async def start(self, *, with_agent=True):
        command = [sys.executable, "-m", "flexai.apps.pool", "--run-dir", self.run_dir, "--state-dir", self.state_dir]
        command += self.options
        environment = {**os.environ, **(self.environment or {})}
        with (self.run_dir / "pool.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stderr=log)  # noqa: ASYNC220  # returns at once
        transport = httpx.AsyncHTTPTransport(uds=str(self.run_dir / "pool.sock"))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://pool", timeout=20)
        _TO_CLOSE.append(self.client.aclose)
        self.with_agent = with_agent
        await until(self._answers)

    async def open_agent(self, **fields):
        agent = ScriptedAgent(self.run_dir / "agent.sock", **fields)
        await agent.open()
        _TO_CLOSE.append(agent.close)
        return agent

    async def _answers(self):
        assert self.process.poll() is None, (self.run_dir / "pool.log").read_text()
        try:
            return (await self.client.get("/v1/status")).json()["agent"]["connected"] or not self.with_agent
        except httpx.TransportError:
            return False

    async def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    async def get(self, path, **params):
        response = await self.client.get(path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def shows(self, path, condition, timeout_s=60):
        async def there():
            return condition(await self.get(path))

        await until(there, timeout_s)


@pytest.fixture
def pool_process(tmp_path):
    processes = []

    def make(**fields):
        (tmp_path / "r").mkdir(exist_ok=True)
        processes.append(PoolProcess(tmp_path / "r", tmp_path / "s", **fields))
        return processes[-1]

    yield make
    for pool in processes:
        if pool.process is not None and pool.process.poll() is None:
            pool.process.kill()
            pool.process.wait()


@pytest.fixture
def shows():
    """Look again and again until what is looked at is as it should be; then that."""

    async def wait(look, condition):
        seen = []

        async def there():
            seen[:] = [await look()]
            return condition(seen[0])

        await until(there)
        return seen[0]

    return wait


def pytest_pyfunc_call(pyfuncitem):
    """Tests written as coroutines run in a loop of their own."""
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run():
        try:
            await pyfuncitem.obj(**arguments)
        finally:
            while _TO_CLOSE:
                await _TO_CLOSE.pop()()

    asyncio.run(run())
    return True
