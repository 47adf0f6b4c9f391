"""The store: migrations, what it refuses, a full disk, retention."""

import asyncio
import sqlite3

import pytest

from flexai.adapters.sqlite import StoreFull, schema
from flexai.apps.pool.retention import Retention
from flexai.wire.errors import BadInput

DAY_MS = 86_400_000


def test_a_store_of_an_older_release_is_migrated_and_a_copy_kept(tmp_path, monkeypatch):
    path, n = tmp_path / "pool.db", len(schema.MIGRATIONS)
    schema.open_store(path).close()
    added = "CREATE TABLE colour (name TEXT PRIMARY KEY) WITHOUT ROWID;\nINSERT INTO colour VALUES ('blue');"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, added))
    connection = schema.open_store(path)
    assert connection.execute("SELECT name FROM colour").fetchall() == [("blue",)]
    assert connection.execute("PRAGMA user_version").fetchone() == (n + 1,)
    connection.close()
    copy = sqlite3.connect(tmp_path / f"pool.db.schema{n}.bak")
    assert copy.execute("PRAGMA user_version").fetchone() == (n,)
    copy.close()
    assert (tmp_path / f"pool.db.schema{n}.bak").stat().st_mode & 0o077 == 0


def test_a_store_of_the_first_schema_is_opened(tmp_path, monkeypatch):
    path = tmp_path / "pool.db"
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        schema.open_store(path).close()
    connection = schema.open_store(path)
    assert connection.execute("SELECT count(*) FROM advance").fetchone() == (0,)
    connection.close()


async def test_nobody_else_can_read_the_environments_of_jobs(new_rig):
    async with new_rig() as rig:
        await rig.submit(env={"TOKEN": "secret"})
        files = list(rig.settings.state_dir.glob("pool.db*"))
        assert len(files) == 3
        assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def test_a_migration_that_fails_changes_nothing(tmp_path, monkeypatch):
    path, n = tmp_path / "pool.db", len(schema.MIGRATIONS)
    schema.open_store(path).close()
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "CREATE TABLE colour (name TEXT);\nNONSENSE;\n"))
    with pytest.raises(BadInput):
        schema.open_store(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (n,)
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'colour'").fetchone() == (0,)
    connection.close()


@pytest.mark.parametrize("content", [b"this is not a database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_what_is_no_store_is_refused_with_a_remedy(tmp_path, content):
    path = tmp_path / "pool.db"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="restore a backup"):
        schema.open_store(path)


def test_a_store_of_a_newer_release_is_left_alone(tmp_path):
    path = tmp_path / "pool.db"
    connection = schema.open_store(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(BadInput, match="newer"):
        schema.open_store(path)


async def test_a_full_disk_refuses_new_jobs_and_the_pool_goes_on(new_rig):
    async with new_rig() as rig:
        running = await rig.submit(compute_milli=1000, memory_bytes=0)
        await rig.in_state(running, "running")
        writer = rig.pool.journal._connection
        (n_pages,) = writer.execute("PRAGMA page_count").fetchone()
        writer.execute(f"PRAGMA max_page_count = {n_pages}")
        refusals = []
        while len(refusals) < 10:
            body = {"command": ["x" * (60_000 if not refusals else 1)], "cwd": "/", "compute_milli": 1000}
            response = await rig.client.post("/v1/jobs", json=body)
            if response.status_code != 201:
                refusals.append(response)
        assert refusals[-1].status_code == 503
        assert refusals[-1].json()["code"] == "NoSpace"
        assert (await rig.get(f"/v1/jobs/{running}"))["state"] == "running"
        writer.execute("PRAGMA max_page_count = 1000000")
        await rig.submit()


async def test_the_end_of_a_job_is_recorded_once_there_is_room_again(new_rig, monkeypatch):
    async with new_rig() as rig:
        running = await rig.submit()
        await rig.in_state(running, "running")
        await rig.pool.core.stored()
        with monkeypatch.context() as patch:
            patch.setattr(rig.pool.journal, "_commit", lambda *_: StoreFull("database or disk is full"))
            rig.agent.end(running, exit_code=4)
            await asyncio.sleep(0.3)
            assert "full" in (await rig.get("/v1/status"))["pool"]["store_error"]
            assert (await rig.client.post(f"/v1/jobs/{running}/pause")).json()["code"] == "NoSpace"
        assert (await rig.in_state(running, "failed"))["exit_code"] == 4
        assert (await rig.get("/v1/status"))["pool"]["store_error"] is None


async def test_what_is_over_is_removed_after_its_time_and_numbers_are_not_used_again(new_rig):
    async with new_rig(run_s=0.0) as rig:
        ended = [await rig.submit() for _ in range(3)]
        for job_id in ended:
            await rig.in_state(job_id, "succeeded")
        rig.agent.run_s = None
        running = await rig.submit()
        await rig.in_state(running, "running")
        output = rig.pool.log_path(ended[0], 0)
        output.parent.mkdir(parents=True)
        output.write_text("hello")
        await rig.pool.core.stored()
        pool = rig.pool
        jobs_dir = rig.settings.state_dir / "jobs"

        def later(days):
            return Retention(
                jobs_dir, 30.0, pool.reader, pool.journal, pool.book, lambda: pool.core.clock() + days * DAY_MS
            )

        assert await later(29).once() == 0
        assert output.exists()
        assert await later(31).once() == 3
        assert not output.parent.parent.exists()
        assert [item["id"] for item in (await rig.get("/v1/jobs"))["items"]] == [running]
        assert (await rig.client.get(f"/v1/jobs/{ended[0]}")).status_code == 404
        rig.agent.end(running)
        await rig.in_state(running, "succeeded")
        assert await later(31).once() == 1
        await rig.stop()
        await rig.start()
        assert await rig.submit() == "5"
        (n_entries,) = (await rig.pool.reader.fetch("SELECT count(*) FROM log"))[0]
        assert n_entries < 10


async def test_a_new_store_beside_the_files_of_an_old_one_does_not_use_its_numbers_again(new_rig, tmp_path):
    for name in ("7_3", "41", "notes"):
        (tmp_path / "s" / "jobs" / name).mkdir(parents=True)
    async with new_rig() as rig:
        assert await rig.submit() == "42"
