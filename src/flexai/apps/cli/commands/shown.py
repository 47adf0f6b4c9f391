"""How answers are shown: tables for people, JSON for programs, one place for both."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from flexai.adapters.pool_client import PoolClient, PoolRefused
from flexai.adapters.settings import load_settings
from flexai.apps.cli import exits
from flexai.wire.quantity import format_duration, format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.console import RenderableType

    from flexai.adapters.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunDir = Annotated[str | None, typer.Option("--run-dir", help="Folder of the pool's sockets.")]
StateDir = Annotated[str | None, typer.Option("--state-dir", help="Folder of the database, logs and checkpoints.")]
PIPE_COLUMNS = 1000  # in a pipe nothing is cut short
STATE_STYLES = {
    "running": "green", "starting": "green", "queued": "yellow", "held": "yellow", "parked": "cyan",
    "paused": "cyan", "stopping": "cyan", "failed": "red", "cancelled": "dim",
}  # fmt: skip


def settings_from(run_dir: str | None = None, state_dir: str | None = None, **flags: str | None) -> Settings:
    """Settings with the flags of this command on top."""
    return load_settings({"run_dir": run_dir, "state_dir": state_dir, **flags})


def pool_from(run_dir: str | None) -> PoolClient:
    """The pool this command talks to."""
    return PoolClient(settings_from(run_dir).run_dir)


def console() -> Console:
    """Standard output: colour only on a terminal unless the settings say otherwise."""
    color = load_settings().color
    force = {"auto": None, "always": True, "never": False}[color]
    width = None if sys.stdout.isatty() else PIPE_COLUMNS
    return Console(force_terminal=force, no_color=color == "never" or None, width=width, highlight=False)


def print_json(answer: Any) -> None:
    """One JSON document, two spaces deep."""
    sys.stdout.write(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")


def post_each(
    pool: PoolClient, paths: Mapping[str, str], as_json: bool, told: Callable[[str, dict[str, Any]], str]
) -> int:
    """Ask the same of several things: one that is refused is said and does not keep the others from it.

    Returns:
        The exit code: ``REFUSED`` when any was refused.
    """
    items, errors = [], []
    for name, path in paths.items():
        try:
            answer = pool.post(path)
        except PoolRefused as error:
            errors.append({"name": name, "code": error.code, "message": str(error)})
            if not as_json:
                print(f"flexai: {error}", file=sys.stderr)
            continue
        items.append(answer)
        if not as_json:
            print(told(name, answer))
    if as_json:
        print_json({"items": items} | ({"errors": errors} if errors else {}))
    return exits.REFUSED if errors else exits.OK


def show(answer: Any, as_json: bool, table: RenderableType) -> None:
    """Print ``answer`` as JSON, or the table made from it."""
    if as_json:
        print_json(answer)
    else:
        console().print(table)


def styled_state(state: str) -> str:
    """A state with its colour as rich markup."""
    style = STATE_STYLES.get(state, "default")
    return f"[{style}]{state}[/{style}]"


def share(milli: object) -> str:
    """300 -> 30%; empty for nothing."""
    return format_share(milli) if isinstance(milli, int) else ""


def size(n_bytes: object) -> str:
    """Bytes for people; empty for nothing."""
    return format_size(n_bytes) if isinstance(n_bytes, int) else ""


def duration(ms: object) -> str:
    """Milliseconds for people; empty for nothing."""
    return format_duration(max(0, int(ms))) if isinstance(ms, int | float) else ""


def moment(at_ms: object) -> str:
    """Wall-clock time of day, with the date when it is not today."""
    if not isinstance(at_ms, int | float) or not at_ms:
        return ""
    at = datetime.fromtimestamp(at_ms / 1000).astimezone()
    today = at.date() == datetime.now().astimezone().date()
    return at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def reason_text(job: Mapping[str, Any]) -> str:
    """What a pending job was told; why a finished one ended."""
    reason = job.get("reason")
    if isinstance(reason, dict):
        return str(reason.get("message") or reason.get("code") or "")
    cause = str(reason or job.get("cause") or "")
    return "" if cause == "exited" else cause  # of itself: the exit code says the rest
