"""A live pool parks and wakes what its scheduler says, tells why, and loses nothing when it is killed meanwhile."""

import pytest

from flexai.apps.bench.scripted_agent import GIB, plain_node
from flexai.apps.simulator import recorded

PARKS = ("--park", "if_cheaper", "--park-least-ms", "1")
WHOLE = {"compute_milli": 1000, "memory_bytes": 40 * GIB}


async def put_queues(client):
    for name, quota in (("owner", 2000), ("guest", 0)):
        response = await client.put(f"/v1/queues/{name}", json={"quota_milli": quota})
        assert response.status_code < 300, response.text


async def submit(client, **fields):
    response = await client.post("/v1/jobs", json={"command": ["x"], "cwd": "/", **WHOLE, **fields})
    assert response.status_code == 201, response.text
    return response.json()["ids"][0]


def replayed(state_dir):
    """What a replay of the pool's log decides, after it was held against what the pool did."""
    (state_dir / "recording").write_text("\n".join(recorded.export(state_dir / "pool.db")))
    recording = recorded.read(state_dir / "recording")
    again = [line for command in recorded.decide(recording) if (line := recorded.decision_of(command))]
    assert again == list(recording.decisions)
    return again


async def kinds(rig, job_id):
    return [event["kind"] for event in (await rig.get(f"/v1/jobs/{job_id}/history"))["items"]]


async def test_a_borrower_is_parked_for_the_owner_and_comes_back(new_rig):
    async with new_rig(options=PARKS) as rig:
        await put_queues(rig.client)
        guest = await submit(rig.client, queue="guest", n_devices=2)
        await rig.in_state(guest, "running")
        owner = await submit(rig.client, queue="owner")
        await rig.in_state(owner, "running")
        view = await rig.in_state(guest, "parked")
        assert view["reason"]["code"] == "Parked"
        assert "card 0 lacks 100 %" in view["reason"]["message"]
        (queue,) = [each for each in (await rig.get("/v1/queues"))["items"] if each["name"] == "guest"]
        assert (queue["held_milli"], queue["held_bytes"]) == (0, 0)
        told = await rig.post(f"/v1/jobs/{guest}/wake")
        assert (told["state"], told["reason"]["code"]) == ("parked", "Parked"), "it waits anyway"
        rig.agent.end(owner)
        await rig.in_state(guest, "running")
        rig.agent.end(guest)
        await rig.in_state(guest, "succeeded")
        told = await kinds(rig, guest)
        assert [kind for kind in told if kind in {"Park", "LeftCard", "Wake", "BackOnCard"}] == [
            "Park", "LeftCard", "Wake", "BackOnCard",
        ]  # fmt: skip
        assert rig.agent.starts == [f"{guest}.0.1", f"{owner}.0.1"], "nobody started twice"
        await rig.pool.core.stored()
        assert any('"decision":"Park"' in line for line in replayed(rig.settings.state_dir))


async def parked_by_its_user(rig_or_client, shows, agent):
    """One whose user parked it while both cards were taken; and who has its place now."""
    first, second, third = [await submit(rig_or_client) for _ in range(3)]
    for job_id in (first, second):
        await shows(job_id, "running")
    response = await rig_or_client.post(f"/v1/jobs/{first}/park", json={})
    assert response.status_code == 200, response.text
    await shows(third, "running")
    assert agent.starts[-1] == f"{third}.0.1"
    return first, third


async def test_host_memory_is_booked_for_what_a_job_holds_as_the_agent_measured_it(new_rig, shows):
    async with new_rig() as rig:
        job_id = await submit(rig.client, memory_bytes=80 * GIB, ram_bytes=180 * GIB)
        await rig.in_state(job_id, "running")

        async def measured():
            rig.agent.emit(
                "usage", tenants=[{"job_id": job_id, "member": 0, "device": "SIM-0", "used_bytes": 8 * GIB - 5}]
            )
            return rig.pool.link.measured(job_id, 0, "SIM-0")

        await shows(measured, bool)
        await rig.post(f"/v1/jobs/{job_id}/park")
        await rig.in_state(job_id, "parked")

        async def parks():
            return [call for call in rig.agent.calls if call["op"] == "park"]

        (park,) = await shows(parks, bool)  # it is parked by decision before the agent is told
        assert park["host_bytes"] == 9 * GIB, "and an eighth more"
        await rig.pool.core.stored()
        assert any('"decision":"Park"' in line for line in replayed(rig.settings.state_dir)), "and no refusal"


