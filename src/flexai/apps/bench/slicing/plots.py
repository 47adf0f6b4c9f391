"""Pictures of slicing: asked against delivered, who had the card, latencies, and how much of the card was used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of backend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from flexai.apps.bench.frame import Row

COLOURS = ("#0b6e99", "#e07b00", "#2e7d32", "#8e44ad", "#c62828", "#5d4037", "#00897b", "#ad1457", "#827717", "#37474f")
GREY, LIGHT = "#9e9e9e", "#e0e0e0"
MOST_LANES = 4


def draw(rows: Sequence[Row], folder: Path) -> dict[str, str]:
    """Each picture for which there are rows; file name to caption."""
    pictures: tuple[tuple[str, str, Callable[[list[Row]], Any], set[str]], ...] = (
        ("slicing-shares.png", "asked against delivered, by card time and by work", _shares, {"shares", "limit"}),
        ("slicing-timeline.png", "who had the card, by its log", _timelines, {"shares"}),
        ("slicing-latency.png", "latencies, lending and take-back: part of samples within", _cdfs, {"latency", "cdf"}),
        ("slicing-use.png", "how much of the card was used, and sum of work", _use, {"shares"}),
    )
    drawn = {}
    for name, caption, picture, kinds in pictures:
        mine = [row for row in rows if row.data.get("plot") in kinds]
        if not mine:
            continue
        figure = picture(mine)
        figure.savefig(folder / name, dpi=120, bbox_inches="tight")
        plt.close(figure)
        drawn[name] = caption
    return drawn


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _label(row: Row) -> str:
    return row.conditions.rpartition(", ")[0] or row.conditions


def _shares(rows: list[Row]) -> Any:
    """Left the square of asked and got; right the error of each tenant, which the square cannot show."""
    figure, (square, errors) = plt.subplots(1, 2, figsize=(13, 0.3 * len(rows) + 3.2), width_ratios=(1, 1.5))
    square.plot([0, 100], [0, 100], color=GREY, linewidth=1, zorder=1)
    for place, row in enumerate(rows):
        colour = COLOURS[place % len(COLOURS)]
        asked, held, work = ([*value] if isinstance(value, list | tuple) else [value] for value in (
            row.data["asked"], row.data["held"], row.data["work"]
        ))  # fmt: skip
        square.scatter(asked, held, color=colour, s=26, zorder=3)
        square.scatter(asked, work, facecolors="none", edgecolors=colour, s=80, zorder=2)
        errors.scatter(
            [got - want for got, want in zip(held, asked, strict=True)], [place] * len(asked), color=colour, s=30
        )
    square.scatter([], [], color=GREY, label="card time")
    square.scatter([], [], facecolors="none", edgecolors=GREY, s=80, label="work, of solo")
    square.legend(frameon=False)
    square.set_xlabel("asked, % of the card")
    square.set_ylabel("delivered, %")
    errors.axvspan(-0.3, 0.3, color=LIGHT, zorder=0)
    errors.set_yticks(range(len(rows)), [f"limit {_label(row)}" if row.data["plot"] == "limit" else _label(row)
                                         for row in rows], fontsize=8)  # fmt: skip
    errors.set_xlabel("card time delivered less asked, points (grey: ±0.3)")
    errors.invert_yaxis()
    errors.yaxis.tick_right()
    _plain(square)
    errors.spines[["top", "left"]].set_visible(False)
    figure.tight_layout()
    return figure


def _timelines(rows: list[Row]) -> Any:
    """A lane for each tenant: filled where it had the card, a thin line where it was stopped."""
    rows = [row for row in rows if row.data["spans"]][:MOST_LANES]
    figure, all_axes = plt.subplots(
        max(1, len(rows)), 1, figsize=(11, 1.0 + sum(0.36 * len(row.data["asked"]) + 0.9 for row in rows)),
        squeeze=False, height_ratios=[len(row.data["asked"]) + 1 for row in rows] or [1],
    )  # fmt: skip
    for axes, row in zip(all_axes[:, 0], rows, strict=False):
        asked = row.data["asked"]
        for span in row.data["spans"]:
            if span["what"] not in {"runs", "stopped"} or span["tenant"] < 0:
                continue
            runs = span["what"] == "runs"
            axes.barh(
                span["tenant"], span["to_ms"] - span["from_ms"], left=span["from_ms"], height=0.8 if runs else 0.12,
                color=COLOURS[span["tenant"] % len(COLOURS)] if runs else GREY, linewidth=0, zorder=2 if runs else 1,
            )  # fmt: skip
        axes.set_yticks(range(len(asked)), [f"{want:g} %" for want in asked], fontsize=8)
        axes.set_ylim(len(asked) - 0.5, -0.5)
        axes.set_xlim(0, max((span["to_ms"] for span in row.data["spans"]), default=1))
        axes.set_title(_label(row), fontsize=9, loc="left")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    all_axes[-1, 0].set_xlabel("ms (bar: has the card; grey line: stopped)")
    figure.tight_layout()
    return figure


def _cdfs(rows: list[Row]) -> Any:
    """Left latencies alone and beside others; right lending and take-back."""
    served = [row for row in rows if row.data["plot"] == "latency"]
    moved = [row for row in rows if row.data["plot"] == "cdf"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2))
    for place, row in enumerate(served):
        colour = COLOURS[place % len(COLOURS)]
        _cdf(left, row.data["alone"], colour, "--", "")
        _cdf(left, row.samples, colour, "-", row.data["label"])
    for place, row in enumerate(moved):
        _cdf(right, row.samples, COLOURS[place % len(COLOURS)], "-", row.data["label"])
    left.set_xlabel("latency, ms (dashed: alone)")
    right.set_xlabel("ms")
    left.set_xscale("log")
    for axis_format in (left.xaxis.set_major_formatter, left.xaxis.set_minor_formatter):
        axis_format("{x:.3g}")
    for axes, title, any_ in ((left, "requests", served), (right, "lending and take-back", moved)):
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylabel("part of samples within")
        axes.set_ylim(0, 1.02)
        axes.axhline(0.99, color=LIGHT, linewidth=1, zorder=0)
        _plain(axes)
        if any_:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        else:
            axes.text(0.5, 0.5, "not measured in this run", transform=axes.transAxes, ha="center", color=GREY)
    figure.tight_layout()
    return figure


def _cdf(axes: Any, samples: Sequence[float], colour: str, line: str, label: str) -> None:
    ordered = sorted(samples)
    parts = [(place + 1) / len(ordered) for place in range(len(ordered))]
    axes.step(ordered, parts, where="post", color=colour, linestyle=line, linewidth=1.4, label=label or None)


def _use(rows: list[Row]) -> Any:
    """Card time in use by anybody, and the sum of the tenants' work in percent of what each does alone."""
    figure, axes = plt.subplots(figsize=(9, 0.55 * len(rows) + 1.6))
    for place, row in enumerate(rows):
        used, work = row.data["used"], sum(row.data["work"])
        axes.barh(place - 0.18, used, height=0.34, color=COLOURS[0], label="card time used" if place == 0 else None)
        axes.barh(place + 0.18, work, height=0.34, color=COLOURS[1], label="sum of work" if place == 0 else None)
        for at, value in ((place - 0.18, used), (place + 0.18, work)):
            axes.annotate(
                f"{value:.1f}", (value, at), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
    axes.axvline(100, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    axes.set_xlabel("% of one card")
    axes.set_xlim(0, max(112.0, *(1.12 * sum(row.data["work"]) for row in rows)))
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
