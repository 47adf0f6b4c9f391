"""A live pool's event log as a file (``flexai record``), and the same decisions from it again (``flexai replay``).

The file is JSON lines: a header, then every event in the order in which the pool decided on it, then the starts that
the pool made of them. Replaying feeds the events to a fresh scheduler; its starts must be the recorded ones, byte for
byte, unless the pool was restarted in between (a restart tells the scheduler what it had known, which is not in the
log).
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
from flexai.scheduling import Scheduler
from flexai.scheduling.commands import Start
from flexai.scheduling.events import Event
from flexai.wire.errors import BadInput
from flexai.wire.store import decode_event, dumps, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION = 1
EXIT_BAD_INPUT = 2
EXIT_DIFFERS = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file holds: events as (kind, body), and recorded starts as (job, member, devices)."""

    events: tuple[tuple[str, str], ...]
    starts: tuple[tuple[str, int, tuple[str, ...]], ...]


def export(database: Path) -> Iterator[str]:
    """Lines of the file.

    Raises:
        BadInput: there is no such database, or it is none of a pool.
    """
    events, starts = recorded_log(database)
    first = events[0][0] if events else 1
    yield dumps({"flexai_recording": VERSION, "complete": first == 1})
    for _, kind, body in events:
        yield dumps({"event": kind, "body": body})
    for job_id, body in starts:
        line = json.loads(body)
        devices = [grant["device"] for grant in line["grants"]]
        yield dumps({"start": job_id, "member": line["member"], "devices": devices})


def read(path: Path) -> Recording:
    """Read a file.

    Raises:
        BadInput: no recording, another version, or a line that does not parse (file, line, value).
    """
    events: list[tuple[str, str]] = []
    starts: list[tuple[str, int, tuple[str, ...]]] = []
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
                starts.append((str(row["start"]), int(row["member"]), tuple(map(str, row["devices"]))))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(where, line[:80], "is no line of a recording", "Make one with `flexai record`") from error
    if not lines:
        raise BadInput("recording", str(path), "is empty", "Make one with `flexai record`")
    return Recording(tuple(events), tuple(starts))


def _check_header(path: Path, row: dict[str, Any]) -> None:
    if row.get("flexai_recording") != VERSION:
        version = row.get("flexai_recording")
        raise BadInput(f"{path}:1", str(version), f"is not version {VERSION}", "Record and replay with one release")
    if not row.get("complete"):
        raise BadInput(f"{path}:1", "complete", "is false: the log's beginning was dropped", "Keep the log longer")


def decide(recording: Recording) -> Iterator[str]:
    """The commands of a fresh scheduler, one JSON line each.

    Raises:
        BadInput: an event that is unknown or does not fit its kind.
    """
    scheduler = Scheduler()
    for kind, body in recording.events:
        event = decode_event(kind, body)
        if isinstance(event, get_args(Event)):
            for command in scheduler.step(event):
                yield dumps({"command": type(command).__name__, **to_plain(command)})


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
    """Decide on a recorded log again, and compare the starts with those that were made."""
    try:
        recording = read(file)
        lines = list(decide(recording))
    except BadInput as error:
        print(f"flexai replay: {error}", file=sys.stderr)
        raise typer.Exit(EXIT_BAD_INPUT) from error
    if commands is not None:
        commands.write_text("".join(f"{line}\n" for line in lines))
    made = [json.loads(line) for line in lines]
    starts = tuple(
        (str(one["job_id"]), int(one["member"]), tuple(grant["device"] for grant in one["grants"]))
        for one in made
        if one["command"] == Start.__name__
    )
    same = starts == recording.starts
    result = {
        "events": len(recording.events), "commands": len(lines), "starts": len(starts), "same_as_recorded": same,
        "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }  # fmt: skip
    if as_json:
        print(json.dumps(result, indent=2))
    else:
        verdict = "the same as recorded" if same else f"NOT as recorded ({len(recording.starts)} starts were made)"
        print(f"{result['events']} events, {result['commands']} commands, {result['starts']} starts: {verdict}")
        print(f"digest {result['digest']}")
    if not same:
        raise typer.Exit(EXIT_DIFFERS)
