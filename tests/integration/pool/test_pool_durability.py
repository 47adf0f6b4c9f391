"""What was acknowledged is there after any kill; what runs is found again; nothing runs twice."""

import asyncio
import random
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flexai.apps.bench.scripted_agent import GIB

from .conftest import assert_replayed_alike

HERE = Path(__file__).parent


def job(**fields):
    return {"command": ["true"], "cwd": "/tmp", "compute_milli": 500, "memory_bytes": GIB} | fields


@pytest.fixture(scope="session")
def lossy_disk(tmp_path_factory):
    """The library that forgets what was not synced."""
    library = tmp_path_factory.mktemp("lossy") / "drop_unsynced.so"
    source = HERE / "drop_unsynced.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


async def submit_forever(pool, acknowledged):
    while True:
        try:
            response = await pool.client.post("/v1/jobs", json=job(compute_milli=400))
        except (httpx.TransportError, RuntimeError):
            return
        if response.status_code == 201:
            acknowledged += response.json()["ids"]


async def all_jobs(pool):
    items, cursor = [], ""
    while cursor is not None:
        page = await pool.get("/v1/jobs", limit=1000, cursor=cursor)
        items, cursor = items + page["items"], page["cursor"]
    return items


@pytest.mark.parametrize(("unsynced", "n_lives"), [("dropped", 3), pytest.param("kept", 10, marks=pytest.mark.slow)])
async def test_what_was_acknowledged_survives_kills_and_nothing_starts_twice(
    pool_process, tmp_path, lossy_disk, unsynced, n_lives
):
    rng = random.Random(7)
    pool = pool_process()
    agent = await pool.open_agent(run_s=0.02)
    acknowledged: list[str] = []
    for life in range(n_lives):
        if unsynced == "dropped":
            durable = tmp_path / f"durable{life}"
            durable.mkdir()
            # Copying is itself a sync: what is there when a life begins is on the disk.
            if pool.state_dir.exists():
                for path in pool.state_dir.glob("pool.db*"):
                    shutil.copy(path, durable)
            pool.environment = {
                "LD_PRELOAD": str(lossy_disk),
                "FLEXAI_DISK": str(pool.state_dir),
                "FLEXAI_DURABLE": str(durable),
            }
        await pool.start()
        listed = {item["id"] for item in await all_jobs(pool)}
        assert set(acknowledged) <= listed
        crowd = [asyncio.create_task(submit_forever(pool, acknowledged)) for _ in range(4)]
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        await pool.kill()
        await asyncio.gather(*crowd)
        if unsynced == "dropped":
            assert (durable / "pool.db-wal").stat().st_size > 0
            shutil.rmtree(pool.state_dir)
            shutil.move(durable, pool.state_dir)
    pool.environment = None
    agent.run_s = 0.0
    for key in [key for key, tenant in agent.tenants.items() if tenant["state"] == "running"]:
        agent.end(*key)
    await pool.start()
    n_jobs = len(acknowledged)
    assert n_jobs > 20
    await pool.shows("/v1/status", lambda status: not any(status["jobs"].values()), timeout_s=60)
    assert len(agent.starts) == len(set(agent.starts))
    jobs = {token.rpartition(".")[0] for token in agent.starts}
    assert len(jobs) == len(agent.starts), "a job was started twice"
    assert {f"{job_id}.0" for job_id in acknowledged} <= jobs
    await pool.kill()
    assert_replayed_alike(pool.state_dir)


async def test_running_jobs_are_found_again_and_queued_ones_keep_their_order(pool_process):
    pool = pool_process()
    agent = await pool.open_agent()
    await pool.start()
    ids = [
        (await pool.client.post("/v1/jobs", json=job(compute_milli=1000, memory_bytes=0))).json()["ids"][0]
        for _ in range(6)
    ]
    await pool.shows("/v1/status", lambda status: status["jobs"]["running"] == 2)
    await pool.kill()
    agent.end(ids[0], exit_code=5)  # while nobody listens
    await pool.start()
    await pool.shows(f"/v1/jobs/{ids[2]}", lambda view: view["state"] == "running")
    views = [await pool.get(f"/v1/jobs/{job_id}") for job_id in ids]
    assert [view["state"] for view in views] == ["failed", "running", "running", "queued", "queued", "queued"]
    assert views[0]["exit_code"] == 5
    assert [view["position"] for view in views[3:]] == [1, 2, 3]
    assert views[1]["started_at_ms"] is not None
    assert agent.starts == [f"{job_id}.0.1" for job_id in ids[:3]]


