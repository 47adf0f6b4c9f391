"""Queues, cards, arrays, pages, refusals."""

import asyncio
import contextlib
import grp
import os
import socket

from flexai.apps.pool.devices import over_commit
from flexai.apps.pool.identity import Peer
from flexai.model import Device, Grant, TenantClass
from flexai.wire import api
from flexai.wire.queue import QUEUE_FIELDS


async def test_queues_are_made_changed_and_removed_and_stay_a_tree(new_rig):
    async with new_rig() as rig:
        put = rig.client.put
        assert (await put("/v1/queues/lab", json={"quota_milli": 1000})).status_code == 200
        assert (await put("/v1/queues/lab-a", json={"parent": "lab", "user_limit_milli": 500})).status_code == 200
        assert (await put("/v1/queues/lab", json={"parent": "lab-a"})).json()["code"] == "QueueCircle"
        assert (await put("/v1/queues/x", json={"parent": "nowhere"})).json()["code"] == "UnknownQueue"
        assert (await put("/v1/queues/x", json={"parent": "default"})).json()["code"] == "QueueHasJobs"
        assert (await put("/v1/queues/x", json={"weight": "many"})).status_code == 400
        refused = await rig.client.post("/v1/jobs", json={"command": ["true"], "compute_milli": 1000, "queue": "lab"})
        assert refused.json()["code"] == "QueueHasChildren"
        assert (await rig.client.delete("/v1/queues/lab")).json()["code"] == "QueueHasChildren"
        assert (await rig.client.delete("/v1/queues/default")).status_code == 409
        job_id = await rig.submit(queue="lab-a")
        items = (await rig.get("/v1/queues"))["items"]
        assert [queue["name"] for queue in items] == ["default", "lab", "lab-a"]
        assert items[2]["user_limit_milli"] == 500
        await rig.in_state(job_id, "running")
        assert (await rig.client.delete("/v1/queues/lab-a")).status_code == 200
        unknown = await rig.client.post("/v1/jobs", json={"command": ["true"], "compute_milli": 1000, "queue": "lab-a"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "UnknownQueue")


async def test_cards_show_their_slices_and_can_be_cordoned_by_index(new_rig):
    async with new_rig() as rig:
        job_id = await rig.submit(compute_milli=300)
        await rig.in_state(job_id, "running")
        items = (await rig.get("/v1/devices"))["items"]
        assert [card["compute_granted_milli"] for card in items] == [300, 0]
        assert items[0]["slices"][0]["job_id"] == job_id
        assert items[0]["source"] == "simulated"
        assert (await rig.post("/v1/devices/1/cordon"))["cordoned"] is True
        assert (await rig.post("/v1/devices/SIM-1/uncordon"))["cordoned"] is False
        assert (await rig.post("/v1/devices/7/cordon", status=404))["code"] == "UnknownDevice"
        top = await rig.get("/v1/top")
        assert top["jobs"][0]["id"] == job_id
        assert len(top["devices"]) == 2
        assert (await rig.get("/v1/doctor"))["checks"][0]["ok"] is True


async def test_a_card_that_came_back_with_less_than_is_promised_of_it_is_flagged(new_rig, shows):
    async with new_rig() as rig:
        job_id = await rig.submit(compute_milli=300, memory_bytes=30 << 30)
        await rig.in_state(job_id, "running")
        assert (await rig.get("/v1/devices"))["items"][0]["over_committed"] is None
        await rig.agent.close()
        rig.agent.node["devices"][0]["memory_bytes"] = 20 << 30
        await rig.agent.open()
        told = "30 GiB of its 20 GiB of memory are promised: who comes last is refused some"
        await shows(lambda: rig.get("/v1/devices"), lambda page: page["items"][0]["over_committed"] == told)
        check = (await rig.get("/v1/doctor"))["checks"][-1]
        assert (check["name"], check["ok"], check["detail"]) == ("promises of card 0", False, told)
        assert (await rig.get(f"/v1/jobs/{job_id}"))["state"] == "running", "what is held stays"


def test_requests_beyond_a_whole_card_are_told():
    card = Device("c0", "sim", "simulated", 0, 80 << 30)
    grants = [Grant(str(n), 0, "n", "c0", 650, 1000, 1 << 30, TenantClass.GUARANTEED) for n in range(2)]
    assert over_commit(card, grants) == "130% of its compute is promised: each has its part in proportion"
    assert over_commit(card, grants[:1]) == ""


async def test_an_array_is_many_jobs_that_can_be_asked_for_and_cancelled_as_one(new_rig):
    async with new_rig() as rig:
        response = await rig.post("/v1/jobs", status=201, command=["true"], compute_milli=1000, array="0-8:2,3")
        assert response["ids"] == ["1_0", "1_2", "1_3", "1_4", "1_6", "1_8"]
        await rig.in_state("1_2", "running")
        start = next(c for c in rig.agent.calls if c["op"] == "start" and c["job_id"] == "1_2")
        assert (start["env"]["FLEXAI_ARRAY_ID"], start["env"]["FLEXAI_ARRAY_INDEX"]) == ("1", "2")
        summary = await rig.get("/v1/jobs/1")
        assert (summary["state"], summary["exit_code"]) == ("queued", None)
        assert (await rig.client.get("/v1/jobs/1/logs")).json()["code"] == "IsArray"
        waited = await rig.get("/v1/jobs/1/wait", timeout_ms=1)
        assert waited["state"] == "queued"
        assert summary["counts"] == {"running": 2, "queued": 4}
        await rig.post("/v1/jobs/1/cancel")
        for job_id in response["ids"]:
            await rig.in_state(job_id, "cancelled")


async def test_a_job_waits_for_those_it_comes_after(new_rig):
    async with new_rig() as rig:
        first = await rig.submit()
        array = (await rig.post("/v1/jobs", status=201, command=["true"], compute_milli=100, memory_bytes=1,
                                array="0,1"))["items"][0]["array_id"]  # fmt: skip
        second = await rig.submit(after=[first, array])
        view = await rig.get(f"/v1/jobs/{second}")
        assert view["request"]["after"] == [first, f"{array}_0", f"{array}_1"]
        await rig.in_state(f"{array}_1", "running")
        for job_id in (first, f"{array}_0", f"{array}_1"):
            assert (await rig.get(f"/v1/jobs/{second}"))["state"] == "queued"
            rig.agent.end(job_id)
        await rig.in_state(second, "running")
        third = await rig.submit(after=[first])
        assert (await rig.get(f"/v1/jobs/{third}"))["request"]["after"] == []
        rig.agent.end(second, exit_code=1)
        await rig.in_state(second, "failed")
        refused = await rig.client.post("/v1/jobs", json={"command": ["x"], "compute_milli": 1000, "after": [second]})
        assert refused.json()["code"] == "DependencyFailed"


async def test_every_job_is_on_exactly_one_page(new_rig):
    async with new_rig(run_s=0.0) as rig:
        ended = [await rig.submit() for _ in range(7)]
        for job_id in ended:
            await rig.in_state(job_id, "succeeded")
        rig.agent.run_s = None
        active = [await rig.submit(compute_milli=1000, memory_bytes=0) for _ in range(6)]
        seen, cursor = [], ""
        while cursor is not None:
            page = await rig.get("/v1/jobs", limit=4, cursor=cursor)
            assert len(page["items"]) <= 4
            seen += [item["id"] for item in page["items"]]
            cursor = page["cursor"]
        assert seen[:6] == active
        assert sorted(seen[6:]) == sorted(ended)
        queued = await rig.get("/v1/jobs", state="queued")
        assert [item["id"] for item in queued["items"]] == active[2:]
        assert len((await rig.get("/v1/jobs", state="final", user="nobody-else"))["items"]) == 0
        assert len((await rig.get("/v1/jobs", state="succeeded", limit=1000))["items"]) == 7


async def test_commands_that_have_a_daemon_start_the_work_are_refused(new_rig):
    async with new_rig() as rig:
        refused = await rig.client.post("/v1/jobs", json={"command": ["docker", "run", "x"], "compute_milli": 1000})
        assert (refused.status_code, refused.json()["code"]) == (422, "HandedOver")


BAD = [
    ("POST", "/v1/jobs", b"{", 400),
    ("POST", "/v1/jobs", b"[]", 400),
    ("POST", "/v1/jobs", b'{"command": "true"}', 400),
    ("POST", "/v1/jobs", b'{"command": ["x"], "compute_milli": 1001}', 400),
    ("POST", "/v1/jobs", b'{"command": ["x"], "compute_milli": 1000, "colour": 1}', 400),
    ("POST", "/v1/jobs", b"[" * 100_000, 400),
    ("POST", "/v1/jobs", b" " * (5 << 20), 413),
    ("POST", "/v1/jobs/1/attach", b'{"pid": "x"}', 404),
    ("GET", "/v1/jobs/../../etc/passwd", b"", 404),
    ("GET", "/v1/jobs/abc", b"", 400),
    ("GET", "/v1/jobs/999", b"", 404),
    ("GET", "/v1/jobs?limit=0", b"", 400),
    ("GET", "/v1/jobs?cursor=%00", b"", 400),
    ("GET", "/v1/jobs?state=asleep", b"", 400),
    ("GET", "/v1/usage?by=shoe", b"", 400),
    ("GET", "/v1/nothing", b"", 404),
    ("DELETE", "/v1/jobs", b"", 405),
]


async def test_a_bad_request_is_told_what_is_wrong_and_what_helps(new_rig):
    async with new_rig() as rig:
        for method, path, body, status in BAD:
            response = await rig.client.request(method, path, content=body)
            assert response.status_code == status, (method, path, body[:50], response.text)
            assert set(response.json()) == {"code", "message", "thing", "value", "remedy"}
            assert response.json()["remedy"]


def raw_answer(address: str, raw: bytes) -> bytes:
    """The status that bytes get which are no request; nothing if the pool waits for more or hangs up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(address)
        with contextlib.suppress(OSError):
            client.sendall(raw)
        try:
            return client.recv(4096)[9:12]
        except OSError:
            return b""


async def test_broken_http_does_not_stop_the_pool(new_rig):
    async with new_rig() as rig:
        address = str(rig.settings.run_dir / "pool.sock")
        for raw in (
            b"\x00\xff" * 1000,
            b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50_000,
            b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ):
            assert await asyncio.to_thread(raw_answer, address, raw) in {b"", b"400", b"431"}
        said = b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n{"
        assert await asyncio.to_thread(raw_answer, address, said) == b"413", "refused before it is sent"
        assert (await rig.get("/v1/status"))["jobs"]["queued"] == 0


async def test_another_users_jobs_are_as_unknown_as_none_at_all(new_rig, monkeypatch):
    async with new_rig() as rig:
        job_id = await rig.submit()
        await rig.in_state(job_id, "running")
        stranger = Peer(1, 4242, 4242, "stranger")
        for module in ("routes_jobs", "routes_actions", "routes_pool", "routes_past", "http"):
            target = f"flexai.apps.pool.{module}.peer_of_request"
            monkeypatch.setattr(target, lambda _: stranger, raising=False)
        for path in ("", "/explain", "/history", "/logs", "/wait"):
            assert (await rig.client.get(f"/v1/jobs/{job_id}{path}")).status_code == 404
        assert (await rig.client.post(f"/v1/jobs/{job_id}/cancel")).status_code == 404
        assert (await rig.get("/v1/jobs"))["items"] == []
        assert (await rig.get("/v1/usage"))["items"] == []
        assert all(line["job_id"] is None for line in (await rig.get("/v1/history"))["items"])
        slice_ = (await rig.get("/v1/devices"))["items"][0]["slices"][0]
        assert (slice_["job_id"], slice_["user"], slice_["asked_milli"]) == (None, None, 500)
        for path in ("/v1/shutdown", "/v1/devices/0/cordon"):
            assert (await rig.client.post(path)).json()["code"] == "NotAllowed"
        assert (await rig.client.put("/v1/queues/q", json={})).status_code == 403
        own = await rig.submit()
        assert [item["id"] for item in (await rig.get("/v1/jobs"))["items"]] == [own]


async def test_a_queue_takes_jobs_of_its_users_alone(new_rig, monkeypatch):
    async with new_rig() as rig:
        await rig.client.put("/v1/queues/lab", json={"users": ["ada"]})
        for user, status in (("stranger", 403), ("ada", 201)):
            monkeypatch.setattr("flexai.apps.pool.routes_jobs.peer_of_request", lambda _, u=user: Peer(1, 4242, 1, u))
            response = await rig.client.post("/v1/jobs", json={"command": ["x"], "compute_milli": 1000, "queue": "lab"})
            assert response.status_code == status


MANIFEST = """
apiVersion: flexai.io/v1alpha1
kind: Queue
metadata: {name: lab}
spec: {quotaCards: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: train, labels: {flexai.io/queue: lab}}
spec:
  containers:
  - {image: torch, command: [sleep, "1"], resources: {limits: {flexai.io/cores: 50, flexai.io/memory: 1Gi}}}
"""


async def test_a_manifest_makes_queues_and_jobs_and_names_what_it_did_not_use(new_rig):
    async with new_rig() as rig:
        made = await rig.post("/v1/manifests", status=201, yaml=MANIFEST, cwd="/tmp", env={"A": "b"})
        assert made["queues"] == ["lab"]
        assert "image" in made["notes"][0]
        view = await rig.in_state(made["ids"][0], "running")
        assert (view["name"], view["queue"], view["cwd"]) == ("train", "lab", "/tmp")
        refused = await rig.post("/v1/manifests", status=400, yaml="kind: [")
        assert refused["thing"] == "manifest"


async def test_a_queue_takes_jobs_of_the_members_of_its_groups(new_rig, monkeypatch):
    group = grp.getgrgid(os.getgid()).gr_name
    async with new_rig() as rig:
        for users, status in (([f"@{group}"], 201), (["@no-such-group"], 403)):
            await rig.client.put("/v1/queues/lab", json={"users": users})
            monkeypatch.setattr(
                "flexai.apps.pool.routes_jobs.peer_of_request", lambda _: Peer(1, 4242, os.getgid(), "stranger")
            )
            response = await rig.client.post("/v1/jobs", json={"command": ["x"], "compute_milli": 1000, "queue": "lab"})
            assert response.status_code == status


async def test_the_api_describes_itself(new_rig):
    async with new_rig() as rig:
        described = await rig.get("/openapi.json")
        for path in ("/v1/jobs", "/v1/jobs/{job_id}/grant", "/v1/jobs/{job_id}/cancel", "/v1/queues/{name}", "/v1/top"):
            assert path in described["paths"]
        taken = described["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(taken["properties"]) == api.SUBMISSION_FIELDS
        taken = described["paths"]["/v1/queues/{name}"]["put"]["requestBody"]["content"]["application/json"]["schema"]
        assert set(taken["properties"]) == QUEUE_FIELDS
