"""Looking in: the pool, one job's reasons, what happened, who used how much, whether all is well."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from rich.markup import escape

from flexai.apps.cli import exits
from flexai.apps.cli.commands.cards import devices_table
from flexai.apps.cli.commands.jobs import Id  # noqa: TC001  typer reads it
from flexai.apps.cli.commands.shown import (
    AsJson,
    RunDir,
    console,
    moment,
    pool_from,
    print_json,
    show,
    size,
    table_of,
)
from flexai.wire.api import check_job_id
from flexai.wire.quantity import parse_duration_ms


def status(as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """Say in a few lines what the pool is and does."""
    pool = pool_from(run_dir)
    answer = pool.get("/v1/status")
    if as_json:
        print_json(answer)
        return
    shown = console()
    shown.print(table_of(("", "<"), [(name.replace("_", " "), escape(_flat(value))) for name, value in answer.items()]))
    shown.print(devices_table(pool.pages("/v1/devices")))


def explain(job_id: Id, as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """Say why a job waits, where it came nearest, and what would help."""
    answer = pool_from(run_dir).get(f"/v1/jobs/{check_job_id(job_id)}/explain")
    if as_json:
        print_json(answer)
        return
    reason = answer.get("reason") or {}
    shown = console()
    shown.print(f"job {job_id}: {answer.get('state', '')}")
    if reason:
        shown.print(escape(f"{reason.get('code')}: {reason.get('message')}"), soft_wrap=True)
        shown.print(
            table_of(("NUMBER", "VALUE>"), [(key, value) for key, value in (reason.get("numbers") or {}).items()])
        )
    for key, value in answer.items():
        if key not in {"reason", "state", "id"} and value not in (None, [], {}):
            shown.print(escape(f"{key.replace('_', ' ')}: {_flat(value)}"), soft_wrap=True)


def history(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Show what happened, oldest first."""
    path = f"/v1/jobs/{check_job_id(job_id)}/history" if job_id else "/v1/history"
    items = pool_from(run_dir).pages(path, limit)
    rows = [
        (moment(item.get("at_ms")), item.get("job_id", job_id), item.get("event", item.get("kind")),
         escape(str(item.get("message") or _flat({key: value for key, value in item.items() if key not in _SHOWN}))))
        for item in items
    ]  # fmt: skip
    show({"items": items}, as_json, table_of(("WHEN", "JOB", "WHAT", "DETAIL<"), rows))


def usage(
    since: Annotated[str, typer.Option(help="So far back, as 24h.", metavar="DURATION")] = "30d",
    by: Annotated[str, typer.Option(help="Group by user, queue or user,queue.")] = "user,queue",
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Card-hours by user and queue."""
    since_ms = int(time.time() * 1000) - parse_duration_ms(since, "--since")
    items = pool_from(run_dir).pages("/v1/usage", since_ms=since_ms, by=by)
    columns = ("USER", "QUEUE", "JOBS>", "CARD-HOURS GRANTED>", "CARD-HOURS USED>")
    rows = [
        (item.get("user"), item.get("queue"), item.get("n_jobs"), _hours(item, "granted"), _hours(item, "used"))
        for item in items
    ]
    show({"items": items}, as_json, table_of(columns, rows))


def doctor(as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Check that every part works, and say what to do where one does not."""
    answer = pool_from(run_dir).get("/v1/doctor")
    checks = answer if isinstance(answer, list) else answer.get("checks", answer.get("items", []))
    marks = {True: "[green]ok[/green]", False: "[red]failed[/red]"}
    rows = [
        (marks[bool(check["ok"])], check["name"], escape(str(check.get("detail") or "")),
         "" if check["ok"] else escape(str(check.get("remedy") or "")))
        for check in checks
    ]  # fmt: skip
    show({"checks": checks}, as_json, table_of(("", "CHECK", "DETAIL<", "REMEDY<"), rows))
    return exits.OK if all(check["ok"] for check in checks) else exits.CHECK_FAILED


_SHOWN = frozenset({"at_ms", "job_id", "event", "kind", "message", "seq"})


def _hours(item: dict[str, Any], what: str) -> str:
    for key, scale in ((f"card_hours_{what}", 1.0), (f"{what}_card_hours", 1.0), (f"{what}_card_ms", 1 / 3_600_000)):
        if key in item:
            return f"{item[key] * scale:.3f}"
    return f"{item['card_hours']:.3f}" if what == "granted" and "card_hours" in item else ""


def _flat(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    if isinstance(value, int) and value >= 1 << 20:
        return size(value)
    return str(value)


COMMANDS = (status, explain, history, usage, doctor)
