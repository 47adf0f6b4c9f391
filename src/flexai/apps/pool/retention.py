"""What is over is kept for a while, then removed: rows, history, log entries, and the output of jobs."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from flexai.adapters.sqlite import Journal, Reader, Statement
from flexai.apps.pool.book import Book

log = logging.getLogger("flexai.pool.retention")

_FIRST_S, _EVERY_S = 60.0, 3600.0
_DAY_MS = 86_400_000
_BATCH = 500
# The counters of log, history and submissions go on from their last row, so that one is always kept.
_REMOVALS = (
    "DELETE FROM submission WHERE number NOT IN (SELECT number FROM job) AND number < (SELECT max(number) FROM job)",
    "DELETE FROM usage WHERE to_ms < :before_ms",
    "DELETE FROM history WHERE at_ms < :before_ms AND id < (SELECT max(id) FROM history)",
    """DELETE FROM log WHERE at_ms < :before_ms AND seq < (SELECT value FROM meta WHERE key = 'applied_seq')
        AND seq < (SELECT max(seq) FROM log)""",
)


class Retention:
    """Removes what ended long ago, a little at a time."""

    def __init__(
        self, jobs_dir: Path, keep_days: float, reader: Reader, journal: Journal, book: Book, clock: Callable[[], int]
    ) -> None:
        self._jobs_dir, self._keep_ms = jobs_dir, int(keep_days * _DAY_MS)
        self._reader, self._journal, self._book, self._clock = reader, journal, book, clock

    async def run(self) -> None:
        """Go on as long as the process lives."""
        await asyncio.sleep(_FIRST_S)
        while True:
            n_jobs = await self.once()
            if n_jobs:
                log.info("removed %d jobs that ended more than %.3g days ago", n_jobs, self._keep_ms / _DAY_MS)
            await asyncio.sleep(_EVERY_S)

    async def once(self) -> int:
        """Remove everything that is due; the number of jobs removed."""
        before_ms, n_jobs = self._clock() - self._keep_ms, 0
        while True:
            rows = await self._reader.fetch(
                "SELECT id, seq FROM job WHERE ended_seq IS NOT NULL AND finished_at_ms < ? LIMIT ?",
                (before_ms, _BATCH),
            )
            due = [(job_id, seq) for job_id, seq in rows if job_id not in self._book.ended]
            # The output goes first: a crash between the two leaves rows that are found again, not files that are not.
            await asyncio.get_running_loop().run_in_executor(None, self._remove_files, [job_id for job_id, _ in due])
            deletions: list[Statement] = [("DELETE FROM job WHERE seq = ?", (seq,)) for _, seq in due]
            await self._write(deletions)
            n_jobs += len(due)
            if len(rows) < _BATCH:
                break
        await self._write([(sql, {"before_ms": before_ms}) for sql in _REMOVALS])
        return n_jobs

    async def _write(self, statements: list[Statement]) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._journal.tidy(statements, lambda: None if done.done() else done.set_result(None))
        await done

    def _remove_files(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            path = self._jobs_dir / job_id
            if path.exists():
                shutil.rmtree(path, ignore_errors=True)
