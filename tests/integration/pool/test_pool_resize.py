"""A gang with roles is resized role by role, and a pool that is started again knows it."""

from flexai.apps.bench.scripted_agent import GIB

from .conftest import assert_replayed_alike, until

LEADER = {"name": "leader", "compute_milli": 100, "memory_bytes": GIB}
WORKER = {"name": "worker", "n_members": 4, "min_member": 1, "compute_milli": 200, "memory_bytes": GIB}
GANG = {"command": ["work"], "cwd": "/tmp", "roles": [LEADER, WORKER]}


async def shares(rig, job_id):
    return [grant["compute_milli"] for grant in (await rig.get(f"/v1/jobs/{job_id}"))["grants"]]


async def test_a_resized_gang_is_the_same_after_a_restart(new_rig):
    async with new_rig() as rig:
        job_id = (await rig.post("/v1/jobs", status=201, **GANG))["ids"][0]
        await rig.in_state(job_id, "running")
        resize = f"/v1/jobs/{job_id}/resize"
        await rig.post(resize, role="worker", compute_milli=150)
        view = await rig.post(resize, role="worker", n_members=2)
        assert view["request"]["roles"][1]["most_at_once"] == 2
        for member in (4, 3):
            await until(lambda member=member: stopped(rig, job_id, member))
        assert await shares(rig, job_id) == [100, 150, 150]
        refused = await rig.post(resize, status=409, role="worker", compute_milli=900)
        assert refused["code"] == "NotEnoughCompute"
        assert refused["message"].startswith(f"Job {job_id} keeps what it has. It runs on card 0, which has 60 % free")
        await rig.pool.core.stored()
        await rig.stop()
        await rig.start()
        assert await shares(rig, job_id) == [100, 150, 150]
        await rig.post(resize, role="worker", n_members=3)
        assert await shares(rig, job_id) == [100, 150, 150, 150]
        await rig.pool.core.stored()
        assert_replayed_alike(rig.settings.state_dir)


async def stopped(rig, job_id, member):
    return (await rig.get(f"/v1/jobs/{job_id}"))["members"][member]["state"] == "waiting"


async def test_what_cannot_be_resized_says_why(new_rig):
    async with new_rig() as rig:
        job_id = (await rig.post("/v1/jobs", status=201, **GANG))["ids"][0]
        whole = await rig.submit(compute_milli=1000, memory_bytes=0)
        for body, told in (
            ({"role": "boss", "n_members": 2}, "role 'boss' is no role of job 1."),
            ({"n_members": 2}, "role is needed: job 1 has several"),
            ({"role": "worker", "n_members": 5}, "is no number of members that it can run with"),
            ({"role": "leader", "n_members": 2}, "is no number of members that it can run with"),
            ({"role": "worker", "n_members": 2, "compute_milli": 100}, "together with a number of members"),
            ({}, "compute_milli is missing"),
        ):
            refused = await rig.post(f"/v1/jobs/{job_id}/resize", status=400, **body)
            assert told in refused["message"], refused
        refused = await rig.post(f"/v1/jobs/{whole}/resize", status=409, compute_milli=500)
        assert refused["code"] == "IsWhole"
        refused = await rig.post(f"/v1/jobs/{whole}/resize", status=400, role="worker", compute_milli=500)
        assert "is no role" in refused["message"]
