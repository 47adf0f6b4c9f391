"""The pool's store: one SQLite file with the ordered event log and the tables derived from it.

Here live the schema and its migrations, the group-committing writer, and the queries. What an event means is not known
here: rows come and go as plain values. Only ``apps.pool`` writes it; ``flexai record`` reads its log.
"""

from flexai.adapters.sqlite.journal import Entry, Journal, StoreError, StoreFull
from flexai.adapters.sqlite.reader import Reader
from flexai.adapters.sqlite.recorded import recorded_log
from flexai.adapters.sqlite.rows import JobRow, Statement
from flexai.adapters.sqlite.schema import connect, open_store

__all__ = [
    "Entry",
    "JobRow",
    "Journal",
    "Reader",
    "Statement",
    "StoreError",
    "StoreFull",
    "connect",
    "open_store",
    "recorded_log",
]
