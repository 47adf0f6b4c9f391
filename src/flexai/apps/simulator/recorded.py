"""A live pool's event log as a file (``flexai record``), and the same decisions from it again (``flexai replay``).

The file is JSON lines: a header, then every event in the order in which the pool decided on it, then what the pool made
of them: every start, eviction and change of grants, with its cause. Replaying feeds the events to a fresh scheduler
with the pool's settings; its decisions must be the recorded ones, byte for byte. Where a pool was restarted the replay
ends: what the new process was told of the old one's memory is not in the log.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  typer reads annotations
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from flexai.adapters.sqlite import recorded_log
from flexai.model import Queue
from flexai.policy.filters import FILTERS
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Command, Evict, Resize, Start
from flexai.scheduling.events import Event, QueuePut
from flexai.wire.api import DEFAULT_QUEUE, check_filters
from flexai.wire.errors import BadInput
from flexai.wire.store import PoolStarted, decode_event, dumps, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 2
EXIT_BAD_INPUT = 2
EXIT_DIFFERS = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds: events as (kind, body), and recorded decisions as lines of JSON."""

    events: tuple[tuple[str, str], ...]
    decisions: tuple[str, ...]

    @property
    def n_pools(self) -> int:
        """How many processes decided, one after the other."""
        return sum(kind == PoolStarted.__name__ for kind, _ in self.events)


def export(database: Path) -> Iterator[str]:
    """Lines of the file.

    Raises:
        BadInput: there is no such database, or it is none of a pool.
    """
    events, decisions = recorded_log(database)
    first = events[0][0] if events else 1
    yield dumps({"flexai_recording": VERSION, "complete": first == 1})
    for _, kind, body in events:
        yield dumps({"event": kind, "body": body})
    for kind, job_id, body in decisions:
        yield dumps({"decision": kind, "job_id": job_id, **json.loads(body)})


def read(path: Path) -> Recording:
    """Read a file.

    Raises:
        BadInput: no recording, another version, or a line that does not parse (file, line, value).
    """
    events: list[tuple[str, str]] = []
    decisions: list[str] = []
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput("recording", str(path), f"cannot be read ({error})", "Make one with `flexai record`") from error
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            row: dict[str, Any] = json.loads(line)
            if number == 1:
                _check_header(path, row)
            elif "event" in row:
                events.append((str(row["event"]), str(row["body"])))
            else:
                decisions.append(dumps({"decision": row["decision"], **row}))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(where, line[:80], "is no line of a recording", "Make one with `flexai record`") from error
    if not lines:
        raise BadInput("recording", str(path), "is empty", "Make one with `flexai record`")
    return Recording(tuple(events), tuple(decisions))


def _check_header(path: Path, row: dict[str, Any]) -> None:
    if row.get("flexai_recording") != VERSION:
        version = row.get("flexai_recording")
        raise BadInput(f"{path}:1", str(version), f"is not version {VERSION}", "Record and replay with one release")
    if not row.get("complete"):
        raise BadInput(f"{path}:1", "complete", "is false: the log's beginning was dropped", "Keep the log longer")


def decide(recording: Recording) -> Iterator[Command]:
    """The commands of a fresh scheduler, until the pool was restarted.

    Raises:
        BadInput: an event that is unknown or does not fit its kind, or a filter that is not known here.
    """
    scheduler, n_pools = Scheduler(), 0
    for kind, body in recording.events:
        event = decode_event(kind, body)
        if isinstance(event, PoolStarted):
            n_pools += 1
            if n_pools > 1:
                return
            check_filters(event.scheduler.filters, FILTERS)
            scheduler = Scheduler(event.scheduler)
            scheduler.step(QueuePut(event.at_ms, Queue(DEFAULT_QUEUE)))  # which every pool has, without an event
        elif isinstance(event, get_args(Event)):
            yield from scheduler.step(event)


def decision_of(command: Command) -> str | None:
    """A command as the pool's history tells it; None for what is no decision about a member."""
    more: dict[str, Any] = {}
    match command:
        case Start() | Resize():
            names = ("device", "compute_milli", "limit_milli", "memory_bytes")
            more["grants"] = [{name: getattr(grant, name) for name in names} for grant in command.grants]
        case Evict():
            pass
        case _:
            return None
    told = {"decision": type(command).__name__, "job_id": command.job_id, "member": command.member}
    return dumps({**told, "cause": command.cause, **more})


def record(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    state_dir: Annotated[Path, typer.Option(help="State directory of the pool.", envvar="FLEXAI_STATE_DIR")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result for scripts.")] = False,
) -> None:
    """Write a pool's event log to a file that `flexai replay` reads."""
    try:
        text = "\n".join(export(state_dir / "pool.db")) + "\n"
    except BadInput as error:
        print(f"flexai record: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    out.write_text(text)
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
    differs_at = _first_difference(made, recording.decisions, until_restart=n_restarts > 0)
    result = {
        "events": len(recording.events), "commands": len(lines), "decisions": len(made), "restarts": n_restarts,
        "starts": sum(isinstance(command, Start) for command in decided), "same_as_recorded": differs_at is None,
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }  # fmt: skip
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        verdict = "the same as recorded" if differs_at is None else "NOT as recorded"
        verdict += " until the pool was restarted" if n_restarts else ""
        print(f"{result['events']} events, {result['commands']} commands, {result['starts']} starts: {verdict}")
        if differs_at is not None:
            for who, some in (("recorded", recording.decisions), ("decided", made)):
                print(f"{who:9}{some[differs_at] if differs_at < len(some) else 'nothing more'}")
        print(f"digest {result['digest']}")
    if differs_at is not None:
        raise typer.Exit(EXIT_DIFFERS)


def _first_difference(made: tuple[str, ...], recorded: tuple[str, ...], *, until_restart: bool) -> int | None:
    """Where what was decided again first differs; after a restart more may be recorded than can be decided again."""
    both = zip(made, recorded, strict=False)
    at = next((number for number, (one, other) in enumerate(both) if one != other), min(len(made), len(recorded)))
    if at == len(made) and (until_restart or at == len(recorded)):
        return None
    return at
