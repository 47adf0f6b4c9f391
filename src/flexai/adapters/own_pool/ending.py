"""Being ended from outside."""

from __future__ import annotations

import signal
import sys


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP unwind this process as Ctrl-C does, so that it ends what it began; exit code 128 + n."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda came, _: sys.exit(128 + came))
