"""Runs in time: use, queue and fragmentation over time; waits by size; fairness by queue; runs side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from flexai.adapters.pictures.style import colour, save, sheet
from flexai.simulation.fairness import queue_shares
from flexai.simulation.metrics import HOUR_MS, by_group, fragmented_over_time, size_class

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from flexai.simulation.experiment import TimedRun

N_POINTS = 400
"""A curve has no more points than the picture can show: each is the mean over its part of the time."""
MOST_QUEUES = 20


def plot_timed(runs: Sequence[TimedRun], folder: Path, prefix: str = "") -> list[Path]:
    """Draw ``over-time.png``, ``waits.png``, ``fairness.png`` and, of two runs or more, ``before-after.png``."""
    paths = [_over_time(runs, folder / f"{prefix}over-time.png"), _waits(runs, folder / f"{prefix}waits.png")]
    if len({book.job.queue for book in runs[0].outcome.jobs}) > 1:
        paths.append(_fairness(runs, folder / f"{prefix}fairness.png"))
    if len(runs) > 1:
        paths.append(_side_by_side(runs, folder / f"{prefix}before-after.png"))
    return paths


def _over_time(runs: Sequence[TimedRun], path: Path) -> Path:
    curves = [fragmented_over_time(run.outcome, run.nodes, N_POINTS // 2) for run in runs]
    n_rows = 3 if any(curves) else 2
    figure, panels = sheet(n_rows, 1, (10, 2.6 * n_rows))
    for index, run in enumerate(runs):
        samples = run.outcome.samples
        edges = np.linspace(samples[0].at_ms, samples[-1].at_ms, N_POINTS + 1)
        granted = _means([sample.at_ms for sample in samples], [sample.granted_milli for sample in samples], edges)
        waiting = _means([sample.at_ms for sample in samples], [sample.n_waiting for sample in samples], edges)
        look: dict[str, Any] = {"where": "post", "lw": 1.0, "color": colour(index), "label": run.label}
        panels[0].step(edges[:-1] / HOUR_MS, granted / (10 * run.n_cards), **look)
        panels[1].step(edges[:-1] / HOUR_MS, waiting, **look)
        if curves[index]:
            at_ms, percent = zip(*curves[index], strict=True)
            panels[2].step(np.array(at_ms) / HOUR_MS, percent, **look)
    panels[0].set(ylabel="% of cards", ylim=(0, 102))
    panels[0].set_title("simulated: cards granted (use, not utilisation of programs)", fontsize=10, loc="left")
    panels[1].set(ylabel="members")
    panels[1].set_title("waiting", fontsize=10, loc="left")
    if any(curves):
        panels[2].set(ylabel="% of capacity", ylim=(0, None))
        panels[2].set_title("free compute that a typical job of the trace cannot use", fontsize=10, loc="left")
    panels[-1].set_xlabel("hours since the first submission")
    panels[0].legend(loc="lower right", fontsize=8, frameon=True, framealpha=0.9, edgecolor="none")
    figure.tight_layout()
    return save(figure, path)


def _waits(runs: Sequence[TimedRun], path: Path) -> Path:
    figure, (mean, p99) = sheet(1, 2, (10, 3.6))
    groups = [by_group(run.outcome, size_class) for run in runs]
    names = sorted({size for waits in groups for size in waits})
    labels = [name.split(" ", 1)[1] for name in names]
    for axes, value, title in ((mean, "mean_h", "mean wait"), (p99, "p99_h", "0.99 quantile of the wait")):
        heights = [[getattr(waits[n], value) if n in waits else 0.0 for n in names] for waits in groups]
        _bars(axes, labels, heights, [run.label for run in runs])
        axes.set(xlabel="cards of the job", ylabel="hours")
        axes.set_title(f"simulated: {title} by size", fontsize=10, loc="left")
    mean.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return save(figure, path)


def _fairness(runs: Sequence[TimedRun], path: Path) -> Path:
    figure, (got, waits) = sheet(2, 1, (10, 6.4))
    shares = [queue_shares(run.outcome) for run in runs]
    asked = {queue: one.asked for share in shares for queue, one in share.items()}
    queues = sorted(asked, key=lambda queue: -asked[queue])[:MOST_QUEUES]
    labels = [queue if len(queue) < 12 else f"{queue[:10]}.." for queue in queues]
    _bars(got, labels, [[100 * share[queue].got for queue in queues] for share in shares], [run.label for run in runs])
    got.scatter(range(len(queues)), [100 * asked[queue] for queue in queues], color="black", marker="_", s=160,
                label="asked for by then", zorder=3)  # fmt: skip
    got.set(ylabel="% of card time")
    got.set_title("simulated: card time that each queue got until the last submission", fontsize=10, loc="left")
    by_queue = [by_group(run.outcome, lambda book: book.job.queue) for run in runs]
    heights = [[group[queue].mean_h if queue in group else 0.0 for queue in queues] for group in by_queue]
    _bars(waits, labels, heights, [run.label for run in runs])
    waits.set(ylabel="hours")
    waits.set_title("mean wait by queue", fontsize=10, loc="left")
    for axes in (got, waits):
        axes.tick_params(axis="x", labelrotation=45 if len(queues) > 8 else 0)
    got.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return save(figure, path)


def _side_by_side(runs: Sequence[TimedRun], path: Path) -> Path:
    figures = {
        "mean wait, h": [run.summary.waits.mean_h for run in runs],
        "0.99 quantile of the wait, h": [run.summary.waits.p99_h for run in runs],
        "mean wait of jobs of >= 16 cards, h": [run.summary.big.mean_h for run in runs],
        "use of the cards, %": [100 * run.summary.use for run in runs],
    }
    shown = {name: values for name, values in figures.items() if not all(map(math.isnan, values))}
    figure, panels = sheet(1, len(shown), (2.9 * len(shown), 3.4))
    for axes, (name, values) in zip(panels, shown.items(), strict=True):
        heights = [0.0 if math.isnan(value) else value for value in values]
        bars = axes.bar(range(len(runs)), heights, color=[colour(index) for index in range(len(runs))], width=0.7)
        axes.bar_label(bars, ["-" if math.isnan(value) else f"{value:.3g}" for value in values], fontsize=8)
        axes.set_xticks(range(len(runs)), [run.label for run in runs], rotation=30, ha="right", fontsize=8)
        axes.set_title(name, fontsize=9, loc="left")
    figure.tight_layout()
    return save(figure, path)


def _bars(axes: Axes, labels: Sequence[str], heights: Sequence[Sequence[float]], names: Sequence[str]) -> None:
    width = 0.8 / len(heights)
    at = np.arange(len(labels))
    for index, row in enumerate(heights):
        axes.bar(at + (index - (len(heights) - 1) / 2) * width, row, width, color=colour(index), label=names[index])
    axes.set_xticks(at, labels)


def _means(at_ms: Sequence[int], values: Sequence[int], edges: np.ndarray) -> np.ndarray:
    """Mean of a step function over each interval between edges."""
    at, level = np.array(at_ms, dtype=np.float64), np.array(values, dtype=np.float64)
    area = np.concatenate([[0.0], np.cumsum(level[:-1] * np.diff(at))])
    place = np.clip(np.searchsorted(at, edges, side="right") - 1, 0, len(at) - 1)
    total = area[place] + level[place] * (edges - at[place])
    return np.diff(total) / np.maximum(np.diff(edges), 1e-9)
