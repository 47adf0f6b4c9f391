"""Packing by amount: allocation and fragmentation over what arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.adapters.pictures.style import colour, save, sheet

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.simulation.experiment import PackedRun


def plot_packed(runs: Sequence[PackedRun], path: Path) -> Path:
    """Draw the mean over seeds as a line, their spread as a band."""
    figure, (allocation, fragmented) = sheet(1, 2, (11, 4.2))
    for index, run in enumerate(runs):
        packs = list(run.by_seed.values())
        points = list(packs[0].curve)
        at = [100 * point for point in points]
        for axes, table in (
            (allocation, np.array([[packed.curve[point] for point in points] for packed in packs])),
            (fragmented, np.array([[packed.fragmentation[point] for point in points] for packed in packs])),
        ):
            axes.plot(at, table.mean(axis=0), color=colour(index), marker="o", ms=3, lw=1.4, label=run.label)
            axes.fill_between(at, table.min(axis=0), table.max(axis=0), color=colour(index), alpha=0.2, lw=0)
    allocation.plot([50, 100], [50, 100], color="#bbbbbb", lw=0.8, ls="--", label="everything placed")
    allocation.set(xlabel="compute arrived, % of capacity", ylabel="allocation, % of capacity")
    allocation.set_title("allocation (not utilisation)", fontsize=10, loc="left")
    fragmented.set(xlabel="compute arrived, % of capacity", ylabel="% of capacity")
    fragmented.set_title("free compute that a typical job cannot use", fontsize=10, loc="left")
    fragmented.set_ylim(0, None)
    allocation.legend(loc="lower right", fontsize=8, frameon=False)
    figure.suptitle("simulated: packing by amount, nothing departs", fontsize=11, x=0.08, ha="left")
    figure.tight_layout()
    return save(figure, path)
