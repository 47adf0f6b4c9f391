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
from flexai.apps.cli.commands.jobs import asked, asked_memory
from flexai.apps.cli.commands.listing import table_of
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
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import RenderableType

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
        shown.print(picture(pool.get("/v1/top"), shown.width))
        return
    answer = pool.get("/v1/top")
    with _keys() as pressed, Live(picture(answer, shown.width), console=shown, screen=True, auto_refresh=False) as live:
        while pressed(every) not in {"q", "Q"}:
            live.update(_next_picture(pool, shown.width), refresh=True)


def _next_picture(pool: PoolClient, width: int) -> RenderableType:
    try:
        return picture(pool.get("/v1/top", timeout_s=5.0), width)
    except PoolUnreachable as error:
        return Text(f"the pool is away: {error.problem}; waiting for it", style="yellow")


def picture(answer: Mapping[str, Any], width: int) -> RenderableType:
    """All of ``GET /v1/top`` as one renderable; a narrow screen shows fewer columns."""
    cards = answer.get("devices") or []
    parts: list[RenderableType] = [_headline(answer, cards, width)]
    parts.append(_cards_table(cards, width))
    slices = [(card, entry) for card in cards for entry in card.get("slices") or ()]
    if slices:
        parts.append(_slices_table(slices, width))
    waiting = [job for job in answer.get("jobs") or () if job["state"] in {"queued", "held"}]
    if waiting:
        n_hidden = answer.get("n_jobs", 0) - len(answer["jobs"])
        parts.append(_waiting_table(waiting, n_hidden, width))
    return Group(*parts)


def _headline(answer: Mapping[str, Any], cards: list[dict[str, Any]], width: int) -> Text:
    n_cards = max(1, len(cards))
    granted = sum(card.get("compute_granted_milli", 0) for card in cards) / n_cards / 10
    busy = sum(bar_milli(card) for card in cards) / n_cards / 10
    simulated = " [yellow]simulated[/yellow]" if any(card.get("source") == "simulated" for card in cards) else ""
    status = answer.get("status") or {}
    counts = ", ".join(f"{count} {state}" for state, count in (status.get("jobs") or {}).items() if count)
    away = "" if (status.get("agent") or {}).get("connected", True) else "   [red]the agent is away[/red]"
    now = f"[bold]FlexAI[/bold]  {time.strftime('%H:%M:%S')}"
    of_cards = f"{len(cards)}{simulated} cards, {granted:.0f}% granted, {busy:.0f}% busy"
    of_jobs = f"{counts or 'no jobs'}{away}"
    line = Text.from_markup(f"{now}   {of_cards}   {of_jobs}")
    return line if len(line) <= width else Text.from_markup(f"{now}   {of_cards}\n{of_jobs}")


def bar_milli(card: Mapping[str, Any]) -> int:
    """What the slices of a card got of it in the last second, and others outside of the pool, in thousandths."""
    got = sum(entry.get("got_milli_1s") or 0 for entry in card.get("slices") or ())
    return min(1000, got + (card.get("foreign_compute_milli") or 0))


def bar(milli: float, columns: int) -> str:
    """A bar so many columns wide."""
    full = round(max(0.0, min(1000.0, milli)) * columns / 1000)
    return "█" * full + "░" * (columns - full)


Column = tuple[str, int, "Callable[[Any], object]"]
"""Title, the narrowest screen that shows it, and its cell."""


def _table(columns: Sequence[Column], items: Sequence[Any], width: int) -> RenderableType:
    shown = [column for column in columns if column[1] <= width]
    return table_of([title for title, _, _ in shown], [[cell(item) for _, _, cell in shown] for item in items])


def _cards_table(cards: list[dict[str, Any]], width: int) -> RenderableType:
    n_bar = _bar_columns(width)

    def used(card: dict[str, Any]) -> int:
        held = sum(entry.get("used_bytes") or 0 for entry in card.get("slices") or ())
        return int(held + (card.get("foreign_memory_bytes") or 0))

    columns: list[Column] = [
        ("CARD", 0, lambda card: card["index"]),
        ("MODEL<<", 0, lambda card: card["model"]),
        ("HEALTH", 100, health),
        ("BACKEND", 120, lambda card: card.get("backend")),
        ("COMPUTE", 0, lambda card: f"{bar(bar_milli(card), n_bar)} {bar_milli(card) / 10:3.0f}%"),
        ("GRANTED>", 0, lambda card: share(card.get("compute_granted_milli", 0)) or "0%"),
        ("MEMORY USED", 0, lambda card: f"{bar(1000 * used(card) / max(1, card['memory_bytes']), n_bar)} "
                                        f"{size(used(card))} / {size(card['memory_bytes'])}"),
        ("MEMORY GRANTED>", 140, lambda card: size(card.get("memory_granted_bytes", 0))),
        ("NOTE<", 160, lambda card: escape(note(card))),
    ]  # fmt: skip
    return _table(columns, cards, width)


