"""``queue list | set | delete``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.shown import AsJson, RunDir, pool_from, share, show
from flexai.wire.api import MAX_WEIGHT_MILLI, check_name
from flexai.wire.errors import BadInput
from flexai.wire.quantity import parse_share

if TYPE_CHECKING:
    from flexai.apps.cli.commands.listing import Listing

app = typer.Typer(help="Queues: quota, limit, weight, who may use them.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the queue.", show_default=False)]


@app.command("list")
def list_queues(as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """List queues and what they hold."""
    queues = pool_from(run_dir).pages("/v1/queues")
    show({"items": queues}, as_json, queues_table(queues))


def queues_table(queues: list[dict[str, Any]]) -> Listing:
    """One row per queue."""
    return table_of(
        ("QUEUE", "PARENT??", "QUOTA>", "LIMIT>", "WEIGHT>?", "PRIORITY>??", "IN USE>", "RUNNING>", "WAITING>",
         "USERS<?"),
        (
            (
                queue["name"], queue.get("parent"), cards(queue.get("quota_milli")), cards(queue.get("limit_milli")),
                _plain_weight(queue.get("weight")), queue.get("priority"), cards(queue.get("held_milli", 0)),
                queue.get("n_running"), queue.get("n_waiting"), ", ".join(queue.get("users") or ()) or "all",
            )
            for queue in queues
        ),
    )  # fmt: skip


def cards(milli: object) -> str:
    """2500 -> ``2.5 cards``; no limit is a dash."""
    if not isinstance(milli, int) or milli < 0:
        return "-"
    return f"{milli / 1000:g} cards" if milli >= 1000 or milli == 0 else share(milli)


@app.command("set")
def set_queue(
    name: Name,
    parent: Annotated[str | None, typer.Option(help="Queue it lies under.", metavar="NAME")] = None,
    quota: Annotated[str | None, typer.Option(help="Guaranteed, as 2 (cards) or 30%.", metavar="CARDS")] = None,
    limit: Annotated[str | None, typer.Option(help="At most, as 4 or 50%; none for no limit.", metavar="CARDS")] = None,
    weight: Annotated[
        str | None, typer.Option(help="Part of what is left over: 2 is twice the usual 1, 0.5 half.", metavar="NUMBER")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Higher is served first.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="Only these users; may be given again.")] = None,
    user_limit: Annotated[str | None, typer.Option(help="At most per user, as 1 or 50%.", metavar="CARDS")] = None,
    over_cap: Annotated[
        str | None, typer.Option(help="Of jobs over their cap of device memory: warn, stop or kill.", metavar="ACTION")
    ] = None,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Create a queue, or change what is named."""
    given = {
        "parent": parent,
        "quota_milli": _milli(quota, "--quota"),
        "limit_milli": _milli(limit, "--limit"),
        "weight": _weight_milli(weight),
        "priority": priority,
        "users": user,
        "user_limit_milli": _milli(user_limit, "--user-limit"),
        "over_cap": over_cap,
    }
    pool = pool_from(run_dir)
    check_name(name, "queue")
    known = {queue["name"]: queue for queue in pool.pages("/v1/queues")}.get(name, {})
    body = {key: known[key] for key in (*given, "classes") if key in known}
    body |= {key: value for key, value in given.items() if value is not None}
    answer = pool.call("PUT", f"/v1/queues/{name}", body, {})
    show(answer, as_json, f"queue {name} set")


@app.command("delete")
def delete_queue(name: Name, as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """Delete an empty queue."""
    answer = pool_from(run_dir).call("DELETE", f"/v1/queues/{check_name(name, 'queue')}", None, {})
    show(answer, as_json, f"queue {name} deleted")


def _plain_weight(milli: object) -> str | None:
    """The API's thousandths as people give them: 1500 -> ``1.5``."""
    return f"{milli / 1000:.3f}".rstrip("0").rstrip(".") if isinstance(milli, int) else None


def _weight_milli(text: str | None) -> int | None:
    """``2`` or ``0.5`` times the usual weight, in thousandths of it, as the API has it."""
    if text is None:
        return None
    plain = re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,3})?", text) is not None
    milli = round(float(text) * 1000) if plain else -1
    if not 0 <= milli <= MAX_WEIGHT_MILLI:
        problem = "is not a weight from 0 to 1000000, in steps of 0.001"
        raise BadInput("--weight", text, problem, "Write 2 for twice the usual weight of 1, 0.5 for half of it")
    return milli


def _milli(text: str | None, thing: str) -> int | None:
    """``2`` cards, ``2.5`` cards or ``30%`` of one, in thousandths; ``none`` is -1."""
    if text is None:
        return None
    if text == "none":
        return -1
    try:
        return parse_share(text, thing) if text.endswith("%") else round(float(text) * 1000)
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(thing, text, "is not a number of cards", "Write 2, 2.5, 30% or none") from None