async def test_what_its_user_parks_leaves_its_place_and_a_wake_that_finds_no_room_waits_with_a_reason(new_rig):
    async with new_rig() as rig:
        job_id, neighbour = await parked_by_its_user(rig.client, rig.in_state, rig.agent)
        view = await rig.in_state(job_id, "parked")
        assert "as its user asked" in view["reason"]["message"]
        assert all(member["parked"] for member in view["members"])
        refused = await rig.post(f"/v1/jobs/{job_id}/resize", 409, compute_milli=500)
        assert refused["code"] == "IsParked"
        view = await rig.post(f"/v1/jobs/{job_id}/wake")
        assert view["state"] == "parked"
        assert "lacks 100 % for it" in view["reason"]["message"]
        await rig.post(f"/v1/jobs/{job_id}/park")
        assert "as its user asked" in (await rig.get(f"/v1/jobs/{job_id}"))["reason"]["message"], "it was taken back"
        await rig.post(f"/v1/jobs/{job_id}/wake")
        rig.agent.end(neighbour)
        await rig.in_state(job_id, "running")
        told = [kind for kind in await kinds(rig, job_id) if "Park" in kind or "Wake" in kind or "Card" in kind]
        assert told == ["ParkAsked", "Park", "LeftCard", "WakeAsked", "ParkAsked", "WakeAsked", "Wake", "BackOnCard"]
        await rig.pool.core.stored()
        assert any('"decision":"Park"' in line for line in replayed(rig.settings.state_dir))


async def test_a_wake_that_waits_can_be_given_up(new_rig):
    async with new_rig() as rig:
        job_id, _ = await parked_by_its_user(rig.client, rig.in_state, rig.agent)
        await rig.post(f"/v1/jobs/{job_id}/wake")
        await rig.post(f"/v1/jobs/{job_id}/cancel")
        await rig.in_state(job_id, "cancelled")


async def test_what_cannot_be_parked_says_why_at_once_or_goes_on_and_tells_its_story(new_rig):
    async with new_rig(refuse={"park": "CannotPark"}) as rig:
        big = await submit(rig.client, ram_bytes=0, memory_bytes=1 * GIB)
        await rig.in_state(big, "running")
        await rig.post(f"/v1/jobs/{big}/park")
        await rig.in_state(big, "running")
        events = (await rig.get(f"/v1/jobs/{big}/history"))["items"]
        assert any("could not be parked: Refused by script." in str(event) for event in events)
        assert all(member["parked"] is False for member in (await rig.get(f"/v1/jobs/{big}"))["members"])
        waits = await submit(rig.client, n_devices=2)
        assert (await rig.post(f"/v1/jobs/{waits}/park", 409))["code"] == "NotRunning"


async def test_a_pool_that_is_killed_knows_who_is_parked_by_his_user_and_whose_wake_waits(pool_process):
    pool = pool_process(options=PARKS, with_agent=True)  # or it would stay for park_least after the restart
    agent = await pool.open_agent()
    await pool.start()

    async def shows(job_id, state):
        await pool.shows(f"/v1/jobs/{job_id}", lambda view: view["state"] == state)

    waits, neighbour = await parked_by_its_user(pool.client, shows, agent)
    stays = str(int(waits) + 1)
    assert (await pool.client.post(f"/v1/jobs/{stays}/park", json={})).json()["state"] == "parked"
    await submit(pool.client)
    assert (await pool.client.post(f"/v1/jobs/{waits}/wake", json={})).json()["state"] == "parked"
    await pool.kill()
    await pool.start()
    for job_id, why in ((stays, "as its user asked"), (waits, "lacks 100 % for it")):
        await pool.shows(f"/v1/jobs/{job_id}", lambda view, why=why: why in str(view["reason"]))
        assert (await pool.get(f"/v1/jobs/{job_id}"))["state"] == "parked"
    agent.end(neighbour)
    await pool.shows(f"/v1/jobs/{waits}", lambda view: view["state"] == "running")
    assert not any(call["op"] == "signal" for call in agent.calls)


def movable():
    node = plain_node()
    return {**node, "devices": [{**device, "can_move_when_parked": True} for device in node["devices"]]}


async def parked_beside_a_free_card(rig):
    """A guest that was parked for an owner; the other guest's card is free, and the owner goes on."""
    await put_queues(rig.client)
    guests = [await submit(rig.client, queue="guest") for _ in range(2)]
    for guest in guests:
        await rig.in_state(guest, "running")
    owner = await submit(rig.client, queue="owner", parkable=False)
    await rig.in_state(owner, "running")
    (away,) = [each for each in guests if (await rig.get(f"/v1/jobs/{each}"))["state"] == "parked"]
    (stays,) = {*guests} - {away}
    rig.agent.end(stays)
    return away, owner


async def card_of(rig, job_id):
    return [grant["device"] for grant in (await rig.get(f"/v1/jobs/{job_id}"))["grants"]]


