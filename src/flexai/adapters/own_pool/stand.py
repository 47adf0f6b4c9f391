"""Starting and stopping a pool of one's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class NotStarted(RuntimeError):
    """The pool did not come up; the message is what ``flexai up`` said."""


@dataclass(frozen=True, slots=True)
class OwnPool:
    """A pool that runs.

    Attributes:
        said: lines that ``flexai up`` printed.
        environment: for programs that are to find this pool.
    """

    run_dir: Path
    state_dir: Path
    said: tuple[str, ...]
    environment: Mapping[str, str]


# A process of its own brings the pool up and, when its standard input ends, down: that is when we close it, and when we
# are killed. In a session of its own it is no part of what a terminal interrupts.
_KEEPER = """
trap : TERM INT HUP PIPE
folder=$1 cards=$2
shift 2
"$@" up --detach ${cards:+--simulate "$cards"} 2>&1 </dev/null
echo "$?"
exec >/dev/null 2>&1
cat
"$@" down --jobs cancel
rm -rf "$folder"
"""


@contextmanager
def own_pool(simulate: str = "", extra: Mapping[str, str] | None = None) -> Iterator[OwnPool]:
    """Start a pool on the machine's cards, or on simulated ones, and end it with all its jobs afterwards.

    It ends with this process too, however that ends.

    Args:
        simulate: as ``h200:2``; empty for what the machine has.
        extra: further environment of the pool.

    Raises:
        NotStarted: see there.
    """
    folder = Path(tempfile.mkdtemp(prefix="fxo"))  # short: a Unix socket's path has 107 bytes
    run_dir, state_dir = folder / "r", folder / "s"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FLEXAI_")},
        **(extra or {}), "FLEXAI_RUN_DIR": str(run_dir), "FLEXAI_STATE_DIR": str(state_dir),
    }  # fmt: skip
    words = ["/bin/sh", "-c", _KEEPER, "keeper", str(folder), simulate, sys.executable, "-m", "flexai.apps.cli"]
    keeper = subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        *said, code = _up_to_number(keeper.stdout)
        if code != "0":
            raise NotStarted("\n".join(said))
        yield OwnPool(run_dir, state_dir, tuple(said), environment)
    finally:
        keeper.stdin.close()
        keeper.stdout.close()
        keeper.wait()


def _up_to_number(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.rstrip("\n")
        if re.fullmatch(r"\d+\n", line):
            return
    yield "the process that starts it was killed"
