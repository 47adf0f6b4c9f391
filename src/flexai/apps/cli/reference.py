"""The reference pages made from the commands: ``python -m flexai.apps.cli.reference docs/reference``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexai.apps.cli import exits
from flexai.apps.cli.commands import command_tree
from flexai.apps.cli.commands.passed_on import APPS

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLI_HEAD = """# Commands

Made from the commands themselves (`python -m flexai.apps.cli.reference docs/reference`); a test compares.
Every command takes `--json`; exit codes are in [exit-codes.md](exit-codes.md), settings in [settings.md](settings.md).
`flexai --version` prints the version of both parts. Completion in the shell: `source <(flexai completion bash)`, in
`~/.bashrc` to keep it; likewise for zsh and fish.
"""
_EXITS_HEAD = """# Exit codes

Made from the commands themselves (`python -m flexai.apps.cli.reference docs/reference`); a test compares.
Errors are one line on standard error that names the thing, the value and the remedy; with `--json` they are
`{"error": {"code", "message", "exit_code"}}` there.

`flexai run` ends as its command does: with its exit code, or by the same signal. `flexai wait` ends with the first exit
code of its jobs that is not 0. All else:

| code | meaning |
|---|---|
"""


def pages() -> dict[str, str]:
    """File name to content."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in exits.MEANINGS.items())
    return {"cli.md": _CLI_HEAD + "".join(_commands(command_tree(), "flexai")), "exit-codes.md": _EXITS_HEAD + codes}


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        elif name in APPS:
            yield _app(name)
        else:
            yield _command(command, f"{path} {name}")


def _app(name: str) -> str:
    """An app of its own: its help, as it prints it."""
    module, about = APPS[name]
    environment = {**os.environ, "COLUMNS": "110", "NO_COLOR": "1", "TERM": "dumb"}
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, env=environment, check=True
    )
    lines = "".join(f"    {line}".rstrip() + "\n" for line in told.stdout.strip().splitlines())
    return f"\n## flexai {name}\n\n{about}\n\n{lines}"


def _command(command: Any, path: str) -> str:
    arguments, options = [], []
    for parameter in command.params:
        text = str(getattr(parameter, "help", "") or "")
        if parameter.param_type_name == "argument":
            arguments.append((str(parameter.metavar or parameter.name.upper()), text))
        else:
            flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
            value = "" if parameter.is_flag else f" {parameter.metavar or parameter.name.upper()}"
            default = parameter.default
            shown = f" Default: {default}." if default not in (None, "", False) and not callable(default) else ""
            options.append((f"{flags}{value}", text + shown))
    usage = " ".join([path, "[OPTIONS]", *(name for name, _ in arguments)])
    rows = "".join(f"| {name} | {text} |\n" for name, text in [*arguments, *options])
    return f"\n## {path}\n\n{command.help}\n\n    {usage}\n\n| | |\n|---|---|\n{rows}"


if __name__ == "__main__":
    for file_name, content in pages().items():
        (Path(sys.argv[1]) / file_name).write_text(content)