async def test_what_the_agent_lost_is_lost_and_what_it_holds_for_nobody_is_ended(pool_process):
    pool = pool_process()
    agent = await pool.open_agent()
    await pool.start()
    (job_id,) = (await pool.client.post("/v1/jobs", json=job())).json()["ids"]
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "running")
    await agent.close()
    agent.tenants = {("99", 0): {"job_id": "99", "member": 0, "token": "99.0.1", "state": "running", "pid": 1}}
    await agent.open()
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "failed" and not agent.tenants)
    assert "lost" in (await pool.get(f"/v1/jobs/{job_id}"))["cause"]


async def test_a_second_pool_on_the_same_state_says_which_process_has_it(pool_process):
    pool = pool_process()
    await pool.open_agent()
    await pool.start()
    command = [sys.executable, "-m", "flexai.apps.pool", "--run-dir", pool.run_dir, "--state-dir", pool.state_dir]
    second = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"'pid {pool.process.pid}' is in use by another pool" in second.stderr
    assert (await pool.get("/v1/status"))["pool"]["pid"] == pool.process.pid


async def test_a_live_caller_of_run_comes_back_to_the_pool_and_gets_its_grant(pool_process):
    pool = pool_process()
    agent = await pool.open_agent()
    await pool.start()
    blocker = (await pool.client.post("/v1/jobs", json=job(compute_milli=1000, memory_bytes=0, n_members=2))).json()
    (job_id,) = (await pool.client.post("/v1/jobs", json=job(kind="run"))).json()["ids"]
    async with pool.client.stream("GET", f"/v1/jobs/{job_id}/grant") as response:
        lines = response.aiter_lines()
        assert '"queued"' in await anext(lines)
        pool.process.kill()
        with pytest.raises((httpx.TransportError, StopAsyncIteration)):
            await anext(lines)
    await pool.kill()
    for member in range(2):
        agent.end(blocker["ids"][0], member)
    await pool.start()
    async with pool.client.stream("GET", f"/v1/jobs/{job_id}/grant") as response:
        said = [line async for line in response.aiter_lines()]
    assert '"granted"' in said[-1]
    assert f"/tenants/{job_id}.0" in said[-1]


@pytest.mark.slow
async def test_a_job_that_was_being_cancelled_when_the_pool_died_ends_as_cancelled(pool_process):
    pool = pool_process()
    agent = await pool.open_agent(deaf=True)
    await pool.start()
    (job_id,) = (await pool.client.post("/v1/jobs", json=job())).json()["ids"]
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "running")
    assert (await pool.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 200
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "stopping")
    await pool.kill()
    await pool.start()
    assert (await pool.get(f"/v1/jobs/{job_id}"))["state"] == "stopping"
    agent.end(job_id, exit_code=None, signal=15)
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "cancelled")


async def test_a_job_that_was_being_evicted_when_the_pool_died_goes_back_to_its_queue(pool_process):
    pool = pool_process()
    agent = await pool.open_agent(deaf=True)
    await pool.start()
    (job_id,) = (await pool.client.post("/v1/jobs", json=job())).json()["ids"]
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "running")
    for card in (0, 1):
        assert (await pool.client.post(f"/v1/devices/{card}/drain")).status_code == 200
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "stopping")
    await pool.kill()
    await pool.start()
    agent.end(job_id, exit_code=None, signal=15)
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "queued")
    assert (await pool.client.post("/v1/devices/1/uncordon")).status_code == 200
    await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == "running")
    assert agent.starts == [f"{job_id}.0.1", f"{job_id}.0.2"]


@pytest.mark.slow
async def test_a_job_cancelled_while_its_agent_is_away_holds_its_card_until_it_is_gone(pool_process):
    pool = pool_process()
    agent = await pool.open_agent()
    await pool.start()
    first, second = [
        (await pool.client.post("/v1/jobs", json=job(compute_milli=1000, memory_bytes=0, n_members=2))).json()["ids"][0]
        for _ in range(2)
    ]
    await pool.shows(f"/v1/jobs/{first}", lambda view: view["state"] == "running")
    await pool.kill()
    await agent.close()
    await pool.start(with_agent=False)
    assert (await pool.client.post(f"/v1/jobs/{first}/cancel")).status_code == 200
    await pool.shows(f"/v1/jobs/{first}", lambda view: view["state"] == "stopping")
    await agent.open()
    await pool.shows(f"/v1/jobs/{first}", lambda view: view["state"] == "cancelled")
    await pool.shows(f"/v1/jobs/{second}", lambda view: view["state"] == "running")
    order = [(call["op"], call["job_id"]) for call in agent.calls if call["op"] in {"signal", "start"}]
    assert order.index(("signal", first)) < order.index(("start", second))
