"""The reference of commands and exit codes is what the commands are."""

from pathlib import Path

import pytest

from flexai.apps.cli.commands import command_tree
from flexai.apps.cli.commands.passed_on import APPS
from flexai.apps.cli.job_options import options_of
from flexai.apps.cli.reference import pages

REFERENCE = Path(__file__).parents[2] / "docs/reference"
MADE = pages()


@pytest.mark.parametrize("name", sorted(MADE))
def test_the_page_is_the_one_the_commands_make(name):
    remedy = "run: python -m flexai.apps.cli.reference docs/reference"
    assert (REFERENCE / name).read_text() == MADE[name], remedy


def every_command(group):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", one) for inner, one in every_command(command))
        elif name not in APPS:
            yield name, command


@pytest.mark.parametrize("name", APPS)
def test_an_app_behind_a_command_writes_json(name):
    assert "--json" in (REFERENCE / "cli.md").read_text().partition(f"## flexai {name}\n")[2].partition("\n## ")[0]


def test_every_flag_of_every_command_is_mentioned():
    text = (REFERENCE / "cli.md").read_text()
    for name, command in every_command(command_tree()):
        section = text.partition(f"\n## flexai {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else []:
                assert f"`{flag}`" in section, (name, flag)


def test_every_command_speaks_json():
    assert [name for name, command in every_command(command_tree())
            if "--json" not in {flag for one in command.params for flag in one.opts}] == []  # fmt: skip


@pytest.mark.parametrize("kind", ["run", "submit"])
def test_help_and_the_fast_path_know_the_same_options(kind):
    shown = {flag for one in command_tree().commands[kind].params for flag in one.opts if flag.startswith("-")}
    assert shown == {name for option in options_of(kind) for name in (option.flag, option.short) if name}
