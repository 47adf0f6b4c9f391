"""What all benchmarks have in common: cases with goals, rows with figures, a header that says where they come from."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AT_MOST, AT_LEAST = "<=", ">="


@dataclass(frozen=True, slots=True)
class Goal:
    """``<= 10`` or ``>= 300``, in the unit of its row; ``None`` reports a figure without judging it."""

    sense: str
    value: float

    def __str__(self) -> str:
        return f"{self.sense} {self.value:g}"

    def met_by(self, got: float) -> bool:
        """Whether the figure reaches the goal; no figure (NaN) never does."""
        return not math.isnan(got) and (got <= self.value if self.sense == AT_MOST else got >= self.value)


def at_most(value: float) -> Goal:
    """The smaller the better."""
    return Goal(AT_MOST, value)


def at_least(value: float) -> Goal:
    """The larger the better."""
    return Goal(AT_LEAST, value)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        name: what was measured.
        conditions: under which conditions, in words.
        got: the figure; NaN when it could not be had (``note`` says why).
        samples: what the figure was made of, for plots and doubts.
        stretch: what would be better still.
    """

    name: str
    conditions: str
    goal: Goal | None
    got: float
    unit: str
    note: str = ""
    samples: tuple[float, ...] = ()
    stretch: Goal | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without one."""
        return None if self.goal is None else self.goal.met_by(self.got)

    @property
    def verdict(self) -> str:
        """``stretch``, ``yes`` or ``no`` in words; empty without a goal."""
        if self.met is None:
            return ""
        if self.stretch is not None and self.stretch.met_by(self.got):
            return "stretch"
        return "yes" if self.met else "no"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": self.name,
            "conditions": self.conditions,
            "goal": None if self.goal is None else str(self.goal),
            "got": None if math.isnan(self.got) else self.got,
            "unit": self.unit,
            "met": self.met,
            "stretch": None if self.stretch is None else str(self.stretch),
            "stretch_met": None if self.stretch is None else self.stretch.met_by(self.got),
            "note": self.note,
            "samples": list(self.samples),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """How a benchmark was asked for.

    Attributes:
        quick: shorter, for a look; figures are rougher.
        seed: of every random choice.
        say: told what is being measured.
        folder: scratch space, short enough for sockets.
        traces: folder with the caller's traces; None where none was named.
        pictures: folder for pictures that a case draws itself; None where none are wanted.
        inputs: what cases read, file name to SHA-256; they add to it.
        captions: what cases drew into ``pictures``, file name to what it shows; they add to it.
    """

    quick: bool
    seed: int
    say: Callable[[str], None]
    folder: Path
    traces: Path | None = None
    pictures: Path | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, which may give several rows."""

    name: str
    about: str
    measure: Callable[[Run], Iterable[Row]]


def run_case(case: Case, run: Run) -> list[Row]:
    """Measure; a case that fails is a row that says so, and the others go on."""
    run.say(f"{case.name}: {case.about}")
    try:
        return list(case.measure(run))
    except Exception as error:
        return [Row(case.name, case.about, None, math.nan, "", note=f"not measured: {type(error).__name__}: {error}")]


def header(name: str, cards: str, driver: str, seed: int) -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "benchmark": name,
        "machine": f"{platform.node()}: {_cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}",
        "cards": cards,
        "driver": driver,
        "commit": _commit(),
        "command": " ".join(["flexai bench", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": f"{os.getloadavg()[0]:.1f} processes were running before (mean of a minute)",
        "seed": seed,
    }


def quantile(samples: Iterable[float], part: float) -> float:
    """The sample below which ``part`` of them lie (nearest rank); NaN of none."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)] if ordered else math.nan


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    root = Path(__file__).parents[4]
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"
    return found.stdout.strip()
