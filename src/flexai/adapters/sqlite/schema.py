"""Opening the database: pragmas, schema versions, migrations."""

import contextlib
import os
import sqlite3
from pathlib import Path

from flexai.wire.errors import BadInput

# One script per schema version; a released script is never edited. `PRAGMA user_version` counts those applied.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

    -- The truth: what happened, in order.
    CREATE TABLE log (seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);

    -- What users sent; the elements of an array share one row. Written together with their log entries.
    CREATE TABLE submission (number INTEGER PRIMARY KEY, uid INTEGER NOT NULL, gid INTEGER NOT NULL,
        user TEXT NOT NULL, body TEXT NOT NULL);

    -- Derived from the log up to meta.applied_seq.
    CREATE TABLE job (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, number INTEGER NOT NULL,
        uid INTEGER NOT NULL, user TEXT NOT NULL, queue TEXT NOT NULL, state TEXT NOT NULL,
        started_at_ms INTEGER, finished_at_ms INTEGER, ended_seq INTEGER, exit_code INTEGER, cause TEXT NOT NULL,
        job TEXT NOT NULL, members TEXT NOT NULL);
    CREATE INDEX job_active ON job (seq) WHERE ended_seq IS NULL;
    CREATE INDEX job_ended ON job (ended_seq) WHERE ended_seq IS NOT NULL;
    CREATE INDEX job_ended_of ON job (uid, ended_seq) WHERE ended_seq IS NOT NULL;
    CREATE INDEX job_number ON job (number);
    CREATE TABLE queue (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE node (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE device (uuid TEXT PRIMARY KEY, cordoned INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE history (id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, job_id TEXT NOT NULL, uid INTEGER NOT NULL,
        kind TEXT NOT NULL, body TEXT NOT NULL);
    CREATE INDEX history_job ON history (job_id, id);
    CREATE INDEX history_at ON history (at_ms);
    CREATE TABLE usage (job_id TEXT NOT NULL, member INTEGER NOT NULL, run INTEGER NOT NULL, device TEXT NOT NULL,
        uid INTEGER NOT NULL, user TEXT NOT NULL, queue TEXT NOT NULL, compute_milli INTEGER NOT NULL,
        memory_bytes INTEGER NOT NULL, from_ms INTEGER NOT NULL, to_ms INTEGER,
        PRIMARY KEY (job_id, member, run, device, from_ms)) WITHOUT ROWID;
    CREATE INDEX usage_to ON usage (to_ms);
    """,
    """
    -- Derived too: what queues' large jobs had beyond their share (scheduling.commands.NoteAdvance).
    CREATE TABLE advance (queue TEXT NOT NULL, resource TEXT NOT NULL, share_milli INTEGER NOT NULL,
        at_ms INTEGER NOT NULL, held_milli INTEGER NOT NULL, owed INTEGER NOT NULL, most_saved INTEGER NOT NULL,
        PRIMARY KEY (queue, resource)) WITHOUT ROWID;
    """,
)


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection with this store's pragmas; transactions are begun and ended by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    try:
        # WAL + FULL: a commit returns after its bytes are on the disk, and costs one fsync.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if read_only:
            connection.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def open_store(path: Path) -> sqlite3.Connection:
    """Open the pool's database, creating or migrating it.

    Raises:
        BadInput: not a database, unreadable, damaged, or written by a newer release.
    """
    try:
        # Environments of jobs hold secrets. SQLite gives its other files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = connect(path)
    except (sqlite3.Error, OSError) as error:
        raise _unreadable(path, error) from None
    try:
        _migrate(connection, path)
    except BadInput:
        connection.close()
        raise
    except sqlite3.Error as error:
        connection.close()
        raise _unreadable(path, error) from None
    return connection


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise BadInput(
            str(path),
            f"schema version {version}",
            f"is newer than this release's {len(MIGRATIONS)}",
            "Run the release that wrote it, or a newer one",
        )
    if 0 < version < len(MIGRATIONS):
        _back_up(connection, path.with_name(f"{path.name}.schema{version}.bak"))
    for number in range(version, len(MIGRATIONS)):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(MIGRATIONS[number]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")
        except sqlite3.Error:
            connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> list[str]:
    # executescript() would commit halfway; a migration is all or nothing.
    statements, current = [], ""
    for line in script.splitlines():
        current += line + "\n"
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return statements


def _back_up(connection: sqlite3.Connection, copy: Path) -> None:
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(copy)) as target:
        connection.backup(target)


def _unreadable(path: Path, error: Exception) -> BadInput:
    return BadInput(
        str(path),
        str(error),
        "cannot be opened as the pool's database",
        "Check its permissions and the disk; or restore a backup, or move it away to start with an empty pool",
    )
