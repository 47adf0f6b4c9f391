"""``up``, ``down``, ``completion``: starting, stopping, setting up."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from flexai.adapters.pool_client import PoolClient, PoolRefused, PoolUnreachable
from flexai.apps.cli.commands.shown import AsJson, RunDir, StateDir, print_json, settings_from
from flexai.apps.cli.up.going_on import running_jobs
from flexai.apps.cli.up.main import down as stop_pool
from flexai.apps.cli.up.main import up as start_pool
from flexai.wire.errors import BadInput


def up(
    simulate: Annotated[str | None, typer.Option(help="Simulate these cards, as h200:2.", metavar="CARDS")] = None,
    backend: Annotated[
        str | None, typer.Option(help="Enforce shares by auto, lease or hwslice.", metavar="NAME")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return once the pool is ready.")] = False,
    run_dir: RunDir = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> int:
    """Start the pool of this machine and keep its processes alive."""
    settings = settings_from(run_dir, state_dir, simulate=simulate, backend=backend)
    return start_pool(settings, detach=detach, say=_say_json if as_json else _say)


def down(
    jobs: Annotated[str, typer.Option(help="Running jobs: keep or cancel; asked on a terminal.", metavar="WHAT")] = "",
    run_dir: RunDir = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> int:
    """Stop the pool of this machine."""
    if jobs not in {"", "keep", "cancel"}:
        raise BadInput("--jobs", jobs, "is unknown", "Use keep or cancel")
    settings = settings_from(run_dir, state_dir)
    if not jobs:
        jobs = _ask_about_jobs(PoolClient(settings.run_dir, timeout_s=5.0))
    lines: list[str] = []
    code = stop_pool(settings, jobs, lines.append if as_json else _say)
    if as_json:
        print_json({"exit_code": code, "messages": lines})
    return code


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")],
    as_json: AsJson = False,
) -> None:
    """Print the completion script of a shell; as: source <(flexai completion bash)."""
    import typer.completion as scripts  # noqa: PLC0415  rare

    if shell not in {"bash", "zsh", "fish"}:
        raise BadInput("shell", shell, "is unknown", "Use bash, zsh or fish")
    script: str = vars(scripts)["get_completion_script"](
        prog_name="flexai", complete_var="_FLEXAI_COMPLETE", shell=shell
    )
    if as_json:
        print_json({"shell": shell, "script": script})
    else:
        print(script)


def _ask_about_jobs(pool: PoolClient) -> str:
    try:
        running = running_jobs(pool)
    except (PoolUnreachable, PoolRefused):
        return "keep"
    if not running or not sys.stdin.isatty():
        return "keep"
    told = ", ".join(running[:10])
    return "keep" if typer.confirm(f"{len(running)} jobs run ({told}). Let them go on?", default=True) else "cancel"


def _say_json(line: str) -> None:
    """`up` in the foreground has no last line, so each line is a document."""
    print(json.dumps({"message": line}), flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


COMMANDS = (up, down, completion)
