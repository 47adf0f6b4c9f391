"""``flexai up`` and ``flexai down``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from flexai_native import program

from flexai.adapters.pool_client import PoolClient, PoolRefused, PoolUnreachable
from flexai.adapters.settings import Settings
from flexai.apps.cli import exits
from flexai.apps.cli.up.going_on import jobs_that_go_on
from flexai.apps.cli.up.keeper import CANNOT_START, ENDED_WELL, Keeper, start_ticks, stop_process
from flexai.apps.cli.up.lock import lock_holder, take_lock, write_holder
from flexai.apps.cli.up.machine import accelerators, usable_nvidia_cards
from flexai.apps.cli.up.plan import DEFAULT_CARDS, check_cards, check_socket_path, processes
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from flexai.apps.cli.up.plan import Process

LINE_WHEN_SIMULATED = "simulated cards: {cards} (no accelerator is used; compute and memory are modelled, not real)"
_POLL_S = 0.02
_DOWN_GRACE_S = 60.0


def up(settings: Settings, *, detach: bool, say: Callable[[str], None]) -> int:
    """Start the pool and keep it alive; with ``detach`` return once it is ready.

    Raises:
        BadInput: the cards, the folders or another pool stand in the way.
    """
    check_socket_path(settings.run_dir)
    cards = _cards(settings, say)
    try:
        program("flexai-arbiter")
    except FileNotFoundError as error:
        raise BadInput("native part", str(error), "is not built", "Run `make install`") from None
    for folder, flag in ((settings.state_dir, "--state-dir"), (settings.run_dir, "--run-dir")):
        _make_folder(folder, flag)
    lock = take_lock(settings.state_dir, settings.run_dir)
    if not detach:
        return _keep(settings, cards, say, ready=lambda: None)
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork() == 0:
        os.close(read)
        _daemonize(settings.state_dir)
        write_holder(lock, settings.run_dir)
        code = exits.NOT_READY
        try:
            waiting = _Waiting(write)
            code = _keep(settings, cards, waiting.tell, waiting.release)
        finally:
            os._exit(code)
    os.close(write)
    return _follow_start(read, settings, say)


def down(settings: Settings, jobs: str, say: Callable[[str], None]) -> int:
    """Stop the pool; ``jobs`` is ``keep`` or ``cancel``. Returns an exit code."""
    holder = lock_holder(settings.state_dir)
    if holder is None:
        say(f"no pool runs on {settings.state_dir}")
        return exits.NO_POOL
    ticks, going_on = start_ticks(holder), jobs_that_go_on(settings) if jobs == "keep" else []
    if not (jobs == "cancel" and _cancel_and_leave(settings, say)):
        try:
            os.kill(holder, signal.SIGTERM)
        except PermissionError:
            raise BadInput("pool", holder, "belongs to another user", "Ask its owner, or use sudo") from None
        except ProcessLookupError:
            pass  # it ended by itself meanwhile
    until = time.monotonic() + _DOWN_GRACE_S
    while ticks is not None and start_ticks(holder) == ticks:
        if time.monotonic() > until:
            say(f"pid {holder} did not end within {_DOWN_GRACE_S:g} s; it is killed")
            stop_process(holder, 1.0)
            break
        time.sleep(_POLL_S)
    say("the pool is down" + (f"; jobs that go on: {', '.join(going_on[:10])}" if going_on else ""))
    return exits.OK


def _cancel_and_leave(settings: Settings, say: Callable[[str], None]) -> bool:
    """Tell the pool to end all jobs and then itself, at which its ``up`` ends too; False if it does not answer."""
    try:
        answer = PoolClient(settings.run_dir, timeout_s=5.0).post("/v1/shutdown", {"jobs": "cancel"})
    except (PoolUnreachable, PoolRefused) as error:
        say(f"jobs could not be cancelled: {error}")
        return False
    say(f"jobs cancelled: {answer['n_cancelled']}")
    return True


def _cards(settings: Settings, say: Callable[[str], None]) -> str:
    """Cards to simulate; empty for the machine's own."""
    if settings.simulate:
        say(LINE_WHEN_SIMULATED.format(cards=check_cards(settings.simulate)))
        return settings.simulate
    found = accelerators()
    if "nvidia" in found:
        say(f"NVIDIA cards: {usable_nvidia_cards()}")
        return ""
    if found:
        vendor, count = next(iter(found.items()))
        raise BadInput(f"{vendor} card", count, "has no backend yet", "Ask for simulated cards with --simulate h200:2")
    say("no accelerator found; " + LINE_WHEN_SIMULATED.format(cards=DEFAULT_CARDS))
    return DEFAULT_CARDS


