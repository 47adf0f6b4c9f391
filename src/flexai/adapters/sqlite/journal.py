"""The one writer: group commit of log entries, and of the tables derived from them.

Callers append entries from the event loop; a thread takes all that have gathered, writes them in one transaction and
tells the loop. While one commit is under way the next group gathers, so a lone client waits for one fsync and a crowd
shares it; nobody sleeps to wait for company.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flexai.adapters.sqlite.rows import Statement, put_meta

_DERIVED_DELAY_S = 0.05
"""Derived rows ride with the next entry; when none comes they are written after this long."""
_RETRY_DELAY_S = 1.0


class StoreError(Exception):
    """The database refused a commit; nothing of it was kept."""


class StoreFull(StoreError):
    """There is no room left on the disk."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log, with rows that become durable together with it.

    ``context`` is the caller's own and comes back untouched with the commit.
    """

    seq: int
    at_ms: int
    kind: str
    body: str
    statements: tuple[Statement, ...] = ()
    context: object = None


OnCommit = Callable[[Sequence[Entry], StoreError | None], None]
"""Called in the loop, in order: these entries are durable, or, with an error, none of them is."""


class Journal:
    """Owner of the writing connection."""

    def __init__(self, connection: sqlite3.Connection, loop: asyncio.AbstractEventLoop, on_commit: OnCommit) -> None:
        self._connection, self._loop, self._on_commit = connection, loop, on_commit
        self._changed = threading.Condition()
        self._entries: list[Entry] = []
        self._derived: dict[object, Statement] = {}
        self._applied_seq: int | None = None
        self._flushed: list[Callable[[], None]] = []
        self._closing = self._urgent = False
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._next_tidy = 0
        self.n_commits = 0
        self.last_error: str | None = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def append(self, *entries: Entry) -> None:
        """Queue entries for the next commit: all of them in one."""
        with self._changed:
            self._entries.extend(entries)
            self._changed.notify()

    def derive(
        self,
        rows: Iterable[tuple[object, Statement]],
        applied_seq: int,
        flushed: Callable[[], None],
        *,
        urgent: bool = False,
    ) -> None:
        """Queue derived rows: the state after entry ``applied_seq``. Urgent ones do not wait for company.

        A later row of the same key takes an earlier one's place. ``flushed`` is called in the loop once durable.
        """
        with self._changed:
            for key, statement in rows:
                self._derived.pop(key, None)
                self._derived[key] = statement
            self._applied_seq = applied_seq
            self._flushed.append(flushed)
            self._urgent |= urgent
            if urgent or len(self._flushed) == 1:
                self._changed.notify()

    def tidy(self, statements: Sequence[Statement], flushed: Callable[[], None]) -> None:
        """Queue statements that say nothing new (removals); ``flushed`` is called in the loop once durable."""
        with self._changed:
            for statement in statements:
                self._derived["tidy", self._next_tidy] = statement
                self._next_tidy += 1
            self._flushed.append(flushed)
            self._changed.notify()

    def close(self) -> None:
        """Write what is queued and stop."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        delay_s = _DERIVED_DELAY_S
        while True:
            with self._changed:
                while not (self._entries or self._flushed or self._closing):
                    self._changed.wait()
                self._changed.wait_for(lambda: bool(self._entries) or self._closing or self._urgent, delay_s)
                self._urgent = False
                entries, self._entries = self._entries, []
                derived, self._derived = self._derived, {}
                flushed, self._flushed = self._flushed, []
                applied_seq, closing = self._applied_seq, self._closing
            error = self._commit(entries, derived, applied_seq if flushed else None)
            delay_s = _RETRY_DELAY_S if error else _DERIVED_DELAY_S
            if error and flushed:
                with self._changed:
                    self._derived = {
                        key: row for key, row in derived.items() if key not in self._derived
                    } | self._derived
                    self._flushed = flushed + self._flushed
            self.last_error = str(error) if error else None
            self._tell(entries, error, [] if error else flushed)
            if closing:
                return

    def _commit(
        self, entries: list[Entry], derived: dict[object, Statement], applied_seq: int | None
    ) -> StoreError | None:
        execute = self._connection.execute
        try:
            execute("BEGIN IMMEDIATE")
            for statement in derived.values():
                execute(*statement)
            if applied_seq is not None:
                execute(*put_meta("applied_seq", applied_seq))
            for entry in entries:
                execute("INSERT INTO log VALUES (?, ?, ?, ?)", (entry.seq, entry.at_ms, entry.kind, entry.body))
                for statement in entry.statements:
                    execute(*statement)
            execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            full = error.sqlite_errorcode == sqlite3.SQLITE_FULL if hasattr(error, "sqlite_errorcode") else False
            return (StoreFull if full else StoreError)(str(error))
        self.n_commits += 1
        return None

    def _tell(self, entries: list[Entry], error: StoreError | None, flushed: list[Callable[[], None]]) -> None:
        def deliver() -> None:
            if entries:
                self._on_commit(entries, error)
            for callback in flushed:
                callback()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver)
