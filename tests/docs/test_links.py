"""What a page points at is there: other pages, pictures, tests, commands."""

import re
from pathlib import Path

import pytest

from flexai.apps.cli.commands import command_tree

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/README.md")])
KNOWN = set(command_tree().commands)


def text_of(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_points_at_is_there(page):
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)) if "://" not in link]
    missing = [link for link in links if link and not (page.parent / link).exists()]
    named = re.findall(r"(?<![\w/.=])((?:tests|src|native|api|deploy|examples|docs)/[\w./-]*\w)", text_of(page))
    missing += [path for path in named if not (ROOT / path).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_a_page_names_exist(page):
    assert set(re.findall(r"`flexai ([a-z]+)", page.read_text())) - KNOWN == set()


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    pages = [
        page.relative_to(ROOT / "docs")
        for page in ROOT.glob("docs/*/*.md")
        if page.parent.name not in {"adr", "benchmarks"}
    ]
    assert [str(page) for page in pages if f"({page})" not in index] == []
