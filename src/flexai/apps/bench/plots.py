"""Plots of a benchmark: got against goal, and the samples behind each figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of backend

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Row


def draw(name: str, rows: Sequence[Row], folder: Path) -> list[Path]:
    """One picture of all rows with a goal, and one of samples per row that has them; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    judged = [row for row in rows if row.goal is not None and row.got == row.got and row.goal.value > 0]
    files = []
    if judged:
        figure, axes = plt.subplots(figsize=(9, 0.4 * len(judged) + 1.5))
        parts = [row.got / row.goal.value for row in judged if row.goal is not None]
        axes.barh([f"{row.name}, {row.conditions}" for row in judged], parts,
                  color=["tab:green" if row.met else "tab:red" for row in judged])  # fmt: skip
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_xscale("log")
        axes.set_xlabel("figure over its goal (green: goal met)")
        axes.invert_yaxis()
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=120, bbox_inches="tight")
        plt.close(figure)
    for index, row in enumerate(rows):
        if len(row.samples) < 10:
            continue
        figure, axes = plt.subplots(figsize=(6, 3))
        axes.hist(row.samples, bins=40)
        axes.set_title(f"{row.name}, {row.conditions}", fontsize=9)
        axes.set_xlabel(row.unit)
        files.append(folder / f"{name}-{index}.png")
        figure.savefig(files[-1], dpi=120, bbox_inches="tight")
        plt.close(figure)
    return files
