"""What a pool's database recorded, read by whoever has the file, whether the pool runs or not."""

import sqlite3
from contextlib import closing
from pathlib import Path

from flexai.wire.errors import BadInput


def recorded_log(path: Path) -> tuple[list[tuple[int, str, str]], list[tuple[str, str, str]], int]:
    """Entries of the event log as (seq, kind, body), the decisions made of them as (kind, job, body), and up to which.

    Of entries after that one, decisions may not be written yet: the pool runs, or was killed.

    Raises:
        BadInput: there is no such database, or it is none of a pool.
    """
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")  # one moment of a pool that runs
            events = database.execute("SELECT seq, kind, body FROM log ORDER BY seq").fetchall()
            decisions = database.execute(
                "SELECT kind, job_id, body FROM history"
                " WHERE kind IN ('Start', 'Evict', 'Resize', 'Weigh', 'Park', 'Wake') ORDER BY id"
            ).fetchall()
            applied = database.execute("SELECT value FROM meta WHERE key = 'applied_seq'").fetchone()
    except sqlite3.Error as error:
        raise BadInput("pool database", str(path), f"cannot be read ({error})", "Give --state-dir of a pool") from error
    return events, decisions, int(applied[0]) if applied else 0
