"""Tutorials, how-tos, examples and the README are executed as they stand.

A ``console`` block holds commands (``$ ...``) and what they print. All blocks of a page run in one shell, in a fresh
folder with a fresh HOME, run and state directory. A command must succeed unless the line before its block says
``<!-- exits N -->``. Printed lines are compared in order; ``...`` stands for anything, runs of spaces count as one.
A block without output claims only success.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("docs/tutorial/*.md"), *ROOT.glob("docs/how-to/*.md"), *ROOT.glob("examples/*/README.md")]
    if "```console" in page.read_text()
)


def blocks(page):
    """(expected exit code, [(command, [expected lines])]) of each console block."""
    found = re.finditer(r"(?:<!-- exits (\d+) -->\n)?```console\n(.*?)```", page.read_text(), re.DOTALL)
    for match in found:
        commands = []
        for line in match[2].splitlines():
            if line.startswith("$ "):
                commands.append((line[2:], []))
            elif line.startswith("> ") and commands and not commands[-1][1]:
                commands[-1] = (commands[-1][0] + "\n" + line[2:], [])
            elif line.strip():
                commands[-1][1].append(line)
        yield int(match[1] or 0), commands


def matches(expected, printed):
    """Whether every expected line appears, in order; ``...`` within a line matches anything in that line."""
    rest = iter([" ".join(line.split()) for line in printed])
    for line in expected:
        if line.strip() == "...":
            continue
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in " ".join(line.split()).split("...")) + r"\Z")
        if not any(pattern.match(candidate) for candidate in rest):
            return line
    return None


class Shell:
    """One bash for a page; each command's output and exit code are read back by a sentinel."""

    def __init__(self, folder, source):
        short = tempfile.mkdtemp(prefix="fx")  # Unix socket paths are short
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLEXAI_", "XDG_"))}
        environment |= {
            "HOME": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100",
            "FLEXAI_RUN_DIR": f"{short}/run", "FLEXAI_STATE_DIR": f"{short}/state",
            "EXAMPLE": str(source), "NO_COLOR": "1",
        }  # fmt: skip
        self.process = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder,
            env=environment,
        )  # fmt: skip

    def run(self, command):
        mark = "--- flexai page exit"
        self.process.stdin.write(f"{{ {command}\n}} </dev/null\npage_exit=$?; echo; echo '{mark}' $page_exit\n")
        self.process.stdin.flush()
        lines = []
        for line in self.process.stdout:
            if line.startswith(mark):
                return int(line.removeprefix(mark)), lines
            lines.append(line.rstrip("\n"))
        raise AssertionError(f"the shell ended during {command!r}: {lines}")

    def close(self):
        self.process.stdin.write("flexai down --jobs cancel >/dev/null 2>&1 </dev/null\nexit\n")
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_does_what_it_says(page, tmp_path):
    (tmp_path / "flexai").symlink_to(ROOT)  # what a reader has after `git clone`
    folder = tmp_path
    if page.is_relative_to(ROOT / "examples"):  # whose commands are for their folder
        folder = tmp_path / page.parent.name
        shutil.copytree(page.parent, folder)
    shell = Shell(folder, page.parent)
    try:
        for exits, commands in blocks(page):
            for command, expected in commands:
                code, printed = shell.run(command)
                assert code == exits, f"{command}: exit {code}, not {exits}:\n" + "\n".join(printed)
                missing = matches(expected, printed)
                assert missing is None, f"{command}: never printed {missing!r}:\n" + "\n".join(printed)
    finally:
        shell.close()


def test_a_command_that_fails_is_noticed(tmp_path):
    shell = Shell(tmp_path, tmp_path)
    try:
        assert shell.run("echo a; exit_with() { return 3; }; exit_with") == (3, ["a", ""])
    finally:
        shell.close()


def test_every_example_is_a_page_that_is_executed():
    folders = [folder for folder in ROOT.glob("examples/*") if folder.is_dir()]
    assert {folder / "README.md" for folder in folders} <= set(PAGES)
    listed = re.findall(r"^\| \[([^]]+)\]\(\1\) ", (ROOT / "examples/README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(folder.name for folder in folders)


def test_a_page_is_read_as_commands_and_their_output(tmp_path):
    page = tmp_path / "p.md"
    page.write_text(
        "x\n```console\n$ echo a\na\n$ echo b; echo c\n...\nc\n```\n<!-- exits 3 -->\n```console\n$ exit 3\n```\n"
    )
    assert list(blocks(page)) == [(0, [("echo a", ["a"]), ("echo b; echo c", ["...", "c"])]), (3, [("exit 3", [])])]


def test_a_command_s_exit_code_is_its_own(tmp_path):
    shell = Shell(tmp_path, tmp_path)
    try:
        assert [shell.run(command)[0] for command in ("true", "false", "(exit 7)", "true")] == [0, 1, 7, 0]
    finally:
        shell.close()


def test_expected_lines_are_found_in_order_with_gaps():
    assert matches(["a ... z", "b"], ["a   1 2  z", "noise", "b"]) is None
    assert matches(["b", "a"], ["a", "b"]) == "a"
