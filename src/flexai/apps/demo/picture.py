"""The picture of the demo: who ran where and when, and asked against delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of backend

from flexai.apps.demo.morning import QUEUES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from flexai.apps.demo.outcome import PhaseOutcome

_COLORS = dict(zip(QUEUES, ("tab:blue", "tab:orange", "tab:green"), strict=True))


def draw(phases: Sequence[PhaseOutcome], file: Path, title: str) -> None:
    """Write a PNG: a strip of jobs per phase, and the shares of the last phase."""
    figure, axes = plt.subplots(len(phases) + 1, 1, figsize=(9, 3.2 * (len(phases) + 1)), layout="constrained")
    longest_s = max(phase.makespan_s for phase in phases)
    for axis, phase in zip(axes, phases, strict=False):
        _strip(axis, phase, longest_s)
    _shares(axes[-1], phases[-1])
    figure.suptitle(title)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def _strip(axis: Any, phase: PhaseOutcome, longest_s: float) -> None:
    jobs = sorted(phase.jobs, key=lambda job: job.started_s)
    for row, job in enumerate(jobs):
        axis.barh(row, job.waited_s, left=job.started_s - job.waited_s, color="lightgrey", height=0.5)
        axis.barh(
            row, job.ran_s, left=job.started_s, color=_COLORS[job.queue], height=0.8 * job.asked_milli / 1000 + 0.1
        )
    axis.set_xlim(0, longest_s * 1.02)
    axis.set_yticks(range(len(jobs)), [job.name for job in jobs], fontsize=5)
    axis.invert_yaxis()
    axis.set_title(
        f"{phase.name}: {phase.makespan_s:.1f} s, mean wait {phase.mean_wait_s:.1f} s, "
        f"{100 * phase.utilisation:.0f}% of card-time in use (grey: waiting; height: share asked for)",
        fontsize=9,
    )
    axis.set_xlabel("seconds since the first submission", fontsize=8)


def _shares(axis: Any, phase: PhaseOutcome) -> None:
    jobs = sorted(phase.jobs, key=lambda job: (job.owed_milli, job.name))
    places = range(len(jobs))
    axis.bar([place - 0.2 for place in places], [job.owed_milli / 10 for job in jobs], 0.4, label="owed", color="grey")
    axis.bar([place + 0.2 for place in places], [job.got_milli / 10 for job in jobs], 0.4, label="delivered",
             color=[_COLORS[job.queue] for job in jobs])  # fmt: skip
    axis.set_xticks(list(places), [job.name for job in jobs], fontsize=5, rotation=90)
    axis.set_ylabel("% of a card")
    axis.set_title(f"{phase.name}: share owed and delivered", fontsize=9)
    axis.legend(fontsize=8)
