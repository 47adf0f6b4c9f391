"""Cards: what there is, who is on them, and taking one out of service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape

from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.shown import AsJson, RunDir, pool_from, post_each, share, show, size

if TYPE_CHECKING:
    from flexai.apps.cli.commands.listing import Listing

Cards = Annotated[list[str], typer.Argument(metavar="CARD...", help="Index or UUID.", show_default=False)]


def devices(as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """List cards and their slices."""
    pool = pool_from(run_dir)
    answer = pool.pages("/v1/devices")
    slices = [(card, entry) for card in answer for entry in card.get("slices") or ()]
    cards = devices_table(answer)
    show({"items": answer}, as_json, Group(cards, "", slices_table(slices)) if slices else cards)


def devices_table(cards: list[dict[str, Any]]) -> Listing:
    """One row per card."""
    return table_of(
        ("CARD", "MODEL", "UUID????", "HEALTH", "BACKEND??", "GRANTED>", "MEMORY>", "OF>?", "OUTSIDE>??", "SLICES>??",
         "NOTE<???"),
        (
            (
                card["index"], card["model"], card["uuid"], health(card), card.get("backend"),
                share(card.get("compute_granted_milli", 0)), size(card.get("memory_granted_bytes", 0)),
                size(card["memory_bytes"]), outside(card),
                len(card.get("slices") or ()), note(card),
            )
            for card in cards
        ),
    )  # fmt: skip


def slices_table(slices: list[tuple[dict[str, Any], dict[str, Any]]]) -> Listing:
    """One row for each slice of a card."""
    return table_of(
        ("CARD", "JOB", "NAME<<", "USER?", "CLASS??", "ASKED>", "LIMIT>??", "GOT 10 s>", "MEMORY>", "USED>?"),
        (
            (
                card["index"], entry["job_id"] or "other", escape(str(entry.get("name") or "")), entry.get("user"),
                entry.get("tenant_class"), share(entry.get("asked_milli")), share(entry.get("limit_milli")),
                share(int(entry.get("got_milli_10s") or 0)) or "0%", size(entry.get("memory_bytes")),
                size(int(entry.get("used_bytes") or 0)),
            )
            for card, entry in slices
        ),
    )  # fmt: skip


def outside(card: dict[str, Any]) -> str:
    """What processes that the pool did not start hold and use of a card: ``30 GiB, 76%``."""
    held, used = card.get("foreign_memory_bytes") or 0, card.get("foreign_compute_milli") or 0
    return ", ".join([size(held)] * bool(held) + [share(used)] * bool(used))


def health(card: dict[str, Any]) -> str:
    """``healthy``, ``cordoned`` or what is wrong."""
    return "cordoned" if card.get("cordoned") else str(card.get("health", ""))


def note(card: dict[str, Any]) -> str:
    """Simulated cards say so in every view; how long a tenant waits for its turn, where several take turns."""
    round_ms = card.get("round_ms") or 0
    turns = f"rounds of {round_ms:.0f} ms" if round_ms else ""
    texts = ["simulated" if card.get("source") == "simulated" else "", turns, str(card.get("note") or "")]
    return "; ".join(text for text in texts if text)


def cordon(cards: Cards, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Start nothing new on a card."""
    return _each(cards, "cordon", as_json, run_dir)


def uncordon(cards: Cards, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Put a card back into service."""
    return _each(cards, "uncordon", as_json, run_dir)


def drain(cards: Cards, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Start nothing new on a card and move or end what runs there."""
    return _each(cards, "drain", as_json, run_dir)


def _each(cards: list[str], action: str, as_json: bool, run_dir: str | None) -> int:
    done = "draining" if action == "drain" else f"{action}ed"
    paths = {card: f"/v1/devices/{card}/{action}" for card in cards}
    return post_each(pool_from(run_dir), paths, as_json, lambda card, _: f"card {card}: {done}")


COMMANDS = (devices, cordon, uncordon, drain)
