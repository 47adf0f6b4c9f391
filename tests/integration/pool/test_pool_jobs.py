"""Jobs from submission to their end, over the socket."""

import asyncio
import json
import os


async def test_a_submitted_job_runs_and_succeeds(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit(name="first", env={"A": "1"})
        view = await rig.in_state(job_id, "running")
        assert view["grants"][0]["compute_milli"] == 500
        start = next(call for call in rig.agent.calls if call["op"] == "start")
        assert start["token"] == f"{job_id}.0.1"
        assert start["env"]["A"] == "1"
        assert start["env"]["FLEXAI_JOB_ID"] == job_id
        assert start["uid"] == os.getuid()
        rig.agent.end(job_id)
        view = await rig.in_state(job_id, "succeeded")
        assert view["exit_code"] == 0
        assert view["grants"] == []
        assert "unprepare" in [call["op"] for call in rig.agent.calls]


async def test_a_failing_job_shows_its_exit_code_and_a_signal_adds_128(new_rig):
    async with new_rig() as rig:
        first, second = await rig.submit(), await rig.submit()
        await rig.in_state(second, "running")
        rig.agent.end(first, exit_code=3)
        rig.agent.end(second, exit_code=None, signal=9, cause="signal 9")
        assert (await rig.in_state(first, "failed"))["exit_code"] == 3
        view = await rig.in_state(second, "failed")
        assert (view["exit_code"], view["cause"]) == (137, "signal 9")


async def test_what_does_not_fit_waits_with_a_reason_and_a_position(new_rig):
    async with new_rig() as rig:
        ids = [await rig.submit(compute_milli=1000, memory_bytes=0) for _ in range(4)]
        await rig.in_state(ids[1], "running")
        views = [await rig.get(f"/v1/jobs/{job_id}") for job_id in ids]
        assert [view["state"] for view in views] == ["running", "running", "queued", "queued"]
        assert [view["position"] for view in views] == [None, None, 1, 2]
        assert views[3]["reason"]["code"] == "NotEnoughCompute"
        rig.agent.end(ids[0])
        await rig.in_state(ids[2], "running")
        assert (await rig.get(f"/v1/jobs/{ids[3]}"))["position"] == 1


async def test_a_queued_and_a_running_job_can_be_cancelled(new_rig):
    async with new_rig() as rig:
        running = await rig.submit(compute_milli=1000, memory_bytes=0, n_members=2)
        queued = await rig.submit()
        await rig.in_state(running, "running")
        await rig.post(f"/v1/jobs/{queued}/cancel")
        await rig.in_state(queued, "cancelled")
        await rig.post(f"/v1/jobs/{running}/cancel")
        view = await rig.in_state(running, "cancelled")
        assert [m["state"] for m in view["members"]] == ["finished", "finished"]
        assert (await rig.post(f"/v1/jobs/{running}/cancel"))["state"] == "cancelled"


async def test_a_held_job_waits_until_released(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit(held=True)
        view = await rig.get(f"/v1/jobs/{job_id}")
        assert (view["state"], view["reason"]["code"]) == ("held", "Held")
        await rig.post(f"/v1/jobs/{job_id}/release")
        await rig.in_state(job_id, "running")
        refused = await rig.post(f"/v1/jobs/{job_id}/hold", status=409)
        assert refused["code"] == "NotQueued"


async def test_a_run_waits_for_its_grant_attaches_and_finishes(new_rig):
    async with new_rig() as rig:
        blocker = await rig.submit(compute_milli=1000, memory_bytes=0, n_members=2)
        job_id = await rig.submit(kind="run")
        said = []
        async with rig.client.stream("GET", f"/v1/jobs/{job_id}/grant") as response:
            async for line in response.aiter_lines():
                said.append(json.loads(line))
                if len(said) == 1:
                    await rig.in_state(blocker, "running")
                    rig.agent.end(blocker, 0)
                    rig.agent.end(blocker, 1)
        assert said[0]["state"] == "queued"
        assert said[-1]["state"] == "granted"
        assert said[-1]["env"]["FLEXAI_TENANT_DIR"] == f"/tenants/{job_id}.0"
        view = await rig.post(f"/v1/jobs/{job_id}/attach", pid=os.getpid())
        assert view["state"] == "running"
        await rig.post(f"/v1/jobs/{job_id}/finish", exit_code=7)
        rig.agent.end(job_id, exit_code=None)
        assert (await rig.in_state(job_id, "failed"))["exit_code"] == 7


async def test_the_end_of_a_process_tree_waits_a_moment_for_the_callers_word(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit(kind="run")
        async with rig.client.stream("GET", f"/v1/jobs/{job_id}/grant") as response:
            await response.aread()
        await rig.post(f"/v1/jobs/{job_id}/attach", pid=os.getpid())
        rig.agent.end(job_id, exit_code=None)
        await asyncio.sleep(0.2)
        await rig.post(f"/v1/jobs/{job_id}/finish", exit_code=0)
        assert (await rig.in_state(job_id, "succeeded"))["exit_code"] == 0


async def test_a_run_whose_caller_is_gone_before_it_began_is_cancelled(new_rig):
    async with new_rig() as rig:
        rig.pool.runs.gone_s = 0.1
        job_id = await rig.submit(kind="run")
        view = await rig.in_state(job_id, "cancelled")
        assert "caller" in view["cause"]
        await rig.empty()


async def test_a_job_that_the_agent_cannot_start_fails_and_says_why(new_rig):
    async with new_rig(refuse={"start": "NoSuchProgram"}) as rig:
        job_id = await rig.submit()
        view = await rig.in_state(job_id, "failed")
        assert view["exit_code"] == 126
        assert view["cause"].startswith("cannot start")
        await rig.empty()


async def test_jobs_wait_while_the_agent_is_away_and_go_on_when_it_is_back(new_rig):
    async with new_rig(agent=False) as rig:
        job_id = await rig.submit()
        status = await rig.get("/v1/status")
        assert status["agent"]["connected"] is False
        assert "not running" in status["agent"]["message"]
        assert (await rig.get(f"/v1/jobs/{job_id}"))["reason"]["code"] == "AgentAway"
        await rig.agent.open()
        await rig.in_state(job_id, "running")
        assert (await rig.get("/v1/status"))["agent"]["connected"] is True


async def test_resize_pause_and_park_reach_the_agent(new_rig):
    async with new_rig() as rig:
        job_id, other = await rig.submit(), await rig.submit()
        await rig.in_state(other, "running")
        await rig.post(f"/v1/jobs/{other}/cancel")
        await rig.in_state(other, "cancelled")
        view = await rig.post(f"/v1/jobs/{job_id}/resize", compute_milli=700)
        assert view["grants"][0]["compute_milli"] == 700
        await rig.post(f"/v1/jobs/{job_id}/pause")
        await rig.post(f"/v1/jobs/{job_id}/unpause")
        await rig.post(f"/v1/jobs/{job_id}/park")
        assert (await rig.get(f"/v1/jobs/{job_id}"))["state"] == "parked"
        await rig.post(f"/v1/jobs/{job_id}/wake")
        await asyncio.sleep(0.2)
        ops = [call["op"] for call in rig.agent.calls if call.get("job_id") == job_id]
        assert "resize" in ops
        # Shares are told on a line of their own: on a busy machine they may come after what was asked later.
        assert [op for op in ops if op != "resize"][-1] in {"wake", "unpause"}


async def test_words_that_are_not_utf8_reach_the_process_as_they_were(new_rig):
    async with new_rig() as rig:
        body = b'{"command": ["x", "\\udcff\\ud800"], "env": {"A": "\\udc80"}, "compute_milli": 1000}'
        response = await rig.client.post("/v1/jobs", content=body)
        (job_id,) = response.json()["ids"]
        await rig.in_state(job_id, "running")
        await rig.stop()
        await rig.start()
        assert (await rig.get(f"/v1/jobs/{job_id}"))["command"][1] == "\udcff\ud800"
        start = next(call for call in rig.agent.calls if call["op"] == "start")
        assert start["argv"][1] == "\udcff\ud800"
        assert start["env"]["A"] == "\udc80"


async def test_members_of_a_gang_of_roles_run_what_their_role_runs(new_rig):
    async with new_rig() as rig:
        leader = {
            "name": "leader",
            "compute_milli": 100,
            "memory_bytes": 1 << 30,
            "command": ["lead"],
            "env": {"A": "2"},
        }
        worker = {"name": "worker", "n_members": 2, "min_member": 1, "compute_milli": 900, "memory_bytes": 2 << 30}
        blocker = await rig.submit(compute_milli=500)
        body = {"command": ["work"], "cwd": "/tmp", "env": {"A": "1"}, "roles": [leader, {**worker, "cpu_milli": 1000}]}
        job_id = (await rig.post("/v1/jobs", status=201, **body))["ids"][0]
        await rig.in_state(job_id, "running")
        calls = {(call["op"], call["member"]): call for call in rig.agent.calls if call.get("job_id") == job_id}
        assert (calls["start", 0]["argv"], calls["start", 0]["env"]["A"]) == (["lead"], "2")
        assert (calls["start", 1]["argv"], calls["start", 1]["env"]["A"]) == (["work"], "1")
        assert [calls["prepare", n]["cpu_milli"] for n in (0, 1)] == [0, 1000]
        names = [calls["start", n]["env"][f"FLEXAI_ROLE{end}"] for n in (0, 1) for end in ("", "_MEMBER", "_MEMBERS")]
        assert names == ["leader", "0", "1", "worker", "0", "2"]
        view = await rig.get(f"/v1/jobs/{job_id}")
        assert [member["role"] for member in view["members"]] == ["leader", "worker", "worker"]
        assert [grant["compute_milli"] for grant in view["grants"]] == [100, 900]
        refused = await rig.post(f"/v1/jobs/{job_id}/resize", status=400, compute_milli=200)
        assert "role is needed: job 2 has several" in refused["message"]
        rig.agent.end(blocker)
        waits = (await rig.post("/v1/jobs", status=201, **body))["ids"][0]
        told = await rig.get(f"/v1/jobs/{waits}/explain")
        assert told["reason"]["message"].startswith("Role worker: ")
        assert any("leader: has room for one member; worker: has" in card["says"] for card in told["cards"])
        rig.agent.end(job_id, 0, exit_code=3)
        assert (await rig.in_state(job_id, "failed"))["exit_code"] == 3


async def test_who_waits_for_the_decision_is_told_the_reason_with_the_ids(new_rig):
    async with new_rig() as rig:
        await rig.in_state(await rig.submit(), "running")
        ask = {"command": ["x"], "compute_milli": 1000, "n_devices": 3}
        told = await rig.post("/v1/jobs?decided=1", status=201, **ask)
        assert (told["ids"], told["items"][0]["reason"]["code"]) == (["2"], "TooLarge")
        limits = "{flexai.io/xpu: 3}"
        pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, command: [x], resources: "
        told = await rig.post("/v1/manifests?decided=1", status=201, yaml=f"{pod}{{limits: {limits}}}}}]}}")
        assert (told["ids"], told["items"][0]["reason"]["code"]) == (["3"], "TooLarge")
