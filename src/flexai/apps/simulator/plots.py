"""Pictures of runs: use and queue over time, waits by size, allocation over arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flexai.simulation.metrics import HOUR_MS, by_group, size_class

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.simulation.experiment import PackedRun, TimedRun

COLOURS = ("#0b6e99", "#d9730d", "#6c7a89", "#448361", "#9065b0", "#c14c8a")


def plot_timed(runs: Sequence[TimedRun], folder: Path) -> Path:
    """Three panels: cards granted and members waiting over time, mean wait by size."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 -- a second of import that tables do not need

    figure, (use, queue, sizes) = plt.subplots(3, 1, figsize=(10, 9), height_ratios=(2, 2, 2))
    width = 0.8 / len(runs)
    names = sorted({size for run in runs for size in by_group(run.outcome, size_class)})
    for index, run in enumerate(runs):
        colour = COLOURS[index % len(COLOURS)]
        samples = run.outcome.samples
        at_h = np.array([sample.at_ms for sample in samples]) / HOUR_MS
        granted = np.array([sample.granted_milli for sample in samples]) / (10 * run.n_cards)
        label = f"{run.policy}, {run.n_cards} cards"
        use.step(at_h, granted, where="post", lw=0.7, color=colour, label=label)
        queue.step(at_h, [sample.n_waiting for sample in samples], where="post", lw=0.7, color=colour, label=label)
        waits = by_group(run.outcome, size_class)
        heights = [waits[name].mean_h if name in waits else 0.0 for name in names]
        sizes.bar(np.arange(len(names)) + index * width, heights, width, color=colour, label=label)
    use.set(ylabel="cards granted, %", ylim=(0, 102), title="simulated: granted card time, not utilisation of programs")
    queue.set(ylabel="members waiting", xlabel="hours since the first submission")
    sizes.set(ylabel="mean wait, h", xlabel="cards of the job")
    sizes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, [name.split(" ", 1)[1] for name in names])
    use.legend(loc="lower right")
    return _save(figure, folder / "waits.png")


def plot_packed(runs: Sequence[PackedRun], folder: Path) -> Path:
    """Allocation over arrival, the band being the spread over seeds."""
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(8, 5))
    for index, run in enumerate(runs):
        points = list(next(iter(run.by_seed.values())).curve)
        table = np.array([[packed.curve[point] for point in points] for packed in run.by_seed.values()])
        colour = COLOURS[index % len(COLOURS)]
        at = [100 * point for point in points]
        axes.plot(at, table.mean(axis=0), color=colour, marker="o", ms=3, label=run.policy)
        axes.fill_between(at, table.min(axis=0), table.max(axis=0), color=colour, alpha=0.2)
    axes.plot([0, 100], [0, 100], color="#bbbbbb", lw=0.8, ls="--", label="everything placed")
    axes.set(xlabel="compute arrived, % of capacity", ylabel="allocation, %", title="simulated: packing by amount")
    axes.set_xlim(40, None)
    axes.set_ylim(40, 101)
    axes.legend(loc="lower right")
    return _save(figure, folder / "allocation.png")


def _save(figure: object, path: Path) -> Path:
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    assert isinstance(figure, Figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
