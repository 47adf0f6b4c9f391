"""A pool that dies between any two commits: whatever the database and the agent then hold, the next pool makes good."""

import asyncio
import copy
import sqlite3

import pytest

from flexai.apps.bench.scripted_agent import ScriptedAgent
from flexai.apps.pool.service import Settings

from .conftest import assert_replayed_alike


async def busy_life(rig, points, tmp_path):
    """A little of everything, with a picture of disk and agent at each commit, and again before the next one."""
    journal, agent = rig.pool.journal, rig.agent
    commit = journal._commit

    def picture(acknowledged):
        path = tmp_path / f"point{len(points)}.db"
        with sqlite3.connect(path) as target:
            journal._connection.backup(target)
        target.close()
        points.append((path, copy.deepcopy(agent.tenants), list(agent.starts), list(acknowledged)))

    acknowledged = []

    def taking_pictures(*arguments):
        picture(acknowledged)  # what was done since the last commit may be done without its being written down
        error = commit(*arguments)
        picture(acknowledged)
        return error

    journal._commit = taking_pictures
    for fields in (
        {},
        {"n_members": 2, "compute_milli": 400},
        {"array": "0-1", "compute_milli": 300},
        {"held": True},
        {"after": ["1"]},
        {"compute_milli": 1000, "memory_bytes": 0},
    ):
        response = await rig.client.post("/v1/jobs", json={**JOB, **fields})
        acknowledged += response.json()["ids"]
    await rig.in_state("1", "running")
    await rig.in_state("2", "running")
    await rig.post("/v1/jobs/1/resize", compute_milli=300)
    agent.end("1", exit_code=0)
    await rig.in_state("1", "succeeded")
    await rig.post("/v1/jobs/2/cancel")
    await rig.in_state("2", "cancelled")
    await rig.post("/v1/jobs/4/release")
    await rig.in_state("4", "running")
    await rig.pool.core.stored()


JOB = {"command": ["true"], "cwd": "/", "compute_milli": 500, "memory_bytes": 1 << 30}


@pytest.mark.slow
async def test_every_point_between_commits_is_one_from_which_all_ends_well(new_rig, tmp_path):
    points = []
    async with new_rig() as rig:
        await busy_life(rig, points, tmp_path)
    assert len(points) > 20
    for number, (database, tenants, starts, acknowledged) in enumerate(points):
        directory = tmp_path / f"life{number}"
        for name in ("r", "s"):
            (directory / name).mkdir(parents=True)
        database.rename(directory / "s" / "pool.db")
        rig.settings = Settings(directory / "r", directory / "s")
        rig.agent = ScriptedAgent(directory / "r" / "agent.sock", run_s=0.0, starts=starts, tenants=tenants)
        await rig.agent.open()
        await rig.start()
        try:
            await all_end(rig)
            where = f"point {number} of {len(points)}: {rig.agent.starts}"
            assert len(rig.agent.starts) == len(set(rig.agent.starts)), where
            members = [token.rpartition(".")[0] for token in rig.agent.starts]
            assert len(members) == len(set(members)), where
            views = {view["id"]: view for view in (await rig.get("/v1/jobs"))["items"]}
            assert set(acknowledged) <= set(views), where
            for job_id, view in views.items():
                assert view["grants"] == [], where
                if view["state"] == "succeeded":
                    assert f"{job_id}.0.1" in rig.agent.starts, where
                else:
                    assert (job_id, view["state"]) == ("2", "cancelled"), where
            await rig.empty()
            usage = await rig.pool.reader.fetch("SELECT count(*) FROM usage WHERE to_ms IS NULL")
            assert usage == [(0,)], where
        finally:
            await rig.stop()
            await rig.agent.close()
        assert_replayed_alike(directory / "s")


async def all_end(rig):
    """What runs ends, what is held is released, until nothing is left."""
    async with asyncio.timeout(15):
        while True:
            items = (await rig.get("/v1/jobs", state="active"))["items"]
            if not items:
                break
            for view in items:
                if view["state"] == "held":
                    await rig.post(f"/v1/jobs/{view['id']}/release")
            for key, tenant in list(rig.agent.tenants.items()):
                if tenant["state"] == "running":
                    rig.agent.end(*key)
            await asyncio.sleep(0.01)
    await rig.pool.core.stored(5.0)
