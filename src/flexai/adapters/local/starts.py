"""Starts of members: the job's directory with token and exit record, and the supervisor that is forked into it."""

import asyncio
import json
import os
from pathlib import Path

import flexai_native

from flexai.adapters.local import processes
from flexai.adapters.local.files import create_file
from flexai.node import Ended, LaunchSpec, Tenant
from flexai.ports import Place
from flexai.wire.errors import BadInput

_ANSWER_WITHIN_S = 10.0
_FORBIDDEN = b"0 0\n"
_MAX_RECORD_BYTES = 65536
_GRACE_MS = 10_000

Began = tuple[int, int]
"""(pid, start_ticks) of the supervisor that holds the token."""


class Starts:
    """Tokens, exit records and supervisors under ``<state>/jobs/<job_id>/<member>``."""

    def __init__(self, jobs_dir: Path) -> None:
        self._jobs_dir = jobs_dir
        self._program = str(flexai_native.program("flexai-supervisor"))

    def directory(self, tenant: Tenant) -> Path:
        """Where this member's files are."""
        return self._jobs_dir / tenant.job_id / str(tenant.member)

    def _token(self, tenant: Tenant) -> Path:
        return self.directory(tenant) / f"{tenant.token}.token"

    def _record(self, tenant: Tenant) -> Path:
        return self.directory(tenant) / f"{tenant.token}.exit.json"

    def began(self, tenant: Tenant) -> Began | None:
        """Who holds the token; None when nobody does (or it was forbidden)."""
        try:
            pid, ticks = self._token(tenant).read_bytes().split()
        except (OSError, ValueError):
            return None
        return (int(pid), int(ticks)) if int(pid) else None

    def forbid(self, tenant: Tenant) -> None:
        """Take the token, if it is free, so that nobody can start with it any more."""
        directory = self.directory(tenant)
        directory.mkdir(parents=True, exist_ok=True)
        create_file(self._token(tenant), _FORBIDDEN)

    def is_running(self, tenant: Tenant) -> bool:
        """Whether the supervisor that holds the token lives."""
        began = self.began(tenant)
        return began is not None and processes.is_alive(*began)

    def ended(self, tenant: Tenant) -> Ended | None:
        """What the exit record says; None when there is none.

        A record that cannot be understood is an end whose code is not known.
        """
        try:
            with self._record(tenant).open("rb") as file:
                data = file.read(_MAX_RECORD_BYTES)
        except OSError:
            return None
        try:
            plain = json.loads(data)
            code = plain["exit_code"]
            return Ended(
                tenant.key, None if code is None else int(code) & 0xFF, int(plain["signal"]) & 0xFF,
                str(plain["cause"])[:500],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            return Ended(tenant.key, None, 0, "lost: its exit record cannot be read")

    async def start(self, tenant: Tenant, launch: LaunchSpec, place: Place, supervisors: Place) -> str:
        """Fork a supervisor and hear what it says: ``began``, ``used``, or ``failed`` and why.

        Raises:
            BadInput: the launch cannot be written down.
            OSError: no process can be made.
        """
        directory = self.directory(tenant)
        directory.mkdir(parents=True, exist_ok=True)
        environment = directory / "env"
        _write_environment(environment, launch.env)
        argv = [
            self._program, "--token-file", str(self._token(tenant)), "--exit-file", str(self._record(tenant)),
            "--log-file", launch.log_path, "--cwd", launch.cwd, "--env-file", str(environment),
            "--time-limit-ms", str(launch.time_limit_ms), "--grace-ms", str(_GRACE_MS),
        ]  # fmt: skip
        if os.geteuid() == 0:
            argv += ["--uid", str(tenant.uid), "--gid", str(tenant.gid)]
        for option, files in (("--join", place.join_files), ("--self-join", supervisors.join_files)):
            for file in files:
                argv += [option, file]
        ours, theirs = os.pipe()
        try:
            pid = _spawn([*argv, "--", *launch.argv], theirs)
        except (OSError, ValueError):
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        answer = await _line(ours)
        if not answer.startswith("began "):
            processes.reap_if_child(pid)
        return answer


def _spawn(argv: list[str], output: int) -> int:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
        return os.posix_spawn(argv[0], argv, {}, file_actions=actions, setsigmask=[], setsigdef=[13])
    finally:
        os.close(null)


async def _line(descriptor: int) -> str:
    """The first line that comes through a pipe; ``failed`` when none comes in time."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4096)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        async with asyncio.timeout(_ANSWER_WITHIN_S):
            line = await reader.readline()
    except (TimeoutError, ValueError):
        line = b""
    finally:
        transport.close()
    return line.decode("utf-8", "replace").strip() or "failed the supervisor ended without a word"


def _write_environment(path: Path, env: dict[str, str]) -> None:
    entries = []
    for name, value in env.items():
        if "\0" in name or "\0" in value or "=" in name or not name:
            raise BadInput(f"env {name[:40]!r}", value[:40], "cannot be a variable", "Leave out NUL and = in names")
        entries.append(f"{name}={value}".encode("utf-8", "surrogateescape") + b"\0")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"".join(entries))
