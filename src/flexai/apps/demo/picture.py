"""The picture of the demo: what ran on each card and how much of it was used, and what each job got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of backend
from matplotlib.patches import Patch

from flexai.apps.demo.lanes import filled, lanes
from flexai.apps.demo.morning import QUEUES, WHOLE_MILLI

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.apps.demo.outcome import PhaseOutcome

_COLORS = dict(zip(QUEUES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
_PALE = 0.25
_LANE = 1.12  # a little air between cards
_LABEL_S, _LABEL_MILLI = 0.045, 140  # of the span; a name needs so much room


def draw(phases: Sequence[PhaseOutcome], file: Path, title: str) -> None:
    """Write a PNG: the cards of each phase as lanes, and below them the shares of the last phase."""
    n_cards = max(phase.n_cards for phase in phases)
    heights = [1.1 + 1.3 * n_cards] * len(phases) + [3.0]
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(11, sum(heights) + 0.9), layout="constrained", height_ratios=heights
    )
    longest_s = max(phase.makespan_s for phase in phases)
    for axis, phase in zip(axes, phases, strict=False):
        _cards(axis, phase, longest_s)
    axes[len(phases) - 1].set_xlabel("seconds since the first submission", fontsize=8)
    _shares(axes[-1], phases[-1])
    legend = [Patch(color=color, label=f"queue {name}: used") for name, color in _COLORS.items()]
    legend.append(Patch(color="grey", alpha=_PALE, label="granted, not used"))
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=12)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _cards(axis: Any, phase: PhaseOutcome, longest_s: float) -> None:
    drawn = lanes(phase.jobs)
    for number, jobs in enumerate(drawn.values()):
        base = number * _LANE
        axis.axhspan(base, base + 1, color="0.96", zorder=0)
        for job, strips in jobs:
            color, span = _COLORS[job.queue], [(job.started_s, job.ran_s)]
            for low, high in strips:
                at = (base + low / WHOLE_MILLI, (high - low) / WHOLE_MILLI)
                axis.broken_barh(span, at, facecolor=color, alpha=_PALE, linewidth=0)
                axis.broken_barh(span, at, facecolor="none", edgecolor="white", linewidth=0.8, zorder=3)
            for low, high in filled(strips, min(job.got_milli, job.asked_milli)):
                axis.broken_barh(span, (base + low / WHOLE_MILLI, (high - low) / WHOLE_MILLI), facecolor=color)
            used = filled(strips, min(job.got_milli, job.asked_milli)) or strips
            low, high = max(used, key=lambda strip: strip[1] - strip[0])
            if high - low >= _LABEL_MILLI and job.ran_s >= _LABEL_S * longest_s:
                middle = job.started_s + job.ran_s / 2, base + (low + high) / 2 / WHOLE_MILLI
                axis.text(*middle, job.name, ha="center", va="center", fontsize=6, color="white", zorder=4)
    top = max(1, len(drawn)) * _LANE
    axis.vlines(phase.makespan_s, 0, top - _LANE + 1, color="black", linewidth=1.2, linestyle=":")
    axis.set_xlim(0, longest_s * 1.01)
    axis.set_ylim(top - _LANE + 1.02, -0.02)
    axis.set_yticks([number * _LANE + 0.5 for number in range(len(drawn))],
                    list(drawn))  # fmt: skip
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.set_title(
        f"{phase.name}: all done after {phase.makespan_s:.1f} s, {100 * phase.utilisation:.0f}% of card-time in use, "
        f"mean wait {phase.mean_wait_s:.1f} s",
        fontsize=10, loc="left",
    )  # fmt: skip


def _shares(axis: Any, phase: PhaseOutcome) -> None:
    jobs = sorted(phase.jobs, key=lambda job: (job.is_card_bound, job.owed_milli, job.name))
    places = list(range(len(jobs)))
    colors = [_COLORS[job.queue] for job in jobs]
    axis.bar(places, [job.asked_milli / 10 for job in jobs], 0.8, color=colors, alpha=_PALE)
    axis.bar(places, [job.got_milli / 10 for job in jobs], 0.8, color=colors)
    axis.hlines([job.owed_milli / 10 for job in jobs], [place - 0.45 for place in places],
                [place + 0.45 for place in places], color="black", linewidth=1.2)  # fmt: skip
    axis.set_xticks(places, [job.name for job in jobs], fontsize=6, rotation=90)
    axis.set_xlim(-0.7, len(jobs) - 0.3)
    axis.set_ylabel("% of a card", fontsize=8)
    axis.tick_params(axis="y", labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(
        f"{phase.name}: share asked for (pale), delivered (full) and owed (line). Jobs named train are bound by the "
        "card: slicing does not help them",
        fontsize=9, loc="left",
    )  # fmt: skip
