"""A command in a terminal of its own, for tests."""

import fcntl
import os
import pty
import signal
import struct
import termios
import threading
import time


class Terminal:
    """A command in a terminal of its own, as its foreground job."""

    def __init__(self, words, environment):
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # as at a terminal, also where these tests run in the background
            os.execve(words[0], words, environment)  # noqa: S606
        self.screen = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                chunk = os.read(self.handle, 4096)
            except OSError:
                return
            if not chunk:
                return
            self.screen += chunk

    def until(self, text, timeout_s=20):
        until(lambda: text in self.screen, timeout_s, lambda: self.screen)

    def type(self, keys):
        os.write(self.handle, keys)

    def resize(self, rows, columns):
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def wait(self):
        _, status = os.waitpid(self.pid, 0)
        self._reader.join(5)
        os.close(self.handle)
        return os.waitstatus_to_exitcode(status)


def until(condition, timeout_s=20, tell=lambda: None):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, tell()
        time.sleep(0.02)
