"""What each kind of call takes of the card, by its total: facts of the driver, on which charges rest (native/shim)."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import groupby
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import Case, Row
from flexai.apps.bench.slicing.stand import stand

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flexai.apps.bench.frame import Run

_MIB = 1 << 20


def steps(run: Run) -> Iterator[Row]:
    """One row for each group of calls."""
    with stand() as on:
        words = [sys.executable, "-m", "flexai.apps.bench.slicing.alloc_steps"]
        done = subprocess.run(words, env=on.outside(), capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"the program that allocates ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    told = json.loads(done.stdout)
    run.say(f"  {len(told)} calls")
    for group, of_it in groupby(told, lambda one: str(one["group"])):
        calls = list(of_it)
        most = max((one["total"] - max(one["asked"], one["reserved"])) / _MIB for one in calls)
        note = "; ".join(map(_words, calls))
        yield Row("a call takes beyond what it asks for", group, None, most, "MiB", note, data={"calls": calls})


def _words(one: Mapping[str, Any]) -> str:
    """MiB by the card's total, and where they differ by the process's listing and the pool's reserve."""
    asked = f" {one['asked'] / _MIB:.6g}" if one["asked"] else ""
    grown = [f"{one['total'] / _MIB:+.6g}"]
    grown += [
        f"{word} {one[word] / _MIB:+.6g}" for word in ("listed", "reserved") if one[word] not in (0, one["total"])
    ]
    return f"{one['what']}{asked}: {', '.join(grown)}"


CASES = (Case("memory-steps", "what each kind of call takes of the card", steps, 12, 12),)
