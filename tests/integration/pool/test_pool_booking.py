"""A pool that is started again knows which places were booked, and for whom."""

from flexai.apps.bench.scripted_agent import GIB

from .conftest import assert_replayed_alike

HALF = {"compute_milli": 500, "memory_bytes": 20 * GIB}


async def test_who_waits_for_the_victims_of_another_has_its_place_after_a_restart_too(new_rig):
    async with new_rig(deaf=True) as rig:
        for name, quota in (("owner", 2000), ("guest", 0)):
            assert (await rig.client.put(f"/v1/queues/{name}", json={"quota_milli": quota})).status_code < 300
        guests = [await rig.submit(queue="guest", compute_milli=1000, memory_bytes=40 * GIB) for _ in range(2)]
        for job_id in guests:
            await rig.in_state(job_id, "running")
        first = await rig.submit(queue="owner", **HALF)
        second = await rig.submit(queue="owner", **HALF)  # has its place where the victim of the first will leave
        (victim,) = [job_id for job_id in guests if (await rig.get(f"/v1/jobs/{job_id}"))["state"] == "stopping"]
        before = rig.pool.core.scheduler.state
        assert {*before.booked} == {first, second}
        await rig.pool.core.stored()
        await rig.stop()
        await rig.start()
        after = rig.pool.core.scheduler.state
        assert {name: one.place for name, one in after.booked.items()} == {
            name: one.place for name, one in before.booked.items()
        }
        rig.agent.end(victim, exit_code=None, signal=15)
        await rig.in_state(first, "running")
        await rig.in_state(second, "running")
        assert rig.agent.starts.count(f"{first}.0.1") == rig.agent.starts.count(f"{second}.0.1") == 1
        await rig.pool.core.stored()
        assert_replayed_alike(rig.settings.state_dir)
        active = rig.pool.core.book.active
        assert not any(active[job_id].members[0].booked for job_id in (first, second)), "they have it"
