"""Starting and stopping a pool of one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_UP_S, _DOWN_S = 90, 90


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


@contextmanager
def own_pool(simulate: str = "", extra: Mapping[str, str] | None = None) -> Iterator[OwnPool]:
    """Start a pool on the machine's cards, or on simulated ones, and end it with all its jobs afterwards.

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
    flexai = [sys.executable, "-m", "flexai.apps.cli"]
    chosen = ["--simulate", simulate] if simulate else []
    try:
        said = subprocess.run(
            [*flexai, "up", "--detach", *chosen], env=environment, capture_output=True, text=True, timeout=_UP_S,
            check=False,
        )  # fmt: skip
        if said.returncode != 0:
            raise NotStarted((said.stdout + said.stderr).strip())
        yield OwnPool(run_dir, state_dir, tuple(said.stdout.splitlines()), environment)
    finally:
        subprocess.run(
            [*flexai, "down", "--jobs", "cancel"], env=environment, capture_output=True, timeout=_DOWN_S, check=False
        )
        shutil.rmtree(folder, ignore_errors=True)
