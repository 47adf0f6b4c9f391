"""Pictures of the README, from a real run: ``make pictures``.

Starts a pool of two simulated cards, submits a small morning, and photographs what the commands print on a terminal.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from flexai.adapters.own_pool import own_pool

HERE = Path(__file__).parent
FLEXAI = str(Path(sys.executable).with_name("flexai"))
COLUMNS = 128
SETTLE_S = 14
"""Delivered shares are shown over ten seconds."""
FLOOD = ("--", "flexai-workload", "flood", "--seconds", "120")
MORNING = (
    ("queue", "set", "service", "--quota", "50%"),
    ("queue", "set", "research", "--quota", "1"),
    ("submit", "-n", "serve", "-q", "service", "--class", "latency", "-s", "30%", "-m", "20Gi",
     "--", "flexai-workload", "latency", "--kernel-us", "1000", "--period-us", "5000", "--seconds", "120"),
    ("submit", "-n", "train", "-q", "research", "-s", "50%", "-m", "60Gi", *FLOOD),
    ("submit", "-n", "sweep", "-q", "research", "-s", "25%", "-m", "30Gi", "--array", "0-3", *FLOOD),
    ("submit", "-n", "notebook", "-s", "20%", "-m", "10Gi",
     "--", "flexai-workload", "step", "--seconds", "120"),
    ("submit", "-n", "big", "-d", "2", "-s", "100%", *FLOOD),
)  # fmt: skip


def main() -> None:
    """Write the pictures beside this file."""
    with own_pool("h200:2") as stand:
        environment = {
            **os.environ, "FLEXAI_RUN_DIR": str(stand.run_dir), "FLEXAI_STATE_DIR": str(stand.state_dir),
            "PATH": f"{Path(FLEXAI).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        for words in MORNING:
            subprocess.run([FLEXAI, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        time.sleep(SETTLE_S)
        photograph(("top", "--once"), environment, HERE / "top.svg")


def photograph(words: tuple[str, ...], environment: dict[str, str], file: Path) -> None:
    """Run a command on a terminal and keep what it prints as a picture."""
    # `script` gives it a terminal, so that it chooses its columns and colours as it would for a person.
    command = f"stty cols {COLUMNS} rows 60; {FLEXAI} {' '.join(words)}"
    printed = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env={**environment, "TERM": "xterm-256color"}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    console = Console(width=COLUMNS, record=True, file=open(os.devnull, "w"), force_terminal=True, legacy_windows=False)  # noqa: SIM115, PTH123
    console.print(Text.from_ansi(f"$ flexai {' '.join(words)}\n{printed.rstrip()}"), soft_wrap=False)
    theme = TerminalTheme((255, 255, 255), (36, 41, 46), [(0, 0, 0), (178, 29, 29), (34, 120, 60), (150, 100, 0)] * 2)
    drawn = console.export_svg(title="a pool of two simulated cards", theme=theme)
    # The drawing names a font on another server: a page should fetch nothing, any monospaced font will do.
    drawn = re.sub(r"\s*@font-face \{.*?\}", "", drawn, flags=re.DOTALL)
    file.write_text(drawn)


if __name__ == "__main__":
    main()
