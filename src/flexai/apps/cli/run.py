"""``flexai run``: wait for a grant, then be the parent of the command as a shell would be.

The command is a child of this process, in its process group, so that terminal, Ctrl-C, Ctrl-Z and window changes
reach it without our help. It waits on a pipe until the agent has put it into its cgroup; where there
is none, it stays above the command (``child.py``). The path from start to ``exec`` imports the standard library only;
tests/unit/test_cli_fast_path.py holds that.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from flexai.adapters.pool_client import PoolClient, PoolRefused, PoolUnreachable
from flexai.adapters.settings import load_settings
from flexai.apps.cli import exits
from flexai.apps.cli.child import Child
from flexai.apps.cli.job_options import check_command, find_program, job_body, parse_words
from flexai.wire.errors import BadInput

RECONNECT_FOR_S = 300.0
FINISH_FOR_S = 10.0
_PAUSE_S = 0.25
_PROGRESS_ROWS = 4
_WAITING = frozenset({"queued", "held", "starting"})
T = TypeVar("T")


def run(words: Sequence[str]) -> int:
    """Run one command in a slice; the exit code is the command's."""
    try:
        given, command = parse_words("run", words)
        settings = load_settings({"run_dir": given.get("run_dir")})
        body = job_body("run", given, command, settings)
    except BadInput as error:
        return _failed(error)
    program = find_program(command[0], os.environ)
    if program is None:
        print(f"flexai run: {command[0]}: no such command. Give a program on PATH, or its path", file=sys.stderr)
        return exits.NO_COMMAND
    if not os.access(program, os.X_OK) or os.path.isdir(program):  # noqa: PTH112  as the kernel will judge
        remedy = "Name the program in it" if os.path.isdir(program) else "Name its interpreter before it, or chmod +x"  # noqa: PTH112
        print(f"flexai run: {program}: cannot be executed. {remedy}", file=sys.stderr)
        return exits.CANNOT_EXECUTE
    try:
        check_command([os.path.realpath(program)], "flexai run")
    except BadInput as error:
        return _failed(error)
    pool = PoolClient(settings.run_dir)
    progress = _Progress(silent=bool(given.get("quiet") or given.get("json")))
    try:
        job_id = str(pool.post("/v1/jobs", body)["ids"][0])
    except (PoolUnreachable, PoolRefused) as error:
        return _failed(error)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        grant = _wait_for_grant(pool, job_id, progress)
        child = Child(program, command, {**os.environ, **grant.get("env", {})})
        try:
            _attach(pool, job_id, child.pid, progress)
        except BaseException:
            child.abandon()
            raise
    except KeyboardInterrupt:
        progress.clear()
        _quietly(lambda: pool.post(f"/v1/jobs/{job_id}/cancel"))
        print(f"flexai run: job {job_id} cancelled", file=sys.stderr)
        return exits.INTERRUPTED
    except (PoolUnreachable, PoolRefused, OSError) as error:
        progress.clear()
        _quietly(lambda: pool.post(f"/v1/jobs/{job_id}/cancel"))
        return _failed(error)
    progress.clear()
    exit_code, error_number = child.follow(stays=not grant.get("cgroup"))
    finish = {"exit_code": exit_code}
    _quietly(lambda: _reconnecting(lambda: pool.post(f"/v1/jobs/{job_id}/finish", finish), progress, FINISH_FOR_S))
    if given.get("json"):
        print(f'{{"id": "{job_id}", "exit_code": {exit_code}}}', file=sys.stderr)
    if error_number:
        print(f"flexai run: {program}: {os.strerror(error_number)}", file=sys.stderr)
    elif exit_code > 128 and child.signal:
        if child.signal in {signal.SIGTERM, signal.SIGKILL} and (why := _why_ended(pool, job_id)):
            print(f"flexai run: job {job_id} was ended: {why}", file=sys.stderr)
        _die_by(child.signal)
    return exit_code


