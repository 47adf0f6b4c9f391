"""The running pool: its parts put together, and what goes on beside requests (agent, ticks, sweeps, retention)."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexai.adapters.sqlite import JobRow, Journal, Reader, open_store
from flexai.apps.pool.agent_link import AgentLink
from flexai.apps.pool.book import Book, JobRecord, record_of
from flexai.apps.pool.core import Core, DecisionCore, monotone_wall_clock
from flexai.apps.pool.driver import Driver
from flexai.apps.pool.held_memory import HeldMemory
from flexai.apps.pool.redistribution import Redistribution
from flexai.apps.pool.retention import Retention
from flexai.apps.pool.runs import Runs
from flexai.apps.pool.tasks import forever, spawn
from flexai.apps.pool.transitions import Outcome
from flexai.model import JobState
from flexai.scheduling import SchedulerSettings
from flexai.scheduling.commands import NoteAdvance
from flexai.scheduling.events import Tick
from flexai.wire.api import Submission, decode_submission
from flexai.wire.retold import encode_told
from flexai.wire.store import PoolStarted, decode_queue_row

log = logging.getLogger("flexai.pool")

_WAITS = {JobState.QUEUED, JobState.PARKED}
_TICK_S = 1.0
_TICK_BUDGET_US = 10_000
_LEAST_STEPS, _MOST_STEPS = 200, 10_000
_LEAVE_S = 30.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the pool lives, and how long it keeps what is over.

    Attributes:
        run_dir: sockets.
        state_dir: what survives.
        keep_days: history, ended jobs and their logs are removed after this long.
        scheduler: what an operator chose about decisions.
    """

    run_dir: Path
    state_dir: Path
    keep_days: float = 30.0
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)


