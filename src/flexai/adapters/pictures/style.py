"""What all pictures share: colours, quiet axes, saving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the choice of backend

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0b6e99", "#d9730d", "#6c7a89", "#448361", "#9065b0", "#c14c8a")


def colour(index: int) -> str:
    """The colour of the run in that place."""
    return COLOURS[index % len(COLOURS)]


def sheet(n_rows: int, n_columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with its panels in reading order, without frames."""
    figure, grid = plt.subplots(n_rows, n_columns, figsize=size, squeeze=False)
    panels = list(grid.flat)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def save(figure: Figure, path: Path) -> Path:
    """Write the picture and forget the figure.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path
