"""What a pool consists of: pure, from settings to argument vectors."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DEFAULT_CARDS = "h200:2"
MAX_CARDS = 64
MODELS = ("h200", "h100", "a100", "l40s", "t4")  # as native/simcard/model/card_spec.c has them; a test compares
_MAX_SOCKET_PATH = 107
_LONGEST_SOCKET = "simcard.sock"


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the pool.

    Attributes:
        name: names its log, ``<state>/logs/<name>.log``.
        argv: how it is started.
        socket: answers there once it is ready; None when being alive is enough.
        holds_jobs: stays when the pool is stopped and jobs go on.
        may_end: its exit code 0 means that it was told to shut down, and is no reason to start it again.
    """

    name: str
    argv: tuple[str, ...]
    socket: Path | None
    holds_jobs: bool
    may_end: bool = False


def processes(
    run_dir: Path,
    state_dir: Path,
    cards: str,
    python: str,
    program: Callable[[str], Path],
    backend: str = "auto",
    over_cap: str = "warn",
    hostile_acts: int = 20,
    deciding: tuple[str, ...] = (),
) -> tuple[Process, ...]:
    """The processes in the order in which they are started.

    ``cards`` is empty for the machine's own; ``deciding`` are options of the pool's about its scheduler.
    """
    folders = ("--run-dir", str(run_dir))
    both = (*folders, "--state-dir", str(state_dir))
    socket = run_dir / "simcard.sock"
    simulated = ("--simcard", str(socket)) if cards else ()
    arbiter = (str(program("flexai-arbiter")), *folders, *simulated)
    chosen = () if backend == "auto" else ("--backend", backend)
    agent = (python, "-m", "flexai.apps.agent", *both, *simulated, *chosen, "--over-cap", over_cap)
    agent += ("--hostile-acts", str(hostile_acts))
    pool = (python, "-m", "flexai.apps.pool", *both, *deciding)
    parts = [
        Process("arbiter", arbiter, run_dir / "arbiter.sock", holds_jobs=True),
        Process("guardian", (arbiter[0], "--guardian", *arbiter[1:]), None, holds_jobs=True),
        Process("agent", agent, run_dir / "agent.sock", holds_jobs=False),
        Process("pool", pool, run_dir / "pool.sock", holds_jobs=False, may_end=True),
    ]
    if cards:
        argv = (str(program("flexai-simcard")), "--socket", str(socket), "--cards", cards)
        parts.insert(0, Process("simcard", argv, socket, holds_jobs=True))
    return tuple(parts)


def check_cards(text: str, thing: str = "--simulate") -> str:
    """Check ``h200:2`` or ``h200:2,a100:1``.

    Raises:
        BadInput: not such a list, or too many cards.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_-]{0,31}):(\d{1,4})", part)
        if match is None:
            raise BadInput(thing, text, "is not a list of cards", "Write model:count, as h200:2")
        if match[1] not in MODELS:
            raise BadInput(thing, match[1], "is not a card that can be simulated", f"Use one of: {', '.join(MODELS)}")
        counts.append(int(match[2]))
    if min(counts) < 1 or sum(counts) > MAX_CARDS:
        raise BadInput(thing, text, f"is not between 1 and {MAX_CARDS} cards", "Write for example h200:2")
    return text


def check_socket_path(run_dir: Path) -> None:
    """See that the kernel takes the paths of the sockets.

    Raises:
        BadInput: they are too long.
    """
    room = _MAX_SOCKET_PATH - len(os.fsencode(run_dir / _LONGEST_SOCKET))
    if room < 0:
        problem = f"is {-room} bytes too long: the path of a socket has at most {_MAX_SOCKET_PATH}"
        raise BadInput("--run-dir", str(run_dir), problem, "Choose a shorter folder")
