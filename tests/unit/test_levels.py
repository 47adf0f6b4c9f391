"""The import contracts cover every package that they are about."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITH_IO = {"apps", "testing", "adapters"}


def test_every_package_below_the_adapters_is_held_to_be_pure():
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    held = set(contracts["importlinter:contract:pure-core"]["source_modules"].split())
    packages = {folder.parent.name for folder in (ROOT / "src/flexai").glob("*/__init__.py")}
    assert held == {f"flexai.{name}" for name in packages - WITH_IO}


def test_every_package_says_in_its_docstring_what_lives_there():
    for charter in (ROOT / "src/flexai").glob("*/__init__.py"):
        assert charter.read_text().startswith('"""'), charter
