"""What a context takes on each card: measured by ``flexai-context``, and kept until the driver is another one."""

from __future__ import annotations

import contextlib
import json
import logging
import subprocess
from typing import TYPE_CHECKING

import flexai_native

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

log = logging.getLogger("flexai.agent.contexts")

_WITHIN_S = 20.0
_RULE = 2
"""What ``flexai-context`` tells: raised when it tells something else of the same card."""


def context_bytes(
    kept: Path, driver: str, uuids: Collection[str], environment: Mapping[str, str] | None
) -> dict[str, int]:
    """Bytes by card; those of which it cannot be told are left out.

    Args:
        kept: file with what was measured before.
        driver: its version.
        uuids: the cards.
        environment: of a program that calls the cards' driver; None for this process's own.
    """
    found = _read(kept, driver)
    if found.keys() >= set(uuids):
        return found
    # In a process of its own: a context takes half a GiB of the card, and the driver library 100 MiB of the host.
    try:
        done = subprocess.run(
            [flexai_native.program("flexai-context")], env=environment, capture_output=True, text=True,
            timeout=_WITHIN_S, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        found |= {str(line["uuid"]): int(line["bytes"]) for line in lines}
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        log.warning("what a context takes is not known, each job's first tells: %s", error)
        return found
    if not found.keys() >= set(uuids):
        log.warning("what a context takes is not known of each card, each job's first tells: %s", done.stderr.strip())
    with contextlib.suppress(OSError):
        beside = kept.with_suffix(".new")
        beside.write_text(json.dumps({"driver": driver, "rule": _RULE, "bytes": found}))
        beside.replace(kept)
    return found


def _read(kept: Path, driver: str) -> dict[str, int]:
    try:
        content = json.loads(kept.read_text())
        if (content["driver"], content["rule"]) == (driver, _RULE):
            return {str(uuid): int(n_bytes) for uuid, n_bytes in content["bytes"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return {}
