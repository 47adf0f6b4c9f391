"""What the demo prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flexai.wire.quantity import format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from flexai.apps.demo.outcome import PhaseOutcome

_BAR = 24


def live_view(top: dict[str, Any]) -> RenderableType:
    """Cards with their slices as bars, and the line of waiting jobs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("CARD", "GRANTED", "", "IN USE", "JOBS"):
        table.add_column(column, no_wrap=True)
    for card in top["devices"]:
        granted = card["compute_granted_milli"]
        used = min(1000, sum(piece.get("got_milli_1s") or 0 for piece in card["slices"]))
        names = "  ".join(f"{piece['name']} {format_share(piece['asked_milli'])}" for piece in card["slices"])
        table.add_row(
            f"{card['index']} {card['model']}", _bar(granted), format_share(granted), _bar(used), escape(names)
        )
    jobs = top["status"]["jobs"]
    waiting = [job for job in top["jobs"] if job["state"] == "queued"]
    lines: list[RenderableType] = [table, Text(f"{jobs.get('running', 0)} run, {jobs.get('queued', 0)} wait")]
    if waiting:
        first = waiting[0]
        reason = (first.get("reason") or {}).get("message", "")
        lines.append(
            Text(f"first in line: {first['name']} ({first['queue']}): {reason}", overflow="ellipsis", no_wrap=True)
        )
    return Group(*lines)


def comparison(phases: Sequence[PhaseOutcome]) -> Table:
    """Both phases side by side."""
    table = Table(title="whole cards against slices", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for phase in phases:
        table.add_column(phase.name, justify="right")
    table.add_column("", justify="right")
    whole, sliced = phases
    table.add_row("makespan", f"{whole.makespan_s:.1f} s", f"{sliced.makespan_s:.1f} s",
                  f"x{whole.makespan_s / sliced.makespan_s:.2f} faster")  # fmt: skip
    table.add_row("mean wait", f"{whole.mean_wait_s:.1f} s", f"{sliced.mean_wait_s:.1f} s",
                  f"{sliced.mean_wait_s - whole.mean_wait_s:+.1f} s")  # fmt: skip
    table.add_row("card-time in use", f"{100 * whole.utilisation:.1f}%", f"{100 * sliced.utilisation:.1f}%",
                  f"{100 * (sliced.utilisation - whole.utilisation):+.1f} points")  # fmt: skip
    bound = [[job for job in phase.jobs if job.owed_milli == 1000] for phase in phases]
    if all(bound):
        means = [sum(job.ran_s for job in jobs) / len(jobs) for jobs in bound]
        table.add_row(
            "run time of jobs bound by the card", *(f"{mean:.2f} s" for mean in means), "slicing does not help"
        )
    over = [max(job.over_cap_bytes for job in phase.jobs) for phase in phases]
    table.add_row("bytes over cap", *(format_size(n_bytes) for n_bytes in over), "")
    worst = max(job.share_error_points for job in sliced.jobs)
    table.add_row("largest share error", "", f"{worst:.1f} points", "")
    return table


def tenants(phase: PhaseOutcome) -> Table:
    """Asked, owed and delivered, per job."""
    table = Table(title=f"{phase.name}: shares", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("TENANT", "QUEUE", "ASKED", "OWED", "DELIVERED", "ERROR", "WAITED", "RAN"):
        table.add_column(column, justify="left" if column in {"TENANT", "QUEUE"} else "right", no_wrap=True)
    for job in sorted(phase.jobs, key=lambda job: job.name):
        table.add_row(
            job.name, job.queue, format_share(job.asked_milli), format_share(job.owed_milli),
            format_share(job.got_milli), f"{job.share_error_points:.1f}", f"{job.waited_s:.1f} s", f"{job.ran_s:.1f} s",
        )  # fmt: skip
    return table


def told(phase: PhaseOutcome) -> Table:
    """What the jobs that waited were told: the last thing, and how often it changed."""
    table = Table(title=f"{phase.name}: what waiting jobs were told", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("JOB", "QUEUE", "WAITED", "TOLD LAST"):
        table.add_column(column, justify="right" if column == "WAITED" else "left", no_wrap=column != "TOLD LAST")
    for job in sorted(phase.jobs, key=lambda job: job.name):
        if job.told:
            more = f"  ({len(job.told) - 1} earlier)" if len(job.told) > 1 else ""
            table.add_row(job.name, job.queue, f"{job.waited_s:.1f} s", escape(job.told[-1]) + more)
    return table


def _bar(milli: int) -> str:
    full = round(_BAR * min(1000, milli) / 1000)
    return "█" * full + "░" * (_BAR - full)
