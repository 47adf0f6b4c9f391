"""What the driver takes for a context, by its own books, and how soon after a process's end its memory is free.

These are facts of the card, not of FlexAI: what is charged for a context, and when the charge of a dead process is
taken back, rests on them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flexai.apps.bench.frame import Case, Row
from flexai.apps.bench.slicing.memory import watched
from flexai.apps.bench.slicing.stand import stand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flexai.apps.bench.frame import Run
    from flexai.apps.bench.slicing.stand import Stand

_MIB = 1 << 20
_GIB = 1 << 30
_N_CONTEXTS = 4


class _Child:
    """A process outside of the pool that makes a context when told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.answer()

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()

    def answer(self) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        if not words:
            raise RuntimeError(f"a process with a context ended with exit code {self.process.wait()}")
        return words

    def took_ms(self) -> float:
        began_ns, ended_ns = map(int, self.answer())
        return (ended_ns - began_ns) / 1e6

    @property
    def is_dead(self) -> bool:
        """Whether it has ended; nobody has waited for it, so that it is a zombie then."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat[stat.rindex(")") + 2] == "Z"


@contextmanager
def _child(on: Stand) -> Iterator[_Child]:
    words = [sys.executable, "-m", "flexai.apps.bench.slicing.context_child"]
    with subprocess.Popen(words, env=on.outside(), text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield _Child(process)
        finally:
            process.kill()


def contexts(run: Run) -> Iterator[Row]:
    """Contexts one after the other, several at once, and ends of processes that hold memory."""
    with stand() as on:
        yield _one_by_one(on)
        yield _at_once(on)
        for how in ("exit", "kill -9"):
            yield _free_after_death(on, how, 2 if run.quick else 3)


def _one_by_one(on: Stand) -> Row:
    grown, took_ms = [], []
    with ExitStack() as all_of, watched(on) as watch:
        before = watch.now_bytes()
        for _ in range(_N_CONTEXTS):
            child = all_of.enter_context(_child(on))
            child.tell("context")
            took_ms.append(child.took_ms())
            time.sleep(0.1)
            now = watch.now_bytes()
            grown.append((now - before) / _MIB)
            before = now
    each = ", ".join(f"{mib:.3f}" for mib in grown)
    note = f"growth of the card's total by each: {each}; made in {', '.join(f'{ms:.0f}' for ms in took_ms)} ms"
    conditions = f"{_N_CONTEXTS} processes one after the other, the second"
    return Row("a context takes", conditions, None, grown[1], "MiB", note, tuple(grown))


def _at_once(on: Stand) -> Row:
    with ExitStack() as all_of:
        children = [all_of.enter_context(_child(on)) for _ in range(_N_CONTEXTS)]
        with watched(on, "changes") as watch:
            time.sleep(0.1)
            began_ns = time.monotonic_ns()
            for child in children:
                child.tell("context")
            took_ms = [child.took_ms() for child in children]
            time.sleep(0.1)
    steps = [f"{above / _MIB:.1f} at {(at - began_ns) / 1e6:.0f}" for at, above in watch.told["changes"] if above]
    page = watch.told.get("page")
    beside = (
        f"the page that the driver shares was read every {page['longest_ns'] / 1e6:.2f} ms at least; " if page else ""
    )
    note = f"{beside}made in {', '.join(f'{ms:.0f}' for ms in took_ms)} ms; MiB more at ms: {', '.join(steps[:40])}"
    longest_ms = watch.told["longest_ns"] / 1e6
    return Row("NVML answers after, longest", f"{_N_CONTEXTS} contexts made at once", None, longest_ms, "ms", note)


def _free_after_death(on: Stand, how: str, n_times: int) -> Row:
    """From the moment at which the process is dead to that at which the card's total shows it."""
    late_ms, note = [], []
    with ExitStack() as all_of:
        keeper = all_of.enter_context(_child(on))  # the card's first user, who stays
        keeper.tell("context")
        keeper.answer()
        for _ in range(n_times):
            with _child(on) as child, watched(on, "changes") as watch:
                child.tell("context")
                child.answer()
                child.tell(f"hold {8 * _GIB}")
                child.answer()
                time.sleep(0.1)
                told_ns = time.monotonic_ns()
                if how == "exit":
                    child.tell("leave")
                else:
                    os.kill(child.process.pid, signal.SIGKILL)
                while not child.is_dead:
                    time.sleep(0.0002)
                dead_ns = time.monotonic_ns()
                time.sleep(0.5)
            steps = [(at, above) for at, above in watch.told["changes"] if at > told_ns]
            late_ms.append((steps[-1][0] - dead_ns) / 1e6 if steps else float("nan"))
            left = ", ".join(f"{above / _MIB:.1f} at {(at - told_ns) / 1e6:.1f}" for at, above in steps[:12])
            note.append(f"dead after {(dead_ns - told_ns) / 1e6:.1f} ms, MiB left at ms: {left}")
    conditions = f"{how}, with 8 GiB, worst of {n_times}; below 0: before it is dead"
    return Row(
        "memory of a dead process is free after", conditions, None, max(late_ms), "ms", "; ".join(note), tuple(late_ms)
    )


CASES = (
    Case("contexts", "what the driver takes for a context, and when a dead process's memory is free", contexts, 15, 12),
)