def _keep(settings: Settings, cards: str, say: Callable[[str], None], ready: Callable[[], None]) -> int:
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda came, _: asked.append(came))
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    parts = processes(
        settings.run_dir, settings.state_dir, cards, sys.executable, program, settings.backend,
        settings.over_cap, settings.hostile_acts, _deciding(settings),
    )  # fmt: skip
    keeper = Keeper(parts, settings.state_dir, say, wake=wake_read)
    adopted = keeper.adopt()
    if adopted:
        say(f"taken over from an earlier `up`: {', '.join(adopted)}")
    for part in parts:
        keeper.start(part)
        if not _await_ready(keeper, part, settings, asked, say):
            keeper.stop(leave_holders=bool(adopted))
            return exits.INTERRUPTED if asked else exits.NOT_READY
    for note in _notes(settings):
        say(f"note: {note}")
    say(f"ready: {settings.run_dir / 'pool.sock'}  (`flexai status`, `flexai down`; logs in {settings.state_dir}/logs)")
    ready()
    while not asked:
        if keeper.wait(timeout_s=3600.0).get("pool") == ENDED_WELL:
            break  # it was told to shut down
    _stop(keeper, settings, say)
    return exits.OK


def _deciding(settings: Settings) -> tuple[str, ...]:
    """Options of the pool: what differs from what it does by itself."""
    usual = Settings(settings.run_dir, settings.state_dir)
    names = (
        "grace_ms", "reclaim", "consolidate_moves", "move_cost_ms", "park", "park_least_ms", "filters", "keep_days",
    )  # fmt: skip
    changed = [name for name in names if getattr(settings, name) != getattr(usual, name)]
    return tuple(word for name in changed for word in (f"--{name.replace('_', '-')}", str(getattr(settings, name))))


def _notes(settings: Settings) -> list[str]:
    """What the agent says about this machine: what is not possible without privileges, which backend a card fell to."""
    try:
        return [str(note) for note in PoolClient(settings.run_dir, timeout_s=2.0).get("/v1/status")["agent"]["notes"]]
    except (PoolUnreachable, PoolRefused):
        return []


def _stop(keeper: Keeper, settings: Settings, say: Callable[[str], None]) -> None:
    """Stop what can be stopped; what holds jobs that go on stays and is taken over by the next ``up``."""
    going_on = jobs_that_go_on(settings)
    if going_on:
        say(f"running jobs go on and stay held; `flexai up` finds them again ({', '.join(going_on[:10])})")
    keeper.stop(leave_holders=bool(going_on))


def _await_ready(
    keeper: Keeper, part: Process, settings: Settings, asked: list[int], say: Callable[[str], None]
) -> bool:
    """Wait until the process answers; it may die and be started again meanwhile."""
    began = time.monotonic()
    until = began + settings.ready_timeout_s
    n_ends = 0
    while not asked:
        if keeper.alive(part.name) and _answers(part, settings):
            say(f"{part.name:9}ready after {time.monotonic() - began:.1f} s")
            keeper.ready(part.name)
            return True
        how = keeper.wait(_POLL_S).get(part.name)
        n_ends += how is not None
        if how == CANNOT_START:
            what = "cannot start"
        elif n_ends >= 3:
            what = "ended three times"
        elif time.monotonic() > until:
            what = f"did not answer within {settings.ready_timeout_s} s"
        else:
            continue
        say(f"{part.name} {what}. The end of {settings.state_dir / 'logs' / f'{part.name}.log'}:")
        for line in keeper.last_words(part.name):
            say(f"  {line}")
        return False
    return False


def _answers(part: Process, settings: Settings) -> bool:
    if part.socket is None:
        return True
    if part.name == "pool":
        try:
            status = PoolClient(settings.run_dir, timeout_s=2.0).get("/v1/status")
        except (PoolUnreachable, PoolRefused):
            return False
        return bool(status["agent"]["connected"])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(part.socket))
        except OSError as error:
            return "Protocol wrong type" in str(error)  # a datagram or seqpacket socket is bound and open
    return True


def _make_folder(folder: Path, flag: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        remedy = "Give a folder that you may write, or run as root"
        raise BadInput(flag, str(folder), f"cannot be written ({error.strerror})", remedy) from None


def _daemonize(state_dir: Path) -> None:
    os.setsid()
    logs = state_dir / "logs"
    logs.mkdir(exist_ok=True)
    log = os.open(logs / "up.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(log)
    os.close(null)


class _Waiting:
    """The ``up`` in the terminal, which is told every line until the pool is ready."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def tell(self, line: str) -> None:
        """A line to the log, and to whoever waits."""
        print(time.strftime("%H:%M:%S"), line, flush=True)
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, line.encode() + b"\n")

    def release(self) -> None:
        """Ready: who waits may return."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"\0")
            os.close(self._pipe)
            self._pipe = None


def _follow_start(read: int, settings: Settings, say: Callable[[str], None]) -> int:
    with os.fdopen(read, "rb") as news:
        for line in news:
            if line.startswith(b"\0"):
                return exits.OK
            say(line.decode().rstrip("\n"))
    say(f"the pool did not start; see {settings.state_dir}/logs/up.log")
    return exits.NOT_READY
