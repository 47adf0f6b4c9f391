"""``python -m flexai.apps.pool --run-dir R --state-dir S``: composes and runs the pool."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn
import uvloop

from flexai.apps.pool.app import make_app
from flexai.apps.pool.core import DecisionCore
from flexai.apps.pool.identity import PeerProtocol
from flexai.apps.pool.lock import take_lock
from flexai.apps.pool.service import Settings, open_pool
from flexai.policy.filters import FILTERS
from flexai.scheduling import Scheduler, SchedulerSettings
from flexai.wire.api import check_filters
from flexai.wire.errors import BadInput

log = logging.getLogger("flexai.pool")

_BACKLOG = 1024
_MAX_SOCKET_PATH = 107
_LEAVE_S = 3
_DECIDING = {
    "grace_ms": "between SIGTERM and SIGKILL of a job that says nothing else",
    "reclaim": "what a queue may take back: its quota, or its fair_share",
    "consolidate_moves": "jobs that may be moved at a time to gather free cards",
    "move_cost_ms": "what a move costs a job beside its grace",
    "park": "victims are moved to host memory: if_cheaper, or never",
    "park_least_ms": "a parked job stays in host memory so long at least",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pool until it is told to end; 2 if it cannot start."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        settings = settings_of(argv)
        return uvloop.run(serve(settings, lambda: Scheduler(settings.scheduler)))
    except BadInput as error:
        print(f"flexai pool: {error}", file=sys.stderr)
        return 2


def settings_of(argv: Sequence[str] | None) -> Settings:
    """Settings out of the command line.

    Raises:
        BadInput: a filter that there is not.
    """
    parser = argparse.ArgumentParser(prog="python -m flexai.apps.pool", description="The FlexAI pool process.")
    parser.add_argument("--run-dir", type=Path, required=True, help="directory of sockets")
    parser.add_argument("--state-dir", type=Path, required=True, help="directory of what must survive")
    parser.add_argument("--keep-days", type=float, default=30.0, help="history and ended jobs are kept this long")
    usual = SchedulerSettings()
    for name, meaning in _DECIDING.items():
        flag, value = f"--{name.replace('_', '-')}", getattr(usual, name)
        parser.add_argument(flag, type=type(value), default=value, help=meaning)
    parser.add_argument("--filters", default="", help="names of filters in use, with commas between them")
    given = parser.parse_args(argv)
    filters = tuple(name.strip() for name in given.filters.split(",") if name.strip())
    check_filters(filters, FILTERS)
    scheduler = SchedulerSettings(**{name: getattr(given, name) for name in _DECIDING}, filters=filters)
    return Settings(given.run_dir, given.state_dir, given.keep_days, scheduler)


async def serve(settings: Settings, new_scheduler: Callable[[], DecisionCore]) -> int:
    """Serve the API until a signal or a request ends it.

    Raises:
        BadInput: the directories or the store cannot be used, or another pool has them.
    """
    for path in (settings.run_dir, settings.state_dir):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(str(path), str(error), "cannot be made", "Choose a directory that can be written") from None
    lock = take_lock(settings.state_dir)
    pool = await open_pool(settings, new_scheduler)
    listener = listen(settings.run_dir / "pool.sock")
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(pool), http=PeerProtocol, lifespan="off", access_log=False, log_config=None, ws="none",
            proxy_headers=False,
            timeout_keep_alive=75, timeout_graceful_shutdown=_LEAVE_S, server_header=False, date_header=False,
        )
    )  # fmt: skip
    # What lives as long as the process need not be looked at by each collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pool.quit.set)
    serving = asyncio.create_task(_serve(server, listener))
    quitting = asyncio.create_task(pool.quit.wait())
    await asyncio.wait([serving, quitting], return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    await serving
    await pool.close()
    with contextlib.suppress(OSError):
        (settings.run_dir / "pool.sock").unlink()
    os.close(lock)
    return 0


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    # Not Server.serve(): that would take the signals, which are ours here.
    await server._serve([listener])  # noqa: SLF001


def listen(path: Path) -> socket.socket:
    """The API's socket, open to every user of the machine: who is who, the kernel tells.

    Raises:
        BadInput: the path is too long, or cannot be made.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise BadInput("--run-dir", str(path.parent), "makes a socket path too long", "Choose a shorter directory")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The state's lock is ours, so a socket file found here was left by a pool that is gone.
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise BadInput(str(path), str(error), "cannot be listened on", "Choose another --run-dir") from None
    listener.setblocking(False)
    return listener
