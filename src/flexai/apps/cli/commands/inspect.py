"""Looking in: the pool, one job's reasons, what happened, who used how much, whether all is well."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flexai.adapters.pool_client import PoolUnreachable
from flexai.apps.cli import exits
from flexai.apps.cli.commands.cards import devices_table
from flexai.apps.cli.commands.jobs import FINAL, Id
from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.queues import cards
from flexai.apps.cli.commands.shown import (
    AsJson,
    RunDir,
    console,
    duration,
    moment,
    pool_from,
    print_json,
    reason_text,
    share,
    show,
    size,
    styled_state,
)
from flexai.wire.api import check_job_id
from flexai.wire.quantity import parse_duration_ms

if TYPE_CHECKING:
    from collections.abc import Mapping


def status(as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """Say in a few lines what the pool is and does."""
    pool = pool_from(run_dir)
    answer = pool.get("/v1/status")
    if as_json:
        print_json(answer)
        return
    shown = console()
    for line in status_lines(answer):
        shown.print(line, soft_wrap=True)
    shown.print(devices_table(pool.pages("/v1/devices")))


def status_lines(answer: dict[str, Any]) -> list[str]:
    """The pool at a glance, as rich markup."""
    pool, agent = answer["pool"], answer["agent"]
    counts = ", ".join(f"{count} {state}" for state, count in answer["jobs"].items() if count) or "none"
    lines = [
        f"pool    pid {pool['pid']}, up since {moment(pool['started_at_ms'])}"
        + (", leaving" if pool.get("leaving") else ""),
        f"agent   {'connected' if agent['connected'] else '[red]away[/red]: ' + str(agent.get('message'))}"
        + ("" if agent.get("privileged") or not agent["connected"] else ", without privileges"),
        f"cards   {answer['n_devices']}",
        f"jobs    {counts}",
        f"queues  {answer['n_queues']}",
    ]
    if pool.get("store_error"):
        lines.append(f"[red]store   {escape(str(pool['store_error']))}[/red]")
    return lines + [f"note    {escape(str(note))}" for note in agent.get("notes") or ()]


def explain(job_id: Id, as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """Say why a job waits, where it came nearest, and what would help."""
    answer = pool_from(run_dir).get(f"/v1/jobs/{check_job_id(job_id)}/explain")
    if as_json:
        print_json(answer)
        return
    reason, position = answer.get("reason") or {}, answer.get("position")
    shown = console()
    place = f", number {position} in its line" if position is not None else ""
    shown.print(f"job {job_id}: {styled_state(answer['state'])}{place}")
    if reason:
        shown.print(escape(f"{reason['code']}: {reason['message']}"), soft_wrap=True)
    for over in answer.get("over_cap") or ():
        shown.print(
            f"[red]it holds {size(over['used_bytes'])} of card {escape(over['uuid'])} with a cap of "
            f"{size(over['cap_bytes'])}[/red]: {over['leak']}: {escape(over['leak_says'])}",
            soft_wrap=True,
        )
    for one in answer.get("borrows") or ():
        shown.print(escape(f"member {one['member']} is {one['says']}"), soft_wrap=True)
    if answer.get("waits_for"):
        shown.print(f"it waits for jobs {', '.join(answer['waits_for'])}")
    if answer["state"] in FINAL:
        if why := reason_text(answer.get("job") or {}):
            shown.print(escape(why), soft_wrap=True)
        return
    blockers = [_blocker(one) for one in answer.get("would_start_if_ended") or ()]
    if len(blockers) == 1:
        shown.print(escape(f"it would start without {blockers[0]}"), soft_wrap=True)
    elif blockers:
        shown.print(f"it would start without these {len(blockers)}, all together:")
        for line in blockers:
            shown.print(escape(f"  {line}"), soft_wrap=True)
    rows = [(card["index"], share(card["free_milli"]) or "0%", size(card["free_bytes"]), escape(card["says"]))
            for card in answer.get("cards") or ()]  # fmt: skip
    shown.print(table_of(("CARD", "FREE>", "FREE MEMORY>", "FOR THIS JOB~"), rows))


def _blocker(one: Mapping[str, Any]) -> str:
    """A job that is in the way, and why it stays there."""
    who = f"job {one['job_id']}" if one["job_id"] else "a job of another user"
    left = f", likely for {duration(one['left_ms'])} more" if one["left_ms"] else ""
    held = f"queue {one['queue']}, {cards(one['held_milli'])}{left}"
    return f"{who} ({held}), which stays: {one['kept_because']}"


def history(
    job_id: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Only this job.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="The latest so many.", min=1, max=1000)] = 100,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Show what happened last, oldest first."""
    path = f"/v1/jobs/{check_job_id(job_id)}/history" if job_id else "/v1/history"
    items = pool_from(run_dir).pages(path, limit, latest=1)
    rows = [
        (moment(item["at_ms"]), item.get("job_id"), item["kind"],
         escape(_flat({key: value for key, value in item.items() if key not in _SHOWN and value not in (None, {})})))
        for item in items
    ]  # fmt: skip
    show({"items": items}, as_json, table_of(("WHEN", "JOB", "WHAT", "DETAIL~"), rows))


