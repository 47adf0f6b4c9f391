"""``top``: cards, slices and the queue, live; what one knows from nvidia-smi and nvitop."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from flexai.adapters.pool_client import PoolClient, PoolUnreachable
from flexai.apps.cli.commands.cards import health, note
from flexai.apps.cli.commands.jobs import asked
from flexai.apps.cli.commands.shown import (
    AsJson,
    RunDir,
    console,
    duration,
    pool_from,
    print_json,
    reason_text,
    share,
    size,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import RenderableType

BAR_COLUMNS = 20
MAX_WAITING_SHOWN = 15
_AWAY_FOR_S = 300.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Print once instead of live.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between pictures.", min=0.1, max=60.0)] = 1.0,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Show cards, slices and the queue, live; q ends it."""
    pool = pool_from(run_dir)
    if as_json:
        print_json(pool.get("/v1/top"))
        return
    shown = console()
    if once or not sys.stdout.isatty():
        shown.print(picture(pool.get("/v1/top")))
        return
    answer = pool.get("/v1/top")
    with _keys() as pressed, Live(picture(answer), console=shown, screen=True, auto_refresh=False) as live:
        while pressed(every) not in {"q", "Q"}:
            live.update(_next_picture(pool), refresh=True)


def _next_picture(pool: PoolClient) -> RenderableType:
    try:
        return picture(pool.get("/v1/top", timeout_s=5.0))
    except PoolUnreachable as error:
        return Text(f"the pool is away: {error.problem}; waiting for it", style="yellow")


def picture(answer: Mapping[str, Any]) -> RenderableType:
    """All of ``GET /v1/top`` as one renderable."""
    cards = answer.get("devices") or []
    parts: list[RenderableType] = [Text.from_markup(_headline(answer, cards))]
    parts.append(_cards_table(cards))
    slices = [(card, entry) for card in cards for entry in card.get("slices") or ()]
    if slices:
        parts.append(_slices_table(slices))
    waiting = [job for job in answer.get("jobs") or () if job["state"] in {"queued", "held"}]
    if waiting:
        n_hidden = answer.get("n_jobs", 0) - len(answer["jobs"])
        parts.append(_waiting_table(waiting, n_hidden))
    return Group(*parts)


def _headline(answer: Mapping[str, Any], cards: list[dict[str, Any]]) -> str:
    n_cards = max(1, len(cards))
    granted = sum(card.get("compute_granted_milli", 0) for card in cards) / n_cards / 10
    busy = sum(bar_milli(card) for card in cards) / n_cards / 10
    simulated = " [yellow]simulated[/yellow]" if any(card.get("source") == "simulated" for card in cards) else ""
    status = answer.get("status") or {}
    counts = ", ".join(f"{count} {state}" for state, count in (status.get("jobs") or {}).items() if count)
    away = "" if (status.get("agent") or {}).get("connected", True) else "   [red]the agent is away[/red]"
    return (
        f"[bold]FlexAI[/bold]  {time.strftime('%H:%M:%S')}   {len(cards)}{simulated} cards, {granted:.0f}% granted, "
        f"{busy:.0f}% busy   {counts or 'no jobs'}{away}"
    )


def bar_milli(card: Mapping[str, Any]) -> int:
    """What the slices of a card got of it in the last second, in thousandths."""
    return min(1000, sum(entry.get("got_milli_1s") or 0 for entry in card.get("slices") or ()))


def bar(milli: float) -> str:
    """A bar of 20 columns."""
    full = round(max(0.0, min(1000.0, milli)) * BAR_COLUMNS / 1000)
    return "█" * full + "░" * (BAR_COLUMNS - full)


def _cards_table(cards: list[dict[str, Any]]) -> RenderableType:
    def row(card: dict[str, Any]) -> tuple[object, ...]:
        used = sum(entry.get("used_bytes") or 0 for entry in card.get("slices") or ())
        used += card.get("foreign_memory_bytes") or 0
        got = bar_milli(card)
        return (
            card["index"], card["model"], health(card), card.get("backend"), f"{bar(got)} {got / 10:3.0f}%",
            share(card.get("compute_granted_milli", 0)),
            f"{bar(1000 * used / max(1, card['memory_bytes']))} {size(used)} / {size(card['memory_bytes'])}",
            size(card.get("memory_granted_bytes", 0)), note(card),
        )  # fmt: skip

    columns = ("CARD", "MODEL", "HEALTH", "BACKEND", "COMPUTE", "GRANTED>", "MEMORY USED", "GRANTED>", "NOTE<")
    return table_of(columns, map(row, cards))


def _slices_table(slices: list[tuple[dict[str, Any], dict[str, Any]]]) -> RenderableType:
    def row(card: dict[str, Any], entry: dict[str, Any]) -> tuple[object, ...]:
        got = entry.get("got_milli_10s")
        got = entry.get("got_milli_1s") if got is None else got
        asked_milli = entry.get("asked_milli", entry.get("compute_milli"))
        return (
            card["index"], entry["job_id"], escape(str(entry.get("name") or "")), entry.get("user"),
            entry.get("class", entry.get("tenant_class")), share(asked_milli), share(entry.get("limit_milli")),
            f"{bar(got or 0)} {share(got)}", _flow(entry), size(entry.get("used_bytes") or 0),
            size(entry.get("memory_bytes")), "stopped" if entry.get("stopped") else "",
        )  # fmt: skip

    columns = (
        "CARD",
        "JOB",
        "NAME",
        "USER",
        "CLASS",
        "ASKED>",
        "LIMIT>",
        "GOT (10 s)",
        "BORROWED>",
        "MEMORY>",
        "CAP>",
        "",
    )
    return table_of(columns, [row(card, entry) for card, entry in slices])


def _flow(entry: Mapping[str, Any]) -> str:
    borrowed = entry.get("borrowed_milli")
    return share(borrowed) if borrowed else ""


def _waiting_table(waiting: list[dict[str, Any]], n_hidden: int) -> RenderableType:
    now_ms = time.time() * 1000
    rows = [
        (
            job["id"], escape(str(job.get("name") or "")), job.get("user"), job.get("queue"), asked(job),
            size(job.get("request", {}).get("memory_bytes") or None), duration(now_ms - job["submitted_at_ms"]),
            escape(reason_text(job)),
        )
        for job in waiting[:MAX_WAITING_SHOWN]
    ]  # fmt: skip
    n_more = len(waiting) - len(rows) + n_hidden
    if n_more > 0:
        rows.append(("", f"and {n_more} more", "", "", "", "", "", ""))
    return table_of(("WAITS", "NAME", "USER", "QUEUE", "SHARE>", "MEMORY>", "FOR>", "WHY<"), rows)


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits for a key for some seconds, with the terminal set so that one key is enough."""
    if not sys.stdin.isatty():
        yield time.sleep
        return
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield lambda seconds: os.read(handle, 1).decode() if select.select([handle], [], [], seconds)[0] else ""
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
