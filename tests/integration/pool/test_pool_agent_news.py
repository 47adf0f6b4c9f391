"""What the agent tells the pool beside the starts and ends of members."""

import logging
import os

from flexai.apps.bench.scripted_agent import GIB
from flexai.scheduling import Scheduler
from flexai.scheduling.events import JobSubmitted

from .conftest import until


class Frail(Scheduler):
    """A scheduler with a bug of ours in it."""

    def step(self, event):
        if isinstance(event, JobSubmitted) and event.job.priority == 666:
            raise ZeroDivisionError
        return super().step(event)


async def test_a_bug_in_the_scheduler_costs_the_job_that_met_it_and_nothing_else(new_rig, shows, caplog):
    caplog.set_level(logging.CRITICAL)
    async with new_rig(scheduler=Frail) as rig:
        rig.agent.emit("device", uuid="SIM-0", health="unhealthy", note="")
        await shows(lambda: card(rig), lambda view: view["health"] == "unhealthy")
        running = await rig.submit(compute_milli=600)
        waiting = await rig.submit(compute_milli=600)
        await rig.in_state(running, "running")
        bad = await rig.submit(priority=666)
        view = await rig.in_state(bad, "failed")
        assert "internal error" in view["cause"]
        assert (await rig.get(f"/v1/jobs/{waiting}"))["state"] == "queued"
        rig.agent.end(running)
        assert (await rig.in_state(waiting, "running"))["grants"][0]["device"] == "SIM-1"
        assert (await rig.get(f"/v1/jobs/{running}"))["state"] == "succeeded"


async def asked(rig, op):
    return op in {call["op"] for call in rig.agent.calls}


def usage(job_id, got_milli, device="SIM-0"):
    slice_ = {"job_id": job_id, "member": 0, "device": device, "got_milli_1s": got_milli, "got_milli_10s": got_milli,
              "wanted_milli": got_milli, "used_bytes": 123}  # fmt: skip
    card = {"uuid": device, "backend": "gate", "source": "gate", "round_ns": 100_000_000, "note": ""}
    return {"tenants": [slice_], "devices": [card]}


async def card(rig, index=0):
    return (await rig.get("/v1/devices"))["items"][index]


async def test_a_sick_card_takes_no_work_until_it_is_well_or_its_agent_begins_anew(new_rig, shows):
    async with new_rig() as rig:
        for index in range(2):
            rig.agent.emit("device", uuid=f"SIM-{index}", health="unhealthy", note="fell off the bus")
        await shows(lambda: card(rig, 1), lambda view: view["health"] == "unhealthy")
        job_id = await rig.submit()
        view = await rig.get(f"/v1/jobs/{job_id}")
        assert (view["state"], view["reason"]["code"]) == ("queued", "NoDevices")
        rig.agent.emit("device", uuid="SIM-1", health="healthy", note="")
        assert (await rig.in_state(job_id, "running"))["grants"][0]["device"] == "SIM-1"
        await rig.agent.close()
        await rig.agent.open()
        await shows(lambda: card(rig), lambda view: view["health"] == "healthy")


async def test_memory_held_by_strangers_is_not_given_away(new_rig, shows):
    async with new_rig() as rig:
        for index in range(2):
            rig.agent.emit("foreign", uuid=f"SIM-{index}", memory_bytes=70 * GIB, compute_milli=0)
        await shows(lambda: card(rig, 1), lambda view: view["foreign_memory_bytes"] == 70 * GIB)
        job_id = await rig.submit(memory_bytes=20 * GIB)
        why = await rig.get(f"/v1/jobs/{job_id}/explain")
        assert why["reason"]["code"] in {"NotEnoughMemory", "TooLarge"}
        assert "has 10 GiB of its memory free, not 20 GiB" in why["cards"][0]["says"]
        rig.agent.emit("foreign", uuid="SIM-0", memory_bytes=0, compute_milli=0)
        await rig.in_state(job_id, "running")


async def test_what_a_slice_got_is_shown_beside_what_it_asked_for(new_rig, shows):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        rig.agent.emit("usage", **usage(job_id, 480))
        view = await shows(lambda: card(rig), lambda view: view["slices"][0].get("got_milli_1s"))
        assert (view["slices"][0]["asked_milli"], view["slices"][0]["got_milli_1s"]) == (500, 480)
        assert (view["slices"][0]["used_bytes"], view["backend"], view["accounting"]) == (123, "gate", "gate")
        assert view["round_ms"] == 100


