"""The commands, except ``run``: each asks the pool one thing and shows the answer, as a table or as JSON."""

from flexai.apps.cli.commands.root import command_tree, invoke

__all__ = ["command_tree", "invoke"]
