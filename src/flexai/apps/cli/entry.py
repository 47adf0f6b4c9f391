"""Entry point ``flexai``: ``run`` by a short path, everything else through typer."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"] and not _asks_for_help(words[1:]):
        from flexai.apps.cli.run import run  # noqa: PLC0415  the fast path imports what it needs and no more

        return run(words[1:])
    from flexai.apps.cli.commands import invoke  # noqa: PLC0415  as above

    return invoke(words)


def _asks_for_help(words: Sequence[str]) -> bool:
    before_command = words[: words.index("--")] if "--" in words else words
    return "--help" in before_command