async def test_best_effort_work_starts_on_compute_that_is_measured_idle(new_rig):
    async with new_rig() as rig:
        owner = await rig.submit(compute_milli=1000, memory_bytes=GIB)
        other = await rig.submit(compute_milli=1000, memory_bytes=0)
        await rig.in_state(other, "running")
        borrower = await rig.submit(tenant_class="best_effort", compute_milli=300)
        assert (await rig.get(f"/v1/jobs/{borrower}"))["state"] == "queued"
        device = (await rig.get(f"/v1/jobs/{owner}"))["grants"][0]["device"]
        rig.agent.emit("usage", **usage(owner, 100, device))
        view = await rig.in_state(borrower, "running")
        assert (view["grants"][0]["device"], view["grants"][0]["compute_milli"]) == (device, 0)


async def test_of_two_queues_that_would_borrow_the_one_that_holds_less_is_first_and_history_says_so(new_rig):
    async with new_rig() as rig:
        for name in ("a", "b"):
            assert (await rig.client.put(f"/v1/queues/{name}", json={})).status_code == 200
        owner = await rig.submit(queue="a", compute_milli=1000, memory_bytes=GIB)
        other = await rig.submit(queue="a", compute_milli=1000, memory_bytes=0)
        await rig.in_state(other, "running")
        of_a, of_b = [
            await rig.submit(queue=name, tenant_class="best_effort", compute_milli=600, memory_bytes=GIB)
            for name in ("a", "b")
        ]
        device = (await rig.get(f"/v1/jobs/{owner}"))["grants"][0]["device"]
        rig.agent.emit("usage", **usage(owner, 600, device))  # 40 % is idle: enough for one
        await rig.in_state(of_b, "running")
        assert (await rig.get(f"/v1/jobs/{of_a}"))["state"] == "queued", "though it came first"
        history = (await rig.get(f"/v1/jobs/{of_b}/history"))["items"]
        (start,) = [line for line in history if line["kind"] == "Start"]
        assert start["cause"] == (
            "lent: 40% of its card was measured idle; of 2 queues, b has least of its fair share (0%)"
        )


async def test_what_borrowers_weigh_reaches_the_agent_and_is_told_with_its_reason(new_rig, shows):
    async with new_rig() as rig:
        for name, weight in (("a", 1000), ("b", 3000), ("c", 1000)):
            assert (await rig.client.put(f"/v1/queues/{name}", json={"weight": weight})).status_code == 200
        owner = await rig.submit(queue="a", compute_milli=1000, memory_bytes=GIB)
        other = await rig.submit(queue="a", compute_milli=1000, memory_bytes=0)
        await rig.in_state(other, "running")
        device = (await rig.get(f"/v1/jobs/{owner}"))["grants"][0]["device"]
        of_b, *of_c = [
            await rig.submit(queue=name, tenant_class="best_effort", compute_milli=200, memory_bytes=GIB)
            for name in ("b", "c", "c")
        ]
        rig.agent.emit("usage", **usage(owner, 100, device))
        for each in (of_b, *of_c):
            await rig.in_state(each, "running")

        async def told():
            calls = [call for call in rig.agent.calls if call["op"] in {"prepare", "resize"}]
            return {call["job_id"]: call["grants"][0]["borrow_weight"] for call in calls if call["grants"]}

        wanted = {owner: 0, other: 0, of_b: 750, of_c[0]: 125, of_c[1]: 125}
        await shows(told, lambda got: got == wanted)
        history = (await rig.get(f"/v1/jobs/{of_b}/history"))["items"]
        assert [line["borrow_weight"] for line in history if line["kind"] == "Weigh"][-1] == 750
        (why,) = (await rig.get(f"/v1/jobs/{of_b}/explain"))["borrows"]
        assert (why["weight"], why["queue_owed_milli"], why["n_beside"]) == (750, 750, 2)
        assert why["says"].startswith("due 75% of what is idle on its card beside 2 others: queue b is owed 75% of all")
        (on,) = [one for one in (await rig.get("/v1/top"))["devices"] if one["uuid"] == device]
        assert {one["job_id"]: one["due_milli"] for one in on["slices"]} == {
            owner: None, of_b: 750, of_c[0]: 125, of_c[1]: 125
        }  # fmt: skip
        assert (await rig.client.put("/v1/queues/c", json={"weight": 9000})).status_code == 200
        wanted |= {of_b: 250, of_c[0]: 375, of_c[1]: 375}
        await shows(told, lambda got: got == wanted)
        await rig.agent.close()
        rig.agent.calls.clear()
        await rig.agent.open()
        await shows(told, lambda got: got == wanted)


