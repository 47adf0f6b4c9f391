"""How long a newcomer waits: a clone of this checkout with a home of its own, its demo, its tests."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row, at_most

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run

_CHECKOUT = Path(__file__).parents[5]
_LIMIT_S = 1800
_PYTHON = Path(sys.base_prefix) / "bin" / "python3"  # not of this environment, and found whatever HOME is
# (name, conditions, target, seconds allowed), in this order in one clone
_STEPS = (
    ("make demo", "fresh clone to the end", "demo", 300.0),
    ("make demo", "once installed", "demo", 90.0),
    ("make test", "cold: no caches", "test", 480.0),
    ("make test", "warm", "test", 300.0),
)


def newcomer(run: Run) -> Iterator[Row]:
    """Each step in a fresh clone; a step that fails has no time, and what it said is in the note."""
    why_not = "takes about ten minutes: not with --quick" if run.quick else ""
    if not (_CHECKOUT / ".git").exists():
        why_not = "needs a checkout: this is an installed package"
    clone, home = run.folder / "clone", run.folder / "home"
    if not why_not:
        home.mkdir()
        subprocess.run(["git", "clone", "--quiet", str(_CHECKOUT), str(clone)], check=True, timeout=120)
    for name, conditions, target, allowed_s in _STEPS:
        took_s, note = (math.nan, why_not) if why_not else _make(clone, home, target)
        goal = None if why_not else at_most(allowed_s)
        yield Row(name, f"{conditions}, {os.cpu_count()} CPUs", goal, took_s, "s", note)


def _make(clone: Path, home: Path, target: str) -> tuple[float, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEXAI_", "VIRTUAL_ENV"))}
    began_s = time.monotonic()
    try:
        done = subprocess.run(
            ["make", target, f"PYTHON={_PYTHON}"], cwd=clone, env=kept | {"HOME": str(home)},
            capture_output=True, text=True, timeout=_LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return math.nan, f"did not end within {_LIMIT_S} s"
    took_s = time.monotonic() - began_s
    lines = (done.stdout + done.stderr).strip().splitlines() or [""]
    return (took_s, lines[-1]) if done.returncode == 0 else (math.nan, f"failed: {' / '.join(lines[-3:])}")


CASES = (Case("make", "make demo and make test, from a fresh clone and again", newcomer, 900, 1),)
"""Last of the suite: it takes longer than all others together."""
