"""Explanations, history, events, output and usage."""

import asyncio
import json

from flexai.policy.filters import FILTERS


async def test_explain_says_what_every_card_lacks(new_rig):
    async with new_rig() as rig:
        for _ in range(3):
            job_id = await rig.submit(compute_milli=600)
        await rig.in_state("2", "running")
        why = await rig.get(f"/v1/jobs/{job_id}/explain")
        assert why["reason"]["code"] == "NotEnoughCompute"
        assert why["position"] == 1
        assert [card["fits"] for card in why["cards"]] == [False, False]
        assert "has 40% of its compute free, not 60%" in why["cards"][0]["says"]
        assert why["history"][0]["kind"] == "Submitted"


async def test_explain_names_the_filter_that_keeps_a_job_off_a_card(new_rig, monkeypatch):
    monkeypatch.setitem(FILTERS, "unshared", lambda cards, _shape: ~cards.held)
    async with new_rig(options=("--filters", "unshared")) as rig:
        for _ in range(3):
            job_id = await rig.submit(compute_milli=100)
        await rig.in_state("2", "running")
        why = await rig.get(f"/v1/jobs/{job_id}/explain")
        assert why["reason"]["code"] == "Filtered"
        assert [card["fits"] for card in why["cards"]] == [False, False]
        assert why["cards"][0]["says"] == "has room for one member, but filter unshared keeps it off"


async def test_history_tells_a_jobs_life_in_order_page_by_page(new_rig):
    async with new_rig(run_s=0.0) as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "succeeded")
        kinds = [line["kind"] for line in (await rig.get(f"/v1/jobs/{job_id}/history"))["items"]]
        assert kinds == ["Submitted", "Start", "State", "Running", "State", "Finished", "State"]
        first = await rig.get(f"/v1/jobs/{job_id}/history", limit=3)
        second = await rig.get(f"/v1/jobs/{job_id}/history", limit=3, cursor=first["cursor"])
        assert [line["kind"] for line in first["items"] + second["items"]] == kinds[:6]


async def test_events_arrive_as_they_happen_and_can_be_resumed(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        seen = []
        async with rig.client.stream("GET", "/v1/events", params={"from_seq": 1}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    seen.append(json.loads(line[6:]))
                    if seen[-1]["kind"] == "Running":
                        rig.agent.end(job_id)
                    if seen[-1].get("state") == "succeeded":
                        break
        assert [event["seq"] for event in seen] == sorted(event["seq"] for event in seen)
        kinds = [event["kind"] for event in seen if event["job_id"] == job_id]
        assert kinds[0] == "Submitted"
        async with rig.client.stream("GET", "/v1/events", headers={"last-event-id": str(seen[-2]["seq"])}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    assert json.loads(line[6:]) == seen[-1]
                    break


async def test_output_is_followed_until_the_job_has_ended(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        path = rig.pool.log_path(job_id, 0)
        path.parent.mkdir(parents=True)
        path.write_text("one\n")
        got = b""
        async with rig.client.stream("GET", f"/v1/jobs/{job_id}/logs", params={"follow": 1}) as response:
            async for chunk in response.aiter_bytes():
                if not got:
                    with path.open("a") as log:
                        log.write("two\n")
                    rig.agent.end(job_id)
                got += chunk
        assert got == b"one\ntwo\n"
        assert (await rig.client.get(f"/v1/jobs/{job_id}/logs", params={"offset": 4})).text == "two\n"
        assert (await rig.client.get(f"/v1/jobs/{job_id}/logs", params={"offset": -4})).text == "two\n"


async def test_output_that_is_a_link_or_a_pipe_is_not_read(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit()
        path = rig.pool.log_path(job_id, 0)
        path.parent.mkdir(parents=True)
        path.symlink_to("/etc/passwd")
        assert (await rig.client.get(f"/v1/jobs/{job_id}/logs")).text == ""


async def test_wait_answers_when_the_job_is_final_or_the_time_is_up(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit()
        assert (await rig.get(f"/v1/jobs/{job_id}/wait", timeout_ms=50))["state"] in {"starting", "running"}
        waiting = asyncio.create_task(rig.get(f"/v1/jobs/{job_id}/wait", timeout_ms=5000))
        await rig.in_state(job_id, "running")
        rig.agent.end(job_id)
        assert (await waiting)["state"] == "succeeded"


async def test_usage_counts_card_hours_from_grant_to_end(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit(compute_milli=500)
        await rig.in_state(job_id, "running")
        await asyncio.sleep(0.3)
        rig.agent.end(job_id)
        view = await rig.in_state(job_id, "succeeded")
        await rig.submit(compute_milli=250)
        await asyncio.sleep(0.2)
        items = (await rig.get("/v1/usage", by="job"))["items"]
        held_ms = view["finished_at_ms"] - view["submitted_at_ms"]
        assert items[0]["job"] == job_id
        assert 300 * 500 <= items[0]["card_milli_ms"] <= held_ms * 500
        assert items[1]["card_milli_ms"] > 0
        (item,) = (await rig.get("/v1/usage"))["items"]
        assert item["queue"] == "default"
        assert item["n_jobs"] == 2


async def test_explain_says_of_each_card_what_its_machine_lacks(new_rig):
    async with new_rig() as rig:
        ask = {"compute_milli": 100, "cpu_milli": 10_000_000, "ram_bytes": 1 << 60}
        job_id = await rig.submit(**ask)

        async def free_cpus():
            cards = (await rig.get(f"/v1/jobs/{job_id}/explain"))["cards"]
            assert not any(card["fits"] for card in cards)
            assert all(card["says"].endswith("GiB free, not 1.074e+09 GiB") for card in cards)
            (said,) = {card["says"].partition(" CPUs free, not 10000; its machine has ")[0] for card in cards}
            return float(said.removeprefix("its machine has "))

        before = await free_cpus()
        held = await rig.submit(compute_milli=100, cpu_milli=1000)
        await rig.in_state(held, "running")
        assert await free_cpus() == before - 1