async def test_more_memory_than_the_cap_is_written_into_the_jobs_history(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        rig.agent.emit("over_cap", job_id=job_id, member=0, uuid="SIM-0", used_bytes=2 * GIB, cap_bytes=GIB)
        rig.agent.emit("something new", of="a later release")
        lines = []
        while not lines:
            history = (await rig.get(f"/v1/jobs/{job_id}/history"))["items"]
            lines = [line for line in history if line["kind"] == "OverCap"]
        assert (lines[0]["used_bytes"], lines[0]["cap_bytes"]) == (2 * GIB, GIB)


async def test_a_run_that_leaves_its_card_idle_or_takes_too_long_is_ended(new_rig):
    async with new_rig() as rig:
        limits = ({"idle_timeout_ms": 1}, {"time_limit_ms": 1})
        ids = [await rig.submit(kind="run", **limit) for limit in limits]
        for job_id in ids:
            async with rig.client.stream("GET", f"/v1/jobs/{job_id}/grant") as response:
                await response.aread()
            await rig.post(f"/v1/jobs/{job_id}/attach", pid=os.getpid())
        device = (await rig.get(f"/v1/jobs/{ids[0]}"))["grants"][0]["device"]
        rig.agent.emit("usage", **usage(ids[0], 0, device))
        assert (await rig.in_state(ids[0], "failed"))["cause"] == "idle for 0.001 s"
        assert (await rig.in_state(ids[1], "failed"))["cause"] == "time limit"


async def test_a_queue_says_what_becomes_of_its_jobs_over_their_cap_and_a_stop_by_the_agent_is_the_pools_too(
    new_rig, shows
):
    async with new_rig() as rig:
        for name, body in (("lab", {"over_cap": "stop"}), ("lab-a", {"parent": "lab"})):
            assert (await rig.client.put(f"/v1/queues/{name}", json=body)).status_code == 200
        assert (await rig.client.put("/v1/queues/x", json={"over_cap": "shout"})).status_code == 400
        job_id, plain = await rig.submit(queue="lab-a"), await rig.submit()
        await rig.in_state(job_id, "running")
        await rig.in_state(plain, "running")
        prepared = {call["job_id"]: call["over_cap"] for call in rig.agent.calls if call["op"] == "prepare"}
        assert prepared == {job_id: "stop", plain: ""}
        leak = {"leak": "NoShim", "says": "a process without the shim holds it"}
        rig.agent.emit("over_cap", job_id=job_id, member=0, uuid="SIM-0", used_bytes=2 * GIB, action="stop", **leak)
        await shows(lambda: rig.get(f"/v1/jobs/{job_id}"), lambda view: view["members"][0]["paused"])
        rig.agent.emit("adrift", uuid="SIM-0", memory_bytes=GIB, suspects=[f"{plain}.0"], outside=False)
        view = usage(job_id, 480)
        view["tenants"][0] |= {"over_cap_bytes": GIB, "leak": "NoShim", "leak_says": leak["says"]}
        rig.agent.emit("usage", **view)
        over = (await shows(lambda: rig.get(f"/v1/jobs/{job_id}/explain"), lambda view: view["over_cap"]))["over_cap"]
        assert (over[0]["leak"], over[0]["over_cap_bytes"], over[0]["cap_bytes"]) == ("NoShim", GIB, GIB)
        kinds = {line["kind"]: line for line in (await rig.get(f"/v1/jobs/{plain}/history"))["items"]}
        assert kinds["MemoryAdrift"]["memory_bytes"] == GIB


async def test_a_stop_by_the_agent_while_the_pool_was_away_is_found_again_and_lifted_when_asked(new_rig, shows):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        await rig.agent.close()
        rig.agent.tenants[job_id, 0] |= {"paused": True, "paused_for": "holds too much"}
        rig.agent.calls.clear()
        await rig.agent.open()
        await shows(lambda: rig.get(f"/v1/jobs/{job_id}"), lambda view: view["members"][0]["paused"])
        assert "unpause" not in {call["op"] for call in rig.agent.calls}
        await rig.post(f"/v1/jobs/{job_id}/unpause")
        await until(lambda: asked(rig, "unpause"))
