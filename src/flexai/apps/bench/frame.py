"""What all benchmarks have in common: cases with goals, rows with figures, a header that says where they come from."""

from __future__ import annotations

import math
import os
import platform
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

AT_MOST, AT_LEAST = "<=", ">="
Add: TypeAlias = "Callable[[Sequence[Sequence[Row]]], list[Row]]"
_IN_TIME = "it would not have ended within"


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
        got: the figure; NaN when it could not be had (``note`` says why), infinite when it never came to be.
        samples: what the figure was made of, for plots and doubts.
        stretch: what would be better still.
        void: why the figure is not judged although it has a goal, as a solo rate that drifted; empty when it is.
        data: more of the same for programs and plots.
        case: whose row it is; set by ``run_case``.
    """

    name: str
    conditions: str
    goal: Goal | None
    got: float
    unit: str
    note: str = ""
    samples: tuple[float, ...] = ()
    stretch: Goal | None = None
    void: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    case: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal was met; None without one, and where the figure is void."""
        return None if self.goal is None or self.void else self.goal.met_by(self.got)

    @property
    def verdict(self) -> str:
        """``stretch``, ``yes``, ``no`` or ``void`` in words; empty without a goal."""
        if self.void:
            return "void"
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
            "got": self.got if math.isfinite(self.got) else None,
            "unit": self.unit,
            "met": self.met,
            "stretch": None if self.stretch is None else str(self.stretch),
            "stretch_met": None if self.stretch is None else self.stretch.met_by(self.got),
            "note": self.note,
            "void": self.void,
            "samples": list(self.samples),
            "data": dict(self.data),
            "case": self.case,
        }


@dataclass(slots=True)
class Spare:
    """Time (s) that a case may take beyond what it says, for measuring again what was void."""

    left_s: float = math.inf

    def take(self, seconds: float) -> bool:
        """Whether so much was left; then it is taken."""
        enough = seconds <= self.left_s
        self.left_s -= seconds if enough else 0.0
        return enough


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
        minutes: how long cases go on that may take as long as one likes; None: as long as they think fit.
        spare: what is left of ``--within`` beyond what this case says that it takes.
        captions: what cases drew into ``pictures``, file name to what it shows; they add to it.
    """

    quick: bool
    seed: int
    say: Callable[[str], None]
    folder: Path
    traces: Path | None = None
    pictures: Path | None = None
    minutes: float | None = None
    spare: Spare = field(default_factory=Spare)
    inputs: dict[str, str] = field(default_factory=dict)
    captions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement, which may give several rows.

    Attributes:
        seconds: how long it takes, roughly, start of pools included; 0 when nobody said.
        quick_seconds: the same of a quick run.
        loop_s: of ``seconds``, what ``--minutes`` takes the place of, in a case that may go on as long as one likes.
        add: of such a case, its rows of several runs as those of one that is as long as all of them.
    """

    name: str
    about: str
    measure: Callable[[Run], Iterable[Row]]
    seconds: float = 0.0
    quick_seconds: float = 0.0
    loop_s: float = 0.0
    add: Add | None = None

    def takes_s(self, quick: bool, minutes: float | None = None) -> float:
        """Roughly."""
        if minutes is None or quick or not self.loop_s:
            return self.quick_seconds if quick else self.seconds
        return self.seconds - self.loop_s + 60 * minutes


class Overdue(Exception):
    """A case took far longer than it says."""


def run_case(case: Case, run: Run) -> list[Row]:
    """Measure; a case that fails is a row that says so, and the others go on."""
    run.say(f"{case.name}: {case.about}")
    rows: list[Row] = []
    try:
        with _overdue_after(case.takes_s(run.quick, run.minutes)):
            for row in case.measure(run):
                rows.append(replace(row, case=case.name))  # noqa: PERF401  those before a failure count
    except Exception as error:
        rows.append(unmeasured(case, f"{type(error).__name__}: {error}"))
    return rows


def unmeasured(case: Case, why: str) -> Row:
    """A row for what could not be had."""
    return Row(case.name, case.about, None, math.nan, "", note=f"not measured: {why}", case=case.name)


def not_begun(case: Case, within_s: float) -> Row:
    """A row for a case that would not have ended in time."""
    return unmeasured(case, f"{_IN_TIME} {within_s:g} s")


def is_not_begun(note: str) -> bool:
    """Whether that is why a row of a kept result has no figure: another part of it may have the case."""
    return note.startswith(f"not measured: {_IN_TIME}")


def overdue_s(takes_s: float) -> float:
    """When a case that takes so long is taken for hung."""
    return 3 * takes_s + 60


@contextmanager
def _overdue_after(takes_s: float) -> Iterator[None]:
    """Raise Overdue in a case that hangs, so that the cases after it are measured; no limit where it gave no time."""
    limit_s = overdue_s(takes_s)

    def ring(_number: int, _frame: object) -> None:
        raise Overdue(f"it says that it takes {takes_s:g} s and was ended after {limit_s:g}")

    if not takes_s:
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    left = signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def part_of(cases: Sequence[Case], number: int, of: int, quick: bool) -> list[Case]:
    """The cases of one of several parts of about equal length, in order; together they are all of them."""
    total_s = sum(case.takes_s(quick) for case in cases) or 1.0
    parts: list[list[Case]] = [[] for _ in range(of)]
    past_s = 0.0
    for case in cases:
        middle_s = past_s + case.takes_s(quick) / 2
        parts[min(of - 1, int(of * middle_s / total_s))].append(case)
        past_s += case.takes_s(quick)
    return parts[number - 1]


def pieces_of(row: Row) -> list[Mapping[str, Any]]:
    """Data of each of those that a row was made of by ``worst_of``; its own, where it was not."""
    pieces: list[Mapping[str, Any]] = row.data.get("pieces", [row.data])
    return pieces


def worst_of(rows: Sequence[Row], conditions: str) -> Row:
    """One row of the same figure measured several times: the worst by its goal (the first, without one), all notes.

    No figure is the worst.
    """
    first = rows[0]

    def badness(row: Row) -> float:
        if math.isnan(row.got):
            return math.inf
        return row.got if first.goal is None or first.goal.sense == AT_MOST else -row.got

    notes = [f"{number}: {row.note}" for number, row in enumerate(rows, 1) if row.note]
    worst = first if first.goal is None else max(rows, key=badness)
    return replace(
        worst, conditions=conditions, samples=tuple(one for row in rows for one in row.samples),
        note=first.note if len({row.note for row in rows}) == 1 else note_of(*notes),
        void=note_of(*dict.fromkeys(row.void for row in rows)),
        data={"pieces": [dict(one) for row in rows for one in pieces_of(row)]},
    )  # fmt: skip


def note_of(*texts: str) -> str:
    """One note of several texts; those that are empty are left out."""
    return "; ".join(text for text in texts if text)


HEADER = ("benchmark", "machine", "cards", "driver", "commit", "command", "date", "load", "seed")


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
    named = os.environ.get("FLEXAI_BENCH_COMMIT")  # where it runs from wheels, away from the checkout
    if named:
        return named
    root = Path(__file__).parents[4]
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "not a checkout"
    return found.stdout.strip()