@dataclass(slots=True)
class Pool:
    """Everything that requests need. Made by :func:`open_pool`."""

    settings: Settings
    core: Core
    reader: Reader
    journal: Journal
    driver: Driver
    link: AgentLink
    runs: Runs
    held_memory: HeldMemory
    next_number: int
    started_at_ms: int
    quit: asyncio.Event = field(default_factory=asyncio.Event)
    is_leaving: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    history_tail: asyncio.Condition = field(default_factory=asyncio.Condition)
    last_history: int = 0

    @property
    def book(self) -> Book:
        """The pool's memory of jobs."""
        return self.core.book

    def log_path(self, job_id: str, member: int) -> Path:
        """Where the output of a member goes."""
        return self.settings.state_dir / "jobs" / job_id / str(member) / "log"

    async def record(self, job_id: str) -> JobRecord | None:
        """A job, from memory or from the store."""
        if (record := self.book.find(job_id)) is not None:
            return record
        row = await self.reader.job(job_id)
        return None if row is None else (await self.from_rows([row]))[0]

    async def records(self, number: int) -> list[JobRecord]:
        """The jobs of one submission: one, or the elements of an array."""
        rows = await self.reader.jobs_of(number)
        known = {record.id: record for record in await self.from_rows(rows)}
        known |= {record.id: record for record in self.book.elements(number)}
        return sorted(known.values(), key=lambda record: record.job.seq)

    async def from_rows(self, rows: Sequence[JobRow]) -> list[JobRecord]:
        """Records of rows; those in memory as memory has them."""
        found = {row.id: self.book.find(row.id) for row in rows}
        missing = {row.number for row in rows if found[row.id] is None}
        submissions = {
            number: (gid, decode_submission(json.loads(body)))
            for number, gid, body in await self.reader.submissions(missing)
        }
        return [found[row.id] or record_of(row, *submissions[row.number]) for row in rows]

    def begin(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run something as long as the pool lives; a failure is logged and it is begun again."""
        self._tasks.append(asyncio.create_task(forever(work, name), name=name))

    async def leave(self, *, wait_for_jobs: bool) -> None:
        """End the process, after running jobs have ended if asked, but not later than a while."""
        if wait_for_jobs:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_S), self.history_tail:
                    await self.history_tail.wait_for(lambda: not self.book.active)
        self.quit.set()

    async def close(self) -> None:
        """Stop the work beside requests and write what is queued."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self.journal.close)
        self.reader.close()

    async def ticks(self) -> None:
        """Tell the scheduler of time while anything waits for it, with as much to search as it can in its time."""
        n_steps = _LEAST_STEPS
        while True:
            await asyncio.sleep(_TICK_S)
            if self.book.nodes and any(r.state in _WAITS for r in self.book.active.values()):
                n_steps = max(
                    _LEAST_STEPS, min(_MOST_STEPS, int(n_steps * _TICK_BUDGET_US / max(self.core.tick_us, 1)))
                )
                await self.core.post_surely(Tick(self.core.clock(), n_steps))

    async def announce(self, last_history: int) -> None:
        """Wake those who follow the history."""
        async with self.history_tail:
            self.last_history = max(self.last_history, last_history)
            self.history_tail.notify_all()


async def open_pool(settings: Settings, new_scheduler: Callable[[], DecisionCore]) -> Pool:
    """Open the store, find everything again, and begin to work.

    Raises:
        BadInput: the store is not usable.
    """
    began = time.perf_counter()
    path = settings.state_dir / "pool.db"
    connection = open_store(path)
    reader = Reader(path)
    clock = monotone_wall_clock()
    book = Book()
    load_book(book, reader)
    meta = reader.meta()
    applied_seq, last_seq = meta.get("applied_seq", 0), reader.last_seq()
    core = Core(new_scheduler, book, clock, meta, last_seq)
    tail = reader.log_after(applied_seq)
    core.recover(tail, reader.last_at_ms())
    journal = Journal(connection, asyncio.get_running_loop(), core.on_commit)
    core.attach(journal)

    async def submission(number: int) -> Submission:
        ((body,),) = await reader.fetch("SELECT body FROM submission WHERE number = ?", (number,))
        return decode_submission(json.loads(body))

    runs = Runs(core)
    link = AgentLink(core, settings.run_dir / "agent.sock")
    driver = Driver(
        core, link.agent.call, submission, lambda job_id, member: str(pool.log_path(job_id, member)), runs.granted
    )
    link.driver = runs.driver = driver
    (last_number,) = reader.fetch_now("SELECT max(number) FROM submission")[0]
    if last_number is None:
        last_number = last_number_of_files(settings.state_dir / "jobs")
    held_memory = HeldMemory(core, link)
    pool = Pool(settings, core, reader, journal, driver, link, runs, held_memory, last_number + 1, clock())
    pool.last_history = core.transitions.last_history
    runs.is_using = link.is_using
    core.agent_is_away = lambda: not link.is_connected

    def durable(outcome: Outcome) -> None:
        driver.durable(outcome)
        if outcome.last_history > pool.last_history:
            spawn(pool.announce(outcome.last_history))

    core.on_durable.append(durable)
    journal.start()
    pool.begin(core.run, "decisions")
    # First of all: what was made of the log's end is this process's, and is written with this or after it.
    told = encode_told(core.told)
    core.told = ()
    spawn(core.post_surely(PoolStarted(clock(), settings.scheduler, applied_seq, last_seq, told)))
    pool.begin(link.agent.run, "agent")
    pool.begin(pool.ticks, "ticks")
    pool.begin(Redistribution(core, link).run, "redistribution")
    if settings.scheduler.park != "never":
        pool.begin(held_memory.run, "held memory")
    pool.begin(runs.sweep, "runs")
    pool.begin(
        Retention(settings.state_dir / "jobs", settings.keep_days, reader, journal, book, clock).run, "retention"
    )
    log.info(
        "%d active jobs, %d entries after the tables, opened in %.0f ms",
        len(book.active), len(tail), (time.perf_counter() - began) * 1e3,
    )  # fmt: skip
    return pool


def last_number_of_files(jobs_dir: Path) -> int:
    """The highest number among jobs that left files behind; 0 for none.

    A store that was moved away leaves them, and with them the tokens of starts: a job with such a number would be taken
    for one that has begun already.
    """
    try:
        names = [entry.name for entry in jobs_dir.iterdir()]
    except OSError:
        return 0
    numbers = (name.partition("_")[0] for name in names)
    return max((int(number) for number in numbers if number.isascii() and number.isdigit()), default=0)


def load_book(book: Book, reader: Reader) -> None:
    """What the tables say."""
    for (body,) in reader.fetch_now("SELECT body FROM queue"):
        queue = decode_queue_row(body)
        book.queues[queue.name] = queue
    for advance in reader.fetch_now("SELECT * FROM advance"):
        book.advances[advance[0], advance[1]] = NoteAdvance(*advance)
    book.cordoned = {uuid for (uuid,) in reader.fetch_now("SELECT uuid FROM device WHERE cordoned")}
    submissions: dict[int, tuple[int, Submission]] = {}
    for number, gid, body in reader.fetch_now(
        "SELECT number, gid, json_remove(body, '$.env') FROM submission"
        " WHERE number IN (SELECT number FROM job WHERE ended_seq IS NULL)"
    ):
        submissions[number] = gid, decode_submission(json.loads(body))
    for row in reader.active_jobs():
        book.add(record_of(row, *submissions[row.number]))
