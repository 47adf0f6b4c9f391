"""A live pool's event log as a file (``flexai record``), and the same decisions from it again (``flexai replay``).

The file is JSON lines: a header, then every event in the order in which the pool decided on it, then what the pool made
of them: every start, eviction and change of grants, with its cause. Replaying feeds the events to a fresh scheduler
with the pool's settings; its decisions must be the recorded ones, byte for byte. Where a pool was restarted or
killed, the next scheduler is told what the next process told its own, and goes on after the last entry whose decisions
were durable.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from flexai.adapters.settings import load_settings
from flexai.adapters.sqlite import recorded_log
from flexai.policy.filters import FILTERS
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Command, Evict, Park, Resize, Start, Wake, Weigh
from flexai.scheduling.events import Event, JobSubmitted
from flexai.wire.api import check_filters
from flexai.wire.errors import BadInput
from flexai.wire.retold import decode_told
from flexai.wire.store import PoolStarted, decode_event, dumps, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 3
EXIT_BAD_INPUT = 2
EXIT_DIFFERS = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds: events as (seq, kind, body), and recorded decisions as lines of JSON.

    Attributes:
        applied_seq: decisions are recorded of events up to this one.
    """

    events: tuple[tuple[int, str, str], ...]
    decisions: tuple[str, ...]
    applied_seq: int

    @property
    def n_pools(self) -> int:
        """How many processes decided, one after the other."""
        return sum(kind == PoolStarted.__name__ for _, kind, _ in self.events)


def export(database: Path) -> Iterator[str]:
    """Lines of the file.

    Raises:
        BadInput: there is no such database, or it is none of a pool.
    """
    events, decisions, applied_seq = recorded_log(database)
    first = events[0][0] if events else 1
    yield dumps({"flexai_recording": VERSION, "complete": first == 1, "applied_seq": applied_seq})
    for seq, kind, body in events:
        yield dumps({"event": kind, "seq": seq, "body": body})
    for kind, job_id, body in decisions:
        yield dumps({"decision": kind, "job_id": job_id, **json.loads(body)})


