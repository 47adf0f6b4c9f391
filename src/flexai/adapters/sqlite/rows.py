"""Rows of the store and the statements that write them."""

from dataclasses import dataclass

Statement = tuple[str, tuple[object, ...] | dict[str, object]]
"""SQL with its parameters."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """One row of ``job``; ``job`` and ``members`` are JSON of ``flexai.wire.store``."""

    seq: int
    id: str
    number: int
    uid: int
    user: str
    queue: str
    state: str
    started_at_ms: int | None
    finished_at_ms: int | None
    ended_seq: int | None
    exit_code: int | None
    cause: str
    job: str
    members: str


_MOST = 2**63 - 1
_JOB_COLUMNS = tuple(JobRow.__slots__)
JOB_COLUMNS = ", ".join(_JOB_COLUMNS)
_PUT_JOB = f"INSERT OR REPLACE INTO job ({JOB_COLUMNS}) VALUES ({', '.join('?' * len(_JOB_COLUMNS))})"  # noqa: S608


def put_job(row: JobRow) -> Statement:
    """Insert a job or overwrite what is known of it."""
    return _PUT_JOB, tuple([getattr(row, name) for name in _JOB_COLUMNS])


def put_submission(number: int, uid: int, gid: int, user: str, body: str) -> Statement:
    """Keep what a user sent."""
    return "INSERT INTO submission (number, uid, gid, user, body) VALUES (?, ?, ?, ?, ?)", (
        number,
        uid,
        gid,
        user,
        body,
    )


def put_meta(key: str, value: int) -> Statement:
    """Set one counter."""
    return "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value)


def put_queue(name: str, body: str) -> Statement:
    """Insert or change a queue."""
    return "INSERT OR REPLACE INTO queue (name, body) VALUES (?, ?)", (name, body)


def drop_queue(name: str) -> Statement:
    """Forget a queue."""
    return "DELETE FROM queue WHERE name = ?", (name,)


def put_node(name: str, body: str) -> Statement:
    """Insert or change a node."""
    return "INSERT OR REPLACE INTO node (name, body) VALUES (?, ?)", (name, body)


def put_device(uuid: str, cordoned: bool) -> Statement:
    """Remember whether a device is cordoned."""
    return "INSERT OR REPLACE INTO device (uuid, cordoned) VALUES (?, ?)", (uuid, int(cordoned))


def put_advance(
    queue: str, resource: str, share_milli: int, at_ms: int, held_milli: int, owed: int, most_saved: int
) -> Statement:
    """Remember what a queue's large jobs had beyond its share of a resource."""
    return "INSERT OR REPLACE INTO advance VALUES (?, ?, ?, ?, ?, ?, ?)", (
        queue, resource, share_milli, at_ms, held_milli, min(owed, _MOST), min(most_saved, _MOST),
    )  # fmt: skip


def put_history(number: int, at_ms: int, job_id: str, uid: int, kind: str, body: str) -> Statement:
    """One line of what happened, for people and watchers; ``job_id`` is empty for the pool itself."""
    return (
        "INSERT OR REPLACE INTO history (id, at_ms, job_id, uid, kind, body) VALUES (?, ?, ?, ?, ?, ?)",
        (number, at_ms, job_id, uid, kind, body),
    )


def open_usage(
    job_id: str, member: int, run: int, device: str, uid: int, user: str, queue: str,
    compute_milli: int, memory_bytes: int, from_ms: int,
) -> Statement:  # fmt: skip
    """A grant began to be held."""
    return (
        "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
        (job_id, member, run, device, uid, user, queue, compute_milli, memory_bytes, from_ms),
    )


def close_usage(job_id: str, member: int, to_ms: int) -> Statement:
    """All grants of a member were given back."""
    return "UPDATE usage SET to_ms = ? WHERE job_id = ? AND member = ? AND to_ms IS NULL", (to_ms, job_id, member)