def _slices_table(slices: list[tuple[dict[str, Any], dict[str, Any]]], width: int) -> RenderableType:
    n_bar = _bar_columns(width)
    columns: list[Column] = [
        ("CARD", 0, lambda one: one[0]["index"]),
        ("JOB", 0, lambda one: one[1]["job_id"] or "other"),
        ("NAME<<", 0, lambda one: escape(str(one[1].get("name") or ""))),
        ("USER", 170, lambda one: one[1].get("user")),
        ("CLASS", 160, lambda one: one[1].get("tenant_class")),
        ("ASKED>", 0, lambda one: share(one[1].get("asked_milli"))),
        ("LIMIT>", 125, lambda one: share(one[1].get("limit_milli"))),
        ("GOT 1 s>", 0, lambda one: share(int(one[1].get("got_milli_1s") or 0)) or "0%"),
        ("GOT 10 s", 0, lambda one: f"{bar(_got(one[1]), n_bar)} {share(_got(one[1])) or '0%'}"),
        ("DUE OF IDLE>", 125, lambda one: share(one[1].get("due_milli"))),
        ("BORROWED>", 110, lambda one: share(one[1].get("borrowed_milli") or None)),
        ("LENT>", 110, lambda one: share(lent_milli(*one) or None)),
        ("STOPPED>", 110, lambda one: share(one[1].get("stopped_milli") or None)),
        ("MEMORY", 0, lambda one: _of_cap(one[1].get("used_bytes") or 0, _cap_bytes(*one), n_bar)),
        ("", 100, lambda one: "stopped" if one[1].get("stopped") else ""),
        ("", 80, lambda one: f"[red]over cap: {one[1]['leak']}[/red]" if one[1].get("over_cap_bytes") else ""),
    ]
    return _table(columns, slices, width)


def lent_milli(card: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    """What a slice left of its own share in the last second, for want of work, and others of its card borrowed."""
    wanted, asked = entry.get("wanted_milli"), entry.get("asked_milli")
    if wanted is None or not asked:
        return 0
    borrowed = sum(other.get("borrowed_milli") or 0 for other in card.get("slices") or () if other is not entry)
    return min(int(borrowed), int(asked) * max(0, 1000 - int(wanted)) // 1000)


def _cap_bytes(card: Mapping[str, Any], entry: Mapping[str, Any]) -> int:
    return int(entry.get("memory_bytes") or card["memory_bytes"])


def _of_cap(used_bytes: int, cap_bytes: int, n_bar: int) -> str:
    """A tenant near its cap is the one that fails next: that is what the bar is for."""
    part = 1000 * used_bytes / max(1, cap_bytes)
    text = f"{bar(part, n_bar // 2 if n_bar > 5 else 0)} {size(used_bytes)} / {size(cap_bytes)}".strip()
    return f"[red]{text}[/red]" if part > 1000 else f"[yellow]{text}[/yellow]" if part >= 950 else text


def _got(entry: Mapping[str, Any]) -> int:
    """Delivered over 10 s; over 1 s while it has not run so long."""
    got = entry.get("got_milli_10s")
    return int((entry.get("got_milli_1s") if got is None else got) or 0)


def _waiting_table(waiting: list[dict[str, Any]], n_hidden: int, width: int) -> RenderableType:
    now_ms = time.time() * 1000
    items: list[dict[str, Any]] = waiting[:MAX_WAITING_SHOWN]
    n_more = len(waiting) - len(items) + n_hidden
    if n_more > 0:
        items = [*items, {"name": f"and {n_more} more"}]
    columns: list[Column] = [
        ("WAITS", 0, lambda job: job.get("id")),
        ("NAME<<", 0, lambda job: escape(str(job.get("name") or ""))),
        ("USER", 130, lambda job: job.get("user")),
        ("QUEUE", 100, lambda job: job.get("queue")),
        ("SHARE>", 0, lambda job: asked(job) if "request" in job else ""),
        ("MEMORY>", 100, asked_memory),
        ("FOR>", 0, lambda job: duration(now_ms - job["submitted_at_ms"]) if "submitted_at_ms" in job else ""),
        ("WHY<", 0, lambda job: escape(reason_text(job))),
    ]
    return _table(columns, items, width)


def _bar_columns(width: int) -> int:
    return 20 if width >= 180 else 10 if width >= 130 else 5


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
