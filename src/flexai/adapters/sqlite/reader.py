"""Queries of the store, on a connection of their own in a thread of their own, so that no reader stops the loop."""

import asyncio
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flexai.adapters.sqlite.rows import JOB_COLUMNS, JobRow
from flexai.adapters.sqlite.schema import connect

Row = tuple[Any, ...]
Parameters = tuple[object, ...] | Mapping[str, object]


class Reader:
    """Reads what is durable."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    def close(self) -> None:
        """Stop the thread and close the connection."""
        self._thread.shutdown()
        self._connection.close()

    def fetch_now(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Rows of a query, in the caller's thread; for the start of the process."""
        return self._connection.execute(sql, parameters).fetchall()

    async def fetch(self, sql: str, parameters: Parameters = ()) -> list[Row]:
        """Rows of a query."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.fetch_now, sql, parameters)

    def active_jobs(self) -> list[JobRow]:
        """Jobs that are not final, in order of submission."""
        rows = self.fetch_now(f"SELECT {JOB_COLUMNS} FROM job WHERE ended_seq IS NULL ORDER BY seq")  # noqa: S608
        return [JobRow(*row) for row in rows]

    async def job(self, job_id: str) -> JobRow | None:
        """One job, or None."""
        rows = await self.fetch(f"SELECT {JOB_COLUMNS} FROM job WHERE id = ?", (job_id,))  # noqa: S608
        return JobRow(*rows[0]) if rows else None

    async def jobs_of(self, number: int) -> list[JobRow]:
        """The jobs of one submission: one, or the elements of an array."""
        rows = await self.fetch(f"SELECT {JOB_COLUMNS} FROM job WHERE number = ? ORDER BY seq", (number,))  # noqa: S608
        return [JobRow(*row) for row in rows]

    async def submissions(self, numbers: Iterable[int]) -> list[tuple[int, int, str]]:
        """(number, gid, body) of submissions, without their environments."""
        rows = await self.fetch(
            "SELECT number, gid, json_remove(body, '$.env') FROM submission"
            " WHERE number IN (SELECT value FROM json_each(?))",
            (json.dumps(list(numbers)),),
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def ended_jobs(
        self, before_seq: int, n_rows: int, *, uid: int | None, user: str, queue: str, states: tuple[str, ...]
    ) -> list[JobRow]:
        """Final jobs, latest end first; None, empty text and an empty tuple mean any."""
        where, values = ["ended_seq IS NOT NULL", "ended_seq < ?"], [before_seq]
        parameters: list[object] = list(values)
        for column, value in (("uid", uid), ("user", user or None), ("queue", queue or None)):
            if value is not None:
                where.append(f"{column} = ?")
                parameters.append(value)
        if states:
            where.append(f"state IN ({', '.join('?' * len(states))})")
            parameters.extend(states)
        sql = f"SELECT {JOB_COLUMNS} FROM job WHERE {' AND '.join(where)} ORDER BY ended_seq DESC LIMIT ?"  # noqa: S608
        return [JobRow(*row) for row in await self.fetch(sql, (*parameters, n_rows))]

    def meta(self) -> dict[str, int]:
        """All counters."""
        return dict(self.fetch_now("SELECT key, value FROM meta"))

    def last_seq(self) -> int:
        """Sequence number of the last durable log entry; 0 for none."""
        (last,) = self.fetch_now("SELECT max(seq) FROM log")[0]
        return last or 0

    def last_at_ms(self) -> int:
        """When the last durable log entry happened; 0 if there is none."""
        rows = self.fetch_now("SELECT at_ms FROM log ORDER BY seq DESC LIMIT 1")
        return int(rows[0][0]) if rows else 0

    def log_after(self, seq: int) -> list[tuple[int, str, str]]:
        """(seq, kind, body) of the entries after ``seq``."""
        return [
            (row[0], row[1], row[2]) for row in self.fetch_now("SELECT seq, kind, body FROM log WHERE seq > ?", (seq,))
        ]
