"""One function, its options read from the words given."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_INPUT, INTERRUPTED = 2, 130


def run_command(function: Callable[..., int | None], name: str) -> int:
    """Run it as ``name`` with the words of this process; its exit code, 2 for words that it cannot take."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(function)
    try:
        return typer.main.get_command(app).main(prog_name=name, standalone_mode=False) or 0
    except typer.TyperException as error:
        told = error.format_message().rstrip(".")
        print(f"{name}: {told}. `{name} --help` lists what there is", file=sys.stderr)
        return BAD_INPUT
    except typer.Exit as ending:
        return ending.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
