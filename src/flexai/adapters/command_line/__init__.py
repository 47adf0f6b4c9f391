"""A function as a command of its own, whose errors read as those of all others.

Lives here: typer's words for misuse, made one line. May never: know any command.
"""

from flexai.adapters.command_line.run import run_command

__all__ = ["run_command"]
