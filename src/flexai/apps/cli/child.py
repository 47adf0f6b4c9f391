"""A child that waits on a pipe until it may become the command, and is followed as a shell follows it.

Where no cgroup holds what the command starts, the child does not become the command but stays above it, as a subreaper:
what loses its parent is the child's then, so that all of it can be found by its descent. The child stays until the last
of it has ended, also when we are gone; it has none of our files open, and tells us at once how the command ended.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

from flexai.apps.cli import exits

_PASSED_ON = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_WATCHED = _PASSED_ON | {signal.SIGCHLD}
_FROM_KERNEL = 0x80
_PR_SET_CHILD_SUBREAPER = 36
_BECOME, _STAY = b"b", b"s"


class Child:
    """The command to be. Once the gate opens, :meth:`follow` reads signals instead of handlers.

    Raises:
        OSError: no more processes or descriptors.
    """

    def __init__(self, program: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.signal = 0
        gate_read, self._gate = os.pipe()
        self._verdict, verdict_write = os.pipe()
        self._ending, ending_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            self._wait(gate_read, verdict_write, ending_write, lambda: _execute(program, argv, environment))
        for descriptor in (gate_read, verdict_write, ending_write):
            os.close(descriptor)
        os.set_blocking(self._ending, False)

    def abandon(self) -> None:
        """End the child before it became anything."""
        os.close(self._gate)
        os.close(self._verdict)
        os.waitpid(self.pid, 0)

    def follow(self, *, stays: bool) -> tuple[int, int]:
        """Open the gate, pass signals on, wait for the end of the command.

        Args:
            stays: the child stays above the command until nothing is left of what that started.

        Returns:
            Exit code as a shell gives it (128 + n for signal n), and the error number if the command could not be
            executed at all, else 0.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        with suppress(BrokenPipeError):  # it was ended as soon as it was attached
            os.write(self._gate, _STAY if stays else _BECOME)
        os.close(self._gate)
        failure = os.read(self._verdict, 16)
        os.close(self._verdict)
        while (status := self._ended()) is None:
            came = signal.sigwaitinfo(_WATCHED)
            # What the terminal sends, it sends to the whole group: the command has it already.
            if came.si_signo != signal.SIGCHLD and came.si_code != _FROM_KERNEL:
                os.kill(self.pid, came.si_signo)
        if failure:
            number = int(failure)
            missing = number in {2, 20}  # ENOENT (also: its interpreter is missing), ENOTDIR
            return (exits.NO_COMMAND if missing else exits.CANNOT_EXECUTE), number
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
            return 128 + self.signal, 0
        return os.WEXITSTATUS(status), 0

    def _ended(self) -> int | None:
        """Wait status of the command; None while it runs."""
        done, status = os.waitpid(self.pid, os.WNOHANG)
        try:
            told = os.read(self._ending, 16)
        except BlockingIOError:
            told = b""
        if told:
            return int(told)
        return status if done else None

    def _wait(self, gate: int, verdict: int, ending: int, become: Callable[[], NoReturn]) -> NoReturn:
        """The child: until the gate opens, and after."""
        try:
            word = os.read(gate, 1)
            if word == _STAY:
                _stay(ending, become)
            elif word == _BECOME:
                become()
        except OSError as error:
            os.write(verdict, str(error.errno).encode())
        finally:
            os._exit(exits.CANNOT_EXECUTE)


def _execute(program: str, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; the command must not inherit that
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, list(argv), dict(environment))  # noqa: S606  an argument vector, no shell


def _stay(ending: int, become: Callable[[], NoReturn]) -> NoReturn:
    """Start the command below us, and stay until it and all that it left to us has ended."""
    import ctypes  # noqa: PLC0415  takes 5 ms, which the command need not wait for where a cgroup holds it

    caller = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    command = os.fork()
    if command == 0:
        for number in _PASSED_ON:
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        become()
    ending = _keep_only(ending)
    while True:
        try:
            done, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(0)
        if done and done == command:
            command = 0
            with suppress(OSError):
                os.write(ending, str(status).encode())
                os.kill(caller, signal.SIGCHLD)
        elif not done:
            came = signal.sigwaitinfo(_WATCHED)
            # What the group was sent, the command has already.
            if command and came.si_pid == caller and came.si_signo != signal.SIGCHLD:
                os.kill(command, came.si_signo)


def _keep_only(descriptor: int) -> int:
    """Let go of the caller's files and directory, but for one descriptor."""
    kept = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    os.closerange(0, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.chdir("/")
    return kept
