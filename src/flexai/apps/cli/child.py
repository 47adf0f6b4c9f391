"""A child that waits on a pipe until it may become the command, and is followed as a shell follows it."""

import os
import signal
from collections.abc import Mapping, Sequence
from typing import NoReturn

from flexai.apps.cli import exits

_PASSED_ON = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_FROM_KERNEL = 0x80


class Child:
    """The command to be. Once the gate opens, :meth:`follow` reads signals instead of handlers.

    Raises:
        OSError: no more processes or descriptors.
    """

    def __init__(self, program: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        self.signal = 0
        gate_read, self._gate = os.pipe()
        self._verdict, verdict_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            self._become(gate_read, verdict_write, program, argv, environment)
        os.close(gate_read)
        os.close(verdict_write)

    def abandon(self) -> None:
        """End the child before it became anything."""
        os.close(self._gate)
        os.close(self._verdict)
        os.waitpid(self.pid, 0)

    def follow(self) -> tuple[int, int]:
        """Open the gate, pass signals on, wait for the end.

        Returns:
            Exit code as a shell gives it (128 + n for signal n), and the error number if the command could not be
            executed at all, else 0.
        """
        watched = _PASSED_ON | {signal.SIGCHLD}
        signal.pthread_sigmask(signal.SIG_BLOCK, watched)
        os.write(self._gate, b"g")
        os.close(self._gate)
        failure = os.read(self._verdict, 16)
        os.close(self._verdict)
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            came = signal.sigwaitinfo(watched)
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

    def _become(
        self, gate: int, verdict: int, program: str, argv: Sequence[str], environment: Mapping[str, str]
    ) -> NoReturn:
        try:
            if os.read(gate, 1) == b"g":
                for number in (
                    signal.SIGPIPE,
                    signal.SIGXFSZ,
                ):  # Python ignores them; the command must not inherit that
                    signal.signal(number, signal.SIG_DFL)
                os.execve(program, list(argv), dict(environment))  # noqa: S606  an argument vector, no shell
        except OSError as error:
            os.write(verdict, str(error.errno).encode())
        finally:
            os._exit(exits.CANNOT_EXECUTE)