def usage(
    since: Annotated[str, typer.Option(help="So far back, as 24h.", metavar="DURATION")] = "30d",
    by: Annotated[str, typer.Option(help="Group by user, queue, device or job, joined by commas.")] = "user,queue",
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Card-hours granted, by user and queue."""
    since_ms = int(time.time() * 1000) - parse_duration_ms(since, "--since")
    answer = pool_from(run_dir).get("/v1/usage", since_ms=since_ms, by=by)
    groups = [word for word in by.split(",") if word]
    columns = (*(word.upper() for word in groups), "JOBS>", "CARD-HOURS>", "GiB-HOURS>")
    rows = [
        (*(item[word] for word in groups), item["n_jobs"], f"{item['card_hours']:.4f}",
         f"{item['memory_gib_hours']:.2f}")
        for item in answer["items"]
    ]  # fmt: skip
    show(answer, as_json, table_of(columns, rows))


def doctor(as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Check that every part works, and say what to do where one does not.

    Where no pool answers, what can be told of this machine without one is checked.
    """
    unreachable: PoolUnreachable | None = None
    try:
        checks = pool_from(run_dir).get("/v1/doctor")["checks"]
    except PoolUnreachable as error:
        unreachable = error
        problem = f"none answers at {error.path}: {error.problem}"
        start = "Start one: `flexai up`, or name its folder: --run-dir"
        checks = [*_machine(), {"name": "pool", "ok": False, "detail": problem, "remedy": start}]
    rows = [
        (_mark(check), check["name"], escape(str(check.get("detail") or "")),
         "" if check["ok"] else escape(str(check.get("remedy") or "")))
        for check in checks
    ]  # fmt: skip
    show({"checks": checks}, as_json, table_of(("", "CHECK", "DETAIL~", "REMEDY~"), rows))
    if unreachable is not None:
        return exits.NO_POOL
    return exits.OK if all(check["ok"] or check.get("limited") for check in checks) else exits.CHECK_FAILED


def _mark(check: Mapping[str, Any]) -> str:
    """A limit that comes with being nobody special is no failure."""
    if check["ok"]:
        return "[green]ok[/green]"
    return "[yellow]limited[/yellow]" if check.get("limited") else "[red]failed[/red]"


def _machine() -> list[dict[str, Any]]:
    """What the agent would tell of this machine, were there one."""
    words = [sys.executable, "-m", "flexai.apps.agent.doctor"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=_MACHINE_WITHIN_S, check=False)
        checks: list[dict[str, Any]] = json.loads(said.stdout)["checks"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        return [{"name": "machine", "ok": False, "detail": f"could not be checked: {told}", "remedy": "Run it again"}]
    return checks


_MACHINE_WITHIN_S = 30.0
_SHOWN = frozenset({"at_ms", "job_id", "kind", "seq"})
_UNITS = {"_bytes": size, "_milli": share, "_at_ms": moment, "_ms": duration}


def _flat(value: object, name: str = "") -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_plain(key)} {_flat(inner, key)}".rstrip() for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_flat(inner) for inner in value)
    if not isinstance(value, int) or isinstance(value, bool):
        return str(value)
    if value < 0 and name.endswith("_milli"):
        return "none"
    return next((tell(value) for unit, tell in _UNITS.items() if name.endswith(unit)), str(value))


def _plain(name: str) -> str:
    """A field without its unit, which its value has: ``limit_milli`` -> ``limit``."""
    return next((name.removesuffix(unit) for unit in _UNITS if name.endswith(unit)), name).replace("_", " ")


COMMANDS = (status, explain, history, usage, doctor)
