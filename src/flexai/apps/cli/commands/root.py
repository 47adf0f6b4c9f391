"""The tree of commands and what becomes of their errors."""

from __future__ import annotations

import json
import os
import sys
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexai import __version__
from flexai.adapters.pool_client import PoolRefused, PoolUnreachable
from flexai.apps.cli import exits
from flexai.apps.cli.commands import cards, inspect, jobs, lifecycle, passed_on, queues
from flexai.apps.cli.commands.job_commands import job_command
from flexai.apps.cli.commands.timeline import timeline
from flexai.apps.cli.commands.top import top
from flexai.apps.cli.up.lock import AlreadyUp
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

# What `flexai --help` says of commands whose own first sentence does not fit a line of 80 columns there.
SUMMARIES = {
    "completion": "Print a shell's completion script, to be sourced.",
    "demo": "A morning of jobs, with whole cards and then with slices.",
    "doctor": "Check every part, and say what to do where one fails.",
    "explain": "Say why a job waits, and what would help.",
    "jobs": "List jobs; those that wait say why.",
    "replay": "Decide on a recorded log again, and compare.",
    "run": "Wait for a slice, then run a command in it as your child.",
    "timeline": "Record who has each card for some seconds.",
    "wait": "Wait until jobs have ended, for their exit code.",
}
HELP = "Pools the GPUs and NPUs of a machine, cuts each card into exact slices, and schedules AI work on them."


def _print_versions(asked: bool) -> None:
    if asked:
        print(f"flexai {__version__}, native part {version('flexai-native')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the versions of both parts.", is_eager=True, callback=_print_versions),
    ] = False,
) -> None:
    """What `flexai` itself takes, before a command."""


def command_tree() -> Any:
    """All commands as typer's parser sees them; the reference and the completion are made from it."""
    app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
    app.callback(help=HELP)(_root)
    for kind in ("run", "submit"):
        app.command(kind, context_settings={"allow_interspersed_args": False})(job_command(kind))
    for part in (lifecycle, jobs, inspect, cards):
        for function in part.COMMANDS:
            app.command()(function)
    app.command("top")(top)
    app.command("timeline")(timeline)
    for name in passed_on.APPS:
        app.command(name, context_settings=passed_on.SETTINGS)(passed_on.passed_on(name))
    app.add_typer(queues.app, name="queue")
    tree: Any = typer.main.get_command(app)
    for name, summary in SUMMARIES.items():
        tree.commands[name].short_help = summary
    tree.commands["completion"] = tree.commands.pop("completion")  # last: nobody looks for it first
    return tree


def invoke(words: Sequence[str]) -> int:
    """Run one command; every error becomes one line on standard error and an exit code."""
    if "_FLEXAI_COMPLETE" in os.environ:
        import typer.completion as scripts  # noqa: PLC0415  only when a shell asks what could follow

        vars(scripts)["completion_init"]()
    try:
        result = command_tree().main(list(words), prog_name="flexai", standalone_mode=False)
    except typer.TyperException as error:
        return _misused(words, error)
    except typer.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `flexai jobs | head`: the reader left
        return exits.OK
    except AlreadyUp as error:
        return _failed(words, exits.ALREADY_UP, "AlreadyUp", str(error))
    except BadInput as error:
        return _failed(words, exits.BAD_INPUT, "BadInput", str(error))
    except PoolUnreachable as error:
        return _failed(words, exits.NO_POOL, "NoPool", str(error))
    except PoolRefused as error:
        return _failed(words, _refused(words, error), error.code, str(error))
    return result if isinstance(result, int) else exits.OK


def _misused(words: Sequence[str], error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(context.get_help() if context else "")
        return exits.BAD_INPUT
    told = error.format_message().rstrip(".")
    hint = f"`{context.command_path} --help` lists what there is" if context else ""
    if words[0].startswith("-"):
        hint = f"Options go after the command, as: flexai status {words[0]} ..."
    return _failed(words, exits.BAD_INPUT, "BadInput", f"{told}{'' if told.endswith('?') else '.'} {hint}".rstrip())


def _refused(words: Sequence[str], error: PoolRefused) -> int:
    if error.status == HTTPStatus.BAD_REQUEST:
        return exits.BAD_INPUT
    return exits.NOT_STARTED if words[0] == "wait" else exits.REFUSED


def _failed(words: Sequence[str], exit_code: int, code: str, message: str) -> int:
    if "--json" in words:
        print(json.dumps({"error": {"code": code, "message": message, "exit_code": exit_code}}), file=sys.stderr)
    else:
        print(f"flexai: {message}", file=sys.stderr)
    return exit_code
