"""A pool for the demo alone: started by ``flexai up`` in folders of its own, and taken down after it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.adapters.pool_client import PoolClient

if TYPE_CHECKING:
    from collections.abc import Iterator

_UP_S, _DOWN_S = 90, 90


class NotStarted(RuntimeError):
    """The pool did not come up; the message is what ``flexai up`` said."""


@contextmanager
def own_pool(simulate: str = "") -> Iterator[tuple[PoolClient, list[str]]]:
    """Yields a client, and the lines that ``flexai up`` printed.

    Raises:
        NotStarted: see there.
    """
    folder = Path(tempfile.mkdtemp(prefix="fxd"))
    environment = {**os.environ, "FLEXAI_RUN_DIR": str(folder / "r"), "FLEXAI_STATE_DIR": str(folder / "s")}
    flexai = [sys.executable, "-m", "flexai.apps.cli"]
    chosen = ["--simulate", simulate] if simulate else []
    try:
        said = subprocess.run(
            [*flexai, "up", "--detach", *chosen], env=environment, capture_output=True, text=True, timeout=_UP_S,
            check=False,
        )  # fmt: skip
        if said.returncode != 0:
            raise NotStarted((said.stdout + said.stderr).strip())
        yield PoolClient(folder / "r"), said.stdout.splitlines()
    finally:
        subprocess.run(
            [*flexai, "down", "--jobs", "cancel"], env=environment, capture_output=True, timeout=_DOWN_S, check=False
        )
        shutil.rmtree(folder, ignore_errors=True)
