"""What the demo prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from flexai.apps.demo.outcome import DELIVERED_MEANS, OWED_MEANS, SHARE_ERROR_MEANS, UTILISATION_MEANS
from flexai.wire.quantity import format_share, format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from flexai.apps.demo.outcome import JobOutcome, PhaseOutcome

_WIDE, _BAR, _NARROW_BAR = 110, 24, 12


def live_view(phase: str, seconds: float, top: dict[str, Any], width: int) -> RenderableType:
    """Cards with their slices as bars, and the line of waiting jobs."""
    n_bar = _BAR if width >= _WIDE else _NARROW_BAR
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("CARD", "GRANTED", "IN USE", "JOBS"):
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=1 if column == "JOBS" else None)
    for card in top["devices"]:
        granted = card["compute_granted_milli"]
        used = min(1000, sum(piece.get("got_milli_1s") or 0 for piece in card["slices"]))
        names = "  ".join(f"{piece['name']} {format_share(piece['asked_milli'])}" for piece in card["slices"])
        table.add_row(str(card["index"]), _bar(granted, n_bar), _bar(used, n_bar), escape(names))
    jobs = top["status"]["jobs"]
    n_done = jobs.get("succeeded", 0) + jobs.get("failed", 0) + jobs.get("cancelled", 0)
    state = f"{jobs.get('running', 0)} run, {jobs.get('queued', 0)} wait" + (f", {n_done} done" if n_done else "")
    lines: list[RenderableType] = [Text(f"{phase}, {seconds:.0f} s: {state}", style="bold"), table]
    waiting = [job for job in top["jobs"] if job["state"] == "queued"]
    if waiting:
        first = waiting[0]
        reason = (first.get("reason") or {}).get("message", "")
        lines.append(Text(f"first in line: {first['name']} ({first['queue']}): {reason}"))
    return Group(*lines)


def comparison(phases: Sequence[PhaseOutcome]) -> RenderableType:
    """Both phases side by side, with what the words mean."""
    table = _table("Whole cards against slices", "", *(f"{phase.name}>" for phase in phases), "difference>")
    whole, sliced = phases
    table.add_row("all jobs done after (makespan)", f"{whole.makespan_s:.1f} s", f"{sliced.makespan_s:.1f} s",
                  f"{_change(sliced.makespan_s, whole.makespan_s)}")  # fmt: skip
    table.add_row("mean wait", f"{whole.mean_wait_s:.1f} s", f"{sliced.mean_wait_s:.1f} s",
                  f"{_change(sliced.mean_wait_s, whole.mean_wait_s)}")  # fmt: skip
    table.add_row("card-time in use (utilisation)", f"{100 * whole.utilisation:.1f}%",
                  f"{100 * sliced.utilisation:.1f}%",
                  f"{100 * (sliced.utilisation - whole.utilisation):+.1f} points")  # fmt: skip
    bound, fed = ([_of_kind(phase, is_card_bound=kind) for phase in phases] for kind in (True, False))
    for name, jobs in (
        ("run time, jobs that wait for input", fed),
        ("run time, jobs bound by the card", bound),
    ):
        if all(jobs):
            before, after = (sum(job.ran_s for job in part) / len(part) for part in jobs)
            table.add_row(name, f"{before:.2f} s", f"{after:.2f} s", _change(after, before))
    over = [max(job.over_cap_bytes for job in phase.jobs) for phase in phases]
    table.add_row("most memory held beyond a cap", *(format_size(n_bytes) for n_bytes in over), "")
    worst = [max(job.share_error_points for job in phase.jobs) for phase in phases]
    table.add_row("largest share error", *(f"{points:.1f} points" for points in worst), "")
    notes = [
        f"[bold]{UTILISATION_MEANS.replace(':', '[/bold]:', 1)}",
        f"[bold]share error[/bold]  {SHARE_ERROR_MEANS}",
    ]
    if all(bound):
        notes.append(
            f"[bold]where slicing does not help[/bold]  {len(bound[1])} jobs (train-*) keep a whole card busy by "
            "themselves: they run no faster, and gain only from the shorter queue"
        )
    return Group(table, *notes)


def tenants(phase: PhaseOutcome) -> RenderableType:
    """Asked, owed and delivered, per job."""
    table = _table(f"Shares, with {phase.name}", "TENANT", "QUEUE", "CARD", "ASKED>", "OWED>", "DELIVERED>",
                   "ERROR>", "WAITED>", "RAN>")  # fmt: skip
    for job in sorted(phase.jobs, key=lambda job: (job.is_card_bound, job.name)):
        table.add_row(
            job.name, job.queue, job.device.removeprefix("card "), format_share(job.asked_milli),
            f"{job.owed_milli / 10:.1f}%", f"{job.got_milli / 10:.1f}%", f"{job.share_error_points:.1f}",
            f"{job.waited_s:.1f} s", f"{job.ran_s:.1f} s",
        )  # fmt: skip
    return Group(table, f"[bold]OWED[/bold]  {OWED_MEANS}", f"[bold]DELIVERED[/bold]  {DELIVERED_MEANS}")


def told(phase: PhaseOutcome) -> Table:
    """What the jobs that waited were told last; those that were told the same stand together."""
    table = _table(f"What waiting jobs were told, with {phase.name}", "WAITED>", "TOLD LAST", "JOBS", wrap=True)
    groups: dict[str, list[JobOutcome]] = {}
    for job in sorted(phase.jobs, key=lambda job: job.waited_s):
        if job.told:
            groups.setdefault(job.told[-1], []).append(job)
    for message, jobs in groups.items():
        first, last = f"{jobs[0].waited_s:.1f}", f"{jobs[-1].waited_s:.1f}"
        waited = f"{first} s" if first == last else f"{first} to {last} s"
        table.add_row(waited, escape(message), ", ".join(sorted(job.name for job in jobs)))
    return table


def _table(title: str, *columns: str, wrap: bool = False) -> Table:
    table = Table(
        title="\n" + title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        header_style="bold",
    )  # fmt: skip
    for column in columns:
        flexible = wrap and not column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if column.endswith(">") else "left",
                         no_wrap=not flexible, ratio=1 if flexible else None)  # fmt: skip
    return table


def _of_kind(phase: PhaseOutcome, *, is_card_bound: bool) -> list[JobOutcome]:
    return [job for job in phase.jobs if job.is_card_bound is is_card_bound]


def _change(now: float, before: float) -> str:
    """``-22%``."""
    if before <= 0:
        return ""
    percent = 100 * (now - before) / before
    return "the same" if abs(percent) < 0.5 else f"{percent:+.0f}%"


def _bar(milli: int, columns: int) -> str:
    full = round(columns * min(1000, milli) / 1000)
    return "█" * full + "░" * (columns - full) + f" {milli / 10:3.0f}%"