async def test_a_parked_job_comes_back_to_another_card_where_the_agent_says_that_it_can(new_rig):
    async with new_rig(options=PARKS, node=movable()) as rig:
        away, _ = await parked_beside_a_free_card(rig)
        await rig.in_state(away, "running")
        (wake,) = [call for call in rig.agent.calls if call["op"] == "wake"]
        assert [grant["device"] for grant in wake["grants"]] == await card_of(rig, away)
        (prepare,) = [call for call in rig.agent.calls if call["op"] == "prepare" and call["job_id"] == away]
        assert prepare["grants"][0]["device"] != wake["grants"][0]["device"]
        assert not any(call["op"] == "resize" for call in rig.agent.calls)
        assert "another card of its model" in str((await rig.get(f"/v1/jobs/{away}/history"))["items"])
        await rig.pool.core.stored()
        assert [line for line in replayed(rig.settings.state_dir) if '"decision":"Wake"' in line]


async def test_what_the_driver_does_not_bring_to_another_card_waits_for_its_own_and_says_why(new_rig, shows):
    async with new_rig(options=PARKS, node=movable(), refuse={"wake": "CannotPark"}) as rig:
        away, owner = await parked_beside_a_free_card(rig)
        (prepare,) = [call for call in rig.agent.calls if call["op"] == "prepare" and call["job_id"] == away]
        view = await shows(lambda: rig.get(f"/v1/jobs/{away}"), lambda view: "on another it" in str(view["reason"]))
        assert "lacks 100 % for it; on another it could not be woken (Refused by script)" in view["reason"]["message"]
        assert await card_of(rig, away) == [grant["device"] for grant in prepare["grants"]]
        rig.agent.refuse.clear()
        rig.agent.end(owner)
        await rig.in_state(away, "running")
        assert await card_of(rig, away) == [grant["device"] for grant in prepare["grants"]]
        assert [("grants" in call) for call in rig.agent.calls if call["op"] == "wake"] == [True, False]


async def test_what_the_agent_cannot_park_is_stopped(new_rig):
    async with new_rig(options=PARKS, refuse={"park": "CannotPark"}) as rig:
        await put_queues(rig.client)
        guest = await submit(rig.client, queue="guest", n_devices=2)
        await rig.in_state(guest, "running")
        owner = await submit(rig.client, queue="owner")
        await rig.in_state(owner, "running")
        await rig.in_state(guest, "queued")
        events = (await rig.get(f"/v1/jobs/{guest}/history"))["items"]
        assert any("could not be parked: Refused by script." in str(event) for event in events)


async def test_a_job_that_says_so_is_never_parked(new_rig):
    async with new_rig(options=PARKS) as rig:
        await put_queues(rig.client)
        guest = await submit(rig.client, queue="guest", n_devices=2, parkable=False)
        await rig.in_state(guest, "running")
        await rig.in_state(await submit(rig.client, queue="owner"), "running")
        assert "Park" not in await kinds(rig, guest)


@pytest.mark.parametrize("how", [pytest.param("mute", marks=pytest.mark.slow), "stuck"])
async def test_a_pool_that_is_killed_in_the_middle_of_a_park_or_a_wake_loses_nothing(pool_process, how):
    pool = pool_process(options=PARKS, with_agent=True)
    agent = await pool.open_agent()
    await pool.start()
    await put_queues(pool.client)
    guest = await submit(pool.client, queue="guest", n_devices=2)
    await pool.shows(f"/v1/jobs/{guest}", lambda view: view["state"] == "running")

    async def killed_at(op):
        await pool.shows("/v1/status", lambda _: any(call["op"] == op for call in agent.calls))
        await pool.kill()
        getattr(agent, how).clear()
        agent.calls.clear()
        await pool.start()

    getattr(agent, how).add("park")
    owner = await submit(pool.client, queue="owner")
    await killed_at("park")
    await pool.shows(f"/v1/jobs/{owner}", lambda view: view["state"] == "running")
    assert (await pool.get(f"/v1/jobs/{guest}"))["state"] == "parked"
    await pool.kill()  # and once more, with the job in host memory and the owner on its card
    await pool.start()
    view = await pool.get(f"/v1/jobs/{guest}")
    assert (view["state"], view["reason"]["code"]) == ("parked", "Parked")
    getattr(agent, how).add("wake")
    agent.end(owner)
    await killed_at("wake")
    await pool.shows(f"/v1/jobs/{guest}", lambda view: view["state"] == "running")
    agent.end(guest)
    await pool.shows(f"/v1/jobs/{guest}", lambda view: view["state"] == "succeeded")
    assert agent.starts == [f"{guest}.0.1", f"{owner}.0.1"]
    assert not any(call["op"] == "signal" for call in agent.calls)
    assert [line for line in replayed(pool.state_dir) if '"decision":"Wake"' in line], "restarts told again"
