"""Commands that are apps of their own: started in our place with the words as they are, so that apps stay apart."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

APPS = {
    "bench": ("flexai.apps.bench", "Measure the figures that FlexAI promises, on this machine."),
    "demo": ("flexai.apps.demo", "A mixed morning of jobs, with whole cards and then with slices, and the difference."),
    "record": ("flexai.apps.simulator.record", "Write a pool's event log to a file that `flexai replay` reads."),
    "replay": ("flexai.apps.simulator.replay", "Decide on a recorded log again, and compare with what was decided."),
    "simulate": ("flexai.apps.simulator", "Play a trace through the production scheduler in virtual time."),
}
# A command that takes everything, `--help` included, as words.
SETTINGS: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def passed_on(name: str) -> Callable[..., None]:
    """The function that typer makes the command of."""
    module, about = APPS[name]

    def call(
        words: Annotated[list[str] | None, typer.Argument(metavar="[ARGS]...", show_default=False)] = None,
    ) -> None:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", module, *(words or [])])  # noqa: S606  an argument vector

    call.__name__, call.__doc__ = name, f"{about} `flexai {name} --help` lists its options."
    return call
