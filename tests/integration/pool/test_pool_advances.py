"""A pool that is started again knows what queues' large jobs had beyond their share."""

from .conftest import assert_replayed_alike, until

BOTH = {"compute_milli": 1000, "memory_bytes": 0, "n_devices": 2}
ONE = {"compute_milli": 1000, "memory_bytes": 0}


async def test_what_large_jobs_had_is_made_up_for_after_a_restart_too(new_rig):
    async with new_rig() as rig:
        for name in ("large", "small"):
            assert (await rig.client.put(f"/v1/queues/{name}", json={"weight": 1000})).status_code < 300
        first = await rig.submit(queue="large", **BOTH)
        await rig.in_state(first, "running")
        waits = [await rig.submit(queue=name, **ask) for name, ask in (("large", BOTH), ("small", ONE))]

        async def owes():
            return (await rig.get(f"/v1/jobs/{waits[0]}"))["reason"]["code"] == "FairShare"

        await until(owes)
        await rig.pool.core.stored()
        before = dict(rig.pool.core.book.advances)
        await rig.stop()
        await rig.start()
        await rig.pool.core.stored()
        assert before
        advances = rig.pool.core.scheduler.state.advances
        for at, noted in before.items():
            assert advances[at].owed >= noted.owed > 0
            assert (advances[at].share_milli, advances[at].held_milli) == (noted.share_milli, noted.held_milli)
        told = (await rig.get(f"/v1/jobs/{waits[0]}"))["reason"]
        assert (told["code"], told["numbers"]["held_milli"]) == ("FairShare", 2000)
        rig.agent.end(first)
        await rig.in_state(waits[1], "running")
        assert (await rig.get(f"/v1/jobs/{waits[0]}"))["state"] == "queued", "it makes up for what the first had"
        await rig.pool.core.stored()
        assert_replayed_alike(rig.settings.state_dir)