def read(path: Path) -> Recording:
    """Read a file.

    Raises:
        BadInput: no recording, another version, or a line that does not parse (file, line, value).
    """
    events: list[tuple[int, str, str]] = []
    applied_seq = 0
    decisions: list[str] = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput("recording", str(path), f"cannot be read ({why})", "Make one with `flexai record`") from error
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            row: dict[str, Any] = json.loads(line)
            if number == 1:
                applied_seq = _check_header(path, row)
            elif "event" in row:
                events.append((int(row["seq"]), str(row["event"]), str(row["body"])))
            else:
                decisions.append(dumps({"decision": row["decision"], **row}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(where, line[:80], "is no line of a recording", "Make one with `flexai record`") from error
    if not lines:
        raise BadInput("recording", str(path), "is empty", "Make one with `flexai record`")
    return Recording(tuple(events), tuple(decisions), applied_seq)


def _check_header(path: Path, row: dict[str, Any]) -> int:
    if row.get("flexai_recording") != VERSION:
        version = row.get("flexai_recording")
        raise BadInput(f"{path}:1", str(version), f"is not version {VERSION}", "Record and replay with one release")
    if not row.get("complete"):
        raise BadInput(f"{path}:1", "complete", "is false: the log's beginning was dropped", "Keep the log longer")
    return int(row["applied_seq"])


def decide(recording: Recording) -> Iterator[Command]:
    """The commands of fresh schedulers, one for each process that decided.

    Raises:
        BadInput: an event that is unknown or does not fit its kind, or a filter that is not known here.
    """
    log = [(seq, decode_event(kind, body)) for seq, kind, body in recording.events]
    jobs = {event.job.id: event.job for _, event in log if isinstance(event, JobSubmitted)}
    pools = [event for _, event in log if isinstance(event, PoolStarted)]
    ends = [*(pool.applied_seq for pool in pools[1:]), recording.applied_seq]
    for pool, end in zip(pools, ends, strict=True):
        check_filters(pool.scheduler.filters, FILTERS)
        scheduler = Scheduler(pool.scheduler)
        for told in decode_told(pool, jobs):
            scheduler.step(told)
        for seq, event in log:
            is_told = seq <= pool.last_seq and isinstance(event, JobSubmitted)
            if pool.applied_seq < seq <= end and isinstance(event, get_args(Event)) and not is_told:
                yield from scheduler.step(event)


def decision_of(command: Command) -> str | None:
    """A command as the pool's history tells it; None for what is no decision about a member."""
    more: dict[str, Any] = {}
    match command:
        case Start() | Resize() | Wake() if not isinstance(command, Wake) or command.grants:
            names = ("device", "compute_milli", "limit_milli", "memory_bytes")
            more["grants"] = [{name: getattr(grant, name) for name in names} for grant in command.grants]
        case Weigh():
            (more["borrow_weight"],) = {grant.borrow_weight for grant in command.grants}
        case Evict() | Park() | Wake():
            pass
        case _:
            return None
    told = {"decision": type(command).__name__, "job_id": command.job_id, "member": command.member}
    return dumps({**told, "cause": command.cause, **more})


def record(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    state_dir: Annotated[
        Path | None, typer.Option(help="State folder of the pool; that of the settings when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for scripts.")] = False,
) -> None:
    """Write a pool's event log to a file that `flexai replay` reads."""
    try:
        folder = load_settings({}).state_dir if state_dir is None else state_dir
        text = "\n".join(export(folder / "pool.db")) + "\n"
    except BadInput as error:
        print(f"flexai record: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    try:
        out.write_text(text)
    except OSError as error:
        print(f"flexai record: {out}: cannot be written ({error.strerror}). Name another file", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    n_lines = text.count("\n") - 1
    if as_json:
        print(json.dumps({"file": str(out), "lines": n_lines}))
    else:
        print(f"wrote {n_lines} lines to {out}; replay with `flexai replay {out}`")


def replay(
    file: Annotated[Path, typer.Argument(help="A file that `flexai record` wrote.")],
    commands: Annotated[Path | None, typer.Option("--commands", help="Write every command to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for scripts.")] = False,
) -> None:
    """Decide on a recorded log again, and compare what was decided."""
    try:
        recording = read(file)
        decided = list(decide(recording))
    except BadInput as error:
        print(f"flexai replay: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    lines = [dumps({"command": type(command).__name__, **to_plain(command)}) for command in decided]
    if commands is not None:
        commands.write_text("".join(f"{line}\n" for line in lines))
    made = tuple(line for line in map(decision_of, decided) if line is not None)
    n_restarts = max(0, recording.n_pools - 1)
    differs_at = _first_difference(made, recording.decisions)
    result = {
        "events": len(recording.events), "commands": len(lines), "decisions": len(made), "restarts": n_restarts,
        "starts": sum(isinstance(command, Start) for command in decided), "same_as_recorded": differs_at is None,
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }  # fmt: skip
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        verdict = "the same as recorded" if differs_at is None else "NOT as recorded"
        through = f", through {n_restarts} restart{'s' * (n_restarts != 1)} of the pool" if n_restarts else ""
        print(
            f"{result['events']} events, {result['commands']} commands, {result['starts']} starts: {verdict}{through}"
        )
        if differs_at is not None:
            for who, some in (("recorded", recording.decisions), ("decided", made)):
                print(f"{who:9}{some[differs_at] if differs_at < len(some) else 'nothing more'}")
        print(f"digest {result['digest']}")
    if differs_at is not None:
        raise typer.Exit(EXIT_DIFFERS)


def _first_difference(made: tuple[str, ...], recorded: tuple[str, ...]) -> int | None:
    """Where what was decided again first differs; None where it does not."""
    both = zip(made, recorded, strict=False)
    at = next((number for number, (one, other) in enumerate(both) if one != other), min(len(made), len(recorded)))
    return None if at == len(made) == len(recorded) else at
