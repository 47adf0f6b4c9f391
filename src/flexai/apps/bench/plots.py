"""Plots of a benchmark: how far each figure lies from its goal, and the samples behind the figures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of backend

from flexai.apps.bench.frame import AT_LEAST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Row

GREEN, RED, GREY = "#2e7d32", "#c62828", "#9e9e9e"
LEAST_SAMPLES = 30
"""Fewer are in the JSON; a histogram of them would say nothing."""
ZERO = 1e-3
"""Where a margin without end is drawn, as of 0 out of at most 1; and one that says no more, as of much out of 0."""


MOST_LETTERS = 60
"""Of the conditions beside a figure; the table has them whole."""


def draw(name: str, rows: Sequence[Row], folder: Path, *, samples: bool = True) -> dict[str, str]:
    """One picture of all rows with a goal, one of samples per row with many; file name to what it shows."""
    drawn = {}
    judged = [row for row in rows if row.met is not None and row.got == row.got]
    if judged:
        _margins(judged, folder / f"{name}.png")
        drawn[f"{name}.png"] = f"{name}: how many times better than its goal each figure is"
    for row in rows:
        if len(row.samples) < LEAST_SAMPLES or not samples:
            continue
        slug = re.sub(r"\W+", "-", f"{row.name} {row.conditions}".lower()).strip("-")[:80].strip("-")
        _samples(row, folder / f"{name}-{slug}.png")
        drawn[f"{name}-{slug}.png"] = f"{row.name}, {row.conditions}: {len(row.samples)} samples"
    return drawn


def margin(row: Row) -> float:
    """How many times better than its goal a figure is; below 1 the goal is missed."""
    assert row.goal is not None
    over, under = (row.got, row.goal.value) if row.goal.sense == AT_LEAST else (row.goal.value, row.got)
    return min(max(max(over, ZERO) / max(under, ZERO), ZERO), 1 / ZERO)


def _margins(judged: Sequence[Row], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(10, 0.34 * len(judged) + 1.4))
    at = range(len(judged))
    margins = [margin(row) for row in judged]
    colours = [GREEN if row.met else RED for row in judged]
    axes.axvline(1.0, color=GREY, linewidth=1, zorder=1)
    axes.hlines(at, 1.0, margins, color=colours, linewidth=2, zorder=2)
    axes.scatter(margins, at, color=colours, s=28, zorder=3)
    for place, row, to in zip(at, judged, margins, strict=True):
        axes.annotate(f"{row.got:.4g} {row.unit} ({row.goal})", (max(to, 1.0), place), xytext=(8, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    names = [row.name for row in judged]
    labels = [row.name if names.count(row.name) == 1 else f"{row.name}, {_short(row.conditions)}" for row in judged]
    axes.set_yticks(list(at), labels, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *margins) / 1.2, max(2.0, *margins) * 6)
    axes.set_xlabel("times better than the goal (green: met, red: missed)")
    axes.set_ylim(len(judged) - 0.5, -0.5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)


def _short(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1].rstrip(' ,;')}…"


def _samples(row: Row, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    axes.hist(row.samples, bins=40, color="#0b6e99")
    if row.goal is not None:
        axes.axvline(row.goal.value, color=RED, linewidth=1, label=f"goal of the figure: {row.goal}")
        axes.legend(fontsize=8)
    axes.set_title(f"{row.name}, {row.conditions}", fontsize=9, wrap=True)
    axes.set_xlabel(row.unit)
    axes.set_ylabel("samples")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
