"""A pool in this process over a scripted agent, and clients of its socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from flexai.apps.bench.scripted_agent import GIB, ScriptedAgent
from flexai.apps.pool import main, service
from flexai.model import Grant, JobState, PendingReason, Reason
from flexai.scheduling import commands as c
from flexai.scheduling import events as e


class Fifo:
    """First come, first served, first card that fits: enough of a scheduler to see the pool work."""

    def __init__(self):
        self.jobs, self.held, self.free, self.nodes = {}, {}, {}, {}

    def reason_for(self, job_id):
        job = self.jobs.get(job_id)
        if job is None or job_id in self.held:
            return None
        return PendingReason(Reason.HELD if job.held else Reason.NOT_ENOUGH_COMPUTE, "No card has room.")

    def step(self, event):
        out = []
        match event:
            case e.NodePut(node=node):
                self.nodes[node.name] = node
                for device in node.devices:
                    used = sum(g.compute_milli for gs in self.held.values() for g in gs if g.device == device.uuid)
                    self.free[device.uuid] = 1000 - used
            case e.JobSubmitted(job=job):
                self.jobs[job.id] = job
            case e.GrantsFound(job=job, grants=grants):
                self.jobs[job.id], self.held[job.id] = job, list(grants)
                self.free = {
                    uuid: free - sum(g.compute_milli for g in grants if g.device == uuid)
                    for uuid, free in self.free.items()
                }
            case e.JobHeld() | e.JobReleased():
                held = isinstance(event, e.JobHeld)
                self.jobs[event.job_id] = replace(self.jobs[event.job_id], held=held)
                state = JobState.HELD if held else JobState.QUEUED
                out.append(c.SetJobState(event.job_id, state, "asked"))
            case e.JobCancelled(job_id=job_id):
                if job_id in self.held:
                    out += [
                        c.Evict(job_id, m, 5000, requeue=False, cause="cancelled")
                        for m in sorted({g.member for g in self.held[job_id]})
                    ]
                elif job_id in self.jobs:
                    del self.jobs[job_id]
                    out.append(c.SetJobState(job_id, JobState.CANCELLED, "cancelled"))
            case e.JobResizeAsked(job_id=job_id):
                grants = tuple(
                    replace(g, compute_milli=event.compute_milli, limit_milli=event.limit_milli)
                    for g in self.held.get(job_id, ())
                )
                growth = sum(g.compute_milli for g in grants) - sum(g.compute_milli for g in self.held.get(job_id, ()))
                if grants and growth <= self.free[grants[0].device]:
                    self.free[grants[0].device] -= growth
                    self.held[job_id] = list(grants)
                    out.append(c.Resize(job_id, 0, grants, "asked"))
            case e.MemberStarted(job_id=job_id):
                out.append(c.SetJobState(job_id, JobState.RUNNING, "started"))
            case e.MemberFinished(job_id=job_id, member=member):
                for grant in [g for g in self.held.get(job_id, ()) if g.member == member]:
                    self.free[grant.device] = self.free.get(grant.device, 0) + grant.compute_milli
                    self.held[job_id].remove(grant)
                if not self.held.get(job_id):
                    self.held.pop(job_id, None)
                    self.jobs.pop(job_id, None)
                    cancelled = "cancel" in event.cause or "caller" in event.cause
                    state = (
                        JobState.CANCELLED
                        if cancelled
                        else (JobState.FAILED if event.exit_code else JobState.SUCCEEDED)
                    )
                    out.append(c.SetJobState(job_id, state, event.cause))
        return out + self.place()

    def place(self):
        out = []
        waiting = [
            j
            for j in self.jobs.values()
            if j.id not in self.held and not j.held and not any(a in self.jobs for a in j.after)
        ]
        for job in sorted(waiting, key=lambda j: j.seq):
            grants = []
            for member in range(job.n_members):
                for uuid, free in self.free.items():
                    if free >= job.request.compute_milli:
                        self.free[uuid] -= job.request.compute_milli
                        grants.append(
                            Grant(
                                job.id,
                                member,
                                "node",
                                uuid,
                                job.request.compute_milli,
                                job.request.limit_milli,
                                job.request.memory_bytes,
                                job.request.tenant_class,
                            )
                        )
                        break
            if len(grants) < job.n_members:
                for g in grants:
                    self.free[g.device] += g.compute_milli
                break
            self.held[job.id] = grants
            out += [c.Start(job.id, g.member, (g,), "fits") for g in grants]
            out.append(c.SetJobState(job.id, JobState.STARTING, "fits"))
        return out


def job(**fields) -> dict[str, Any]:
    return {"command": ["true"], "cwd": "/tmp", "compute_milli": 500, "memory_bytes": GIB} | fields


@dataclass
class Rig:
    directory: Path
    agent: ScriptedAgent
    settings: service.Settings
    pool: service.Pool | None = None
    client: httpx.AsyncClient | None = None
    scheduler: Any = Fifo
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


async def until(condition, timeout_s=10.0):
    async with asyncio.timeout(timeout_s):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def new_rig(tmp_path):
    @contextlib.asynccontextmanager
    async def make(agent=True, **agent_fields) -> AsyncIterator[Rig]:
        run, state = tmp_path / "r", tmp_path / "s"
        run.mkdir(exist_ok=True)
        rig = Rig(tmp_path, ScriptedAgent(run / "agent.sock", **agent_fields), service.Settings(run, state))
        if agent:
            await rig.agent.open()
        await rig.start()
        try:
            yield rig
        finally:
            await rig.stop()
            await rig.agent.close()

    return make


def pytest_pyfunc_call(pyfuncitem):
    """Tests written as coroutines run in a loop of their own."""
    if not asyncio.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True
