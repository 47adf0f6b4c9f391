"""``queue list | set | delete``."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.shown import AsJson, RunDir, pool_from, share, show
from flexai.wire.errors import BadInput
from flexai.wire.quantity import parse_share
from flexai.wire.queue import MAX_WEIGHT_MILLI, check_name

if TYPE_CHECKING:
    from flexai.adapters.pool_client import PoolClient
    from flexai.apps.cli.commands.listing import Listing

SETTABLE = (
    "parent", "quota_milli", "limit_milli", "weight", "priority", "classes", "users", "user_limit_milli", "over_cap",
)  # fmt: skip
app = typer.Typer(help="Queues: quota, limit, weight, who may use them.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the queue.", show_default=False)]


@app.command("list")
def list_queues(as_json: AsJson = False, run_dir: RunDir = None) -> None:
    """List queues and what they hold."""
    queues = pool_from(run_dir).pages("/v1/queues")
    show({"items": queues}, as_json, queues_table(queues))


def queues_table(queues: list[dict[str, Any]]) -> Listing:
    """One row per queue, and one for each class of cards that it has terms for."""
    rows: list[tuple[object, ...]] = []
    for queue in queues:
        rows.append(
            (
                queue["name"], queue.get("parent"), *_terms(queue), cards(queue.get("held_milli", 0)),
                queue.get("n_running"), queue.get("n_waiting"), ", ".join(queue.get("users") or ()) or "all",
            )
        )  # fmt: skip
        rows += [(f"  {terms['device_class']}", "", *_terms(terms), *[""] * 4) for terms in queue.get("classes") or ()]
    return table_of(
        ("QUEUE<<", "PARENT??", "QUOTA>", "LIMIT>", "WEIGHT>?", "PRIORITY>??", "IN USE>", "RUNNING>", "WAITING>",
         "USERS<?"),
        rows,
    )  # fmt: skip


def _terms(of: dict[str, Any]) -> tuple[object, ...]:
    return (
        cards(of.get("quota_milli")), cards(of.get("limit_milli")), _plain_weight(of.get("weight")), of.get("priority"),
    )  # fmt: skip


def cards(milli: object) -> str:
    """2500 -> ``2.5 cards``; no limit is a dash."""
    if not isinstance(milli, int) or milli < 0:
        return "-"
    if 0 < milli < 1000:
        return share(milli)
    return "1 card" if milli == 1000 else f"{milli / 1000:g} cards"


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
    model: Annotated[
        str | None,
        typer.Option(
            help="Quota, limit, weight and priority given are of cards of this model alone, beside the queue's own.",
            metavar="NAME",
        ),
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Have no terms for this --model any more.")] = False,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Create a queue, or change what is named."""
    terms: dict[str, Any] = {
        "quota_milli": _milli(quota, "--quota"),
        "limit_milli": _milli(limit, "--limit"),
        "weight": _weight_milli(weight),
        "priority": priority,
    }
    given: dict[str, Any] = {
        "parent": parent,
        "users": user,
        "user_limit_milli": _milli(user_limit, "--user-limit"),
        "over_cap": over_cap,
    }
    terms = {key: value for key, value in terms.items() if value is not None}
    if forget and (model is None or terms):
        problem = "is given beside new terms" if terms else "is given without --model"
        raise BadInput("--forget", "", problem, "Write --model NAME --forget")
    if model is not None and not (terms or forget):
        raise BadInput("--model", model, "is given no terms", "Add --quota, --limit, --weight, --priority or --forget")
    pool = pool_from(run_dir)
    check_name(name, "queue")
    known = {queue["name"]: queue for queue in pool.pages("/v1/queues")}.get(name, {})
    body = {key: known[key] for key in SETTABLE if key in known}
    body |= {key: value for key, value in given.items() if value is not None}
    if model is None:
        body |= terms
    else:
        _warn_of_unknown(model, pool)
        classes = {one["device_class"]: one for one in body.get("classes") or ()}
        if forget and model not in classes:
            told = ", ".join(classes) or "none"
            raise BadInput("--model", model, f"has no terms in queue {name}", f"Cards with terms: {told}")
        changed = classes.pop(model, {"device_class": model}) | terms
        body["classes"] = [*classes.values(), *([] if forget else [changed])]
    answer = pool.call("PUT", f"/v1/queues/{name}", body, {})
    show(answer, as_json, f"queue {name} set" + (f" for {model}" if model else ""))


def _warn_of_unknown(model: str, pool: PoolClient) -> None:
    """Terms for cards that are not there are kept for when they are; but a name is easily mistyped."""
    there = sorted({card["model"] for card in pool.pages("/v1/devices")})
    if model not in there:
        print(f"note: this pool has no card {model!r} now; it has: {', '.join(there)}", file=sys.stderr)


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