class _Progress:
    """One line on standard error that says what is waited for; rewritten in place on a terminal, where it may wrap."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._terminal = sys.stderr.isatty()
        self._shown = ""
        self._rows = 0

    def show(self, text: str) -> None:
        if self._silent or text == self._shown:
            return
        self.clear()
        self._shown = text
        if self._terminal:
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            text = text[: _PROGRESS_ROWS * width - 1]
            self._rows = (len(text) + width - 1) // width
            sys.stderr.write(text)
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def clear(self) -> None:
        if self._terminal and self._shown:
            up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
            sys.stderr.write(f"\r{up}\x1b[J")
            sys.stderr.flush()
        self._shown = ""


def _wait_for_grant(pool: PoolClient, job_id: str, progress: _Progress) -> dict[str, Any]:
    """Read the stream until the job is granted; a stream that breaks off is opened again."""
    import json  # noqa: PLC0415  loaded by the client already; named here for what it is

    def read_stream() -> dict[str, Any]:
        for line in pool.lines(f"/v1/jobs/{job_id}/grant"):
            if not line:
                continue
            news = json.loads(line)
            state = news.get("state")
            if state == "granted":
                return dict(news)
            if state not in _WAITING:
                why = news.get("cause") or "it was ended before it started"
                raise PoolRefused(409, {"code": "Ended", "message": f"job {job_id} is {state}: {why}"})
            why = (news.get("reason") or {}).get("message") or ("" if state == "starting" else state)
            if why:
                progress.show(f"flexai: job {job_id} waits: {why}")
        raise PoolUnreachable(pool.path, "the pool ended the stream")

    return _reconnecting(read_stream, progress)


def _attach(pool: PoolClient, job_id: str, pid: int, progress: _Progress) -> None:
    """Have the child put into its cgroup; an answer lost with a dying pool is looked up."""
    attempts = 0

    def attach() -> None:
        nonlocal attempts
        attempts += 1
        try:
            pool.post(f"/v1/jobs/{job_id}/attach", {"pid": pid})
        except PoolRefused:
            if attempts == 1 or pool.get(f"/v1/jobs/{job_id}")["state"] != "running":
                raise

    _reconnecting(attach, progress)


def _reconnecting(action: Callable[[], T], progress: _Progress, patience_s: float = RECONNECT_FOR_S) -> T:
    """Do it again while the pool is away: it may be restarting, and what was acknowledged is kept."""
    away_since: float | None = None
    while True:
        try:
            return action()
        except PoolUnreachable as error:
            now = time.monotonic()
            if "ended the stream" not in error.problem and away_since is None:
                away_since = now
            if away_since is not None and now - away_since > patience_s:
                raise
            progress.show("flexai: the pool is away; waiting for it to come back")
            time.sleep(_PAUSE_S)


def _interrupt(number: int, frame: object) -> NoReturn:
    """While it waits, being told to end takes the job back as Ctrl-C does."""
    del number, frame
    raise KeyboardInterrupt


def _quietly(action: Callable[[], object]) -> None:
    """For news that the pool also learns from the agent."""
    try:
        action()
    except (PoolUnreachable, PoolRefused, KeyboardInterrupt):
        return


def _why_ended(pool: PoolClient, job_id: str) -> str:
    """Why the pool ended the command, as its time limit; empty when somebody else did."""
    try:
        job = pool.get(f"/v1/jobs/{job_id}/wait", timeout_s=3.0, timeout_ms=1000)
    except (PoolUnreachable, PoolRefused, KeyboardInterrupt):
        return ""
    cause = str(job.get("cause") or "")
    return "" if cause == "exited" or cause.startswith("signal ") else cause


def _failed(error: Exception) -> int:
    print(f"flexai run: {error}", file=sys.stderr)
    return exits.NOT_STARTED


def _die_by(number: int) -> NoReturn:
    """End as the command did, so that a shell script stops at Ctrl-C as it would without us."""
    import resource  # noqa: PLC0415  rare

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    sys.stdout.flush()
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    os._exit(128 + number)
