"""``timeline``: who had which card for some seconds, as a trace file and as a table."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexai.adapters.pool_client import PoolClient, PoolUnreachable
from flexai.adapters.shm import TimelineFile, UsageFile
from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.shown import AsJson, RunDir, console, print_json, settings_from
from flexai.wire.chrome_trace import NOBODY, chrome_trace
from flexai.wire.errors import BadInput
from flexai.wire.timeline import Kind, spans

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flexai.apps.cli.commands.listing import Listing
    from flexai.wire.timeline import Record, Span

_LOOK_EVERY_S = 0.1
_SILENT_NS = 2_000_000_000
_VIEWER = "https://ui.perfetto.dev"


def timeline(
    seconds: Annotated[float, typer.Argument(help="How long to record.", min=0.01, max=600.0)] = 5.0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Trace to write, in the format of Chrome and Perfetto.")
    ] = Path("flexai-timeline.json"),
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Record who has each card for some seconds, or until Ctrl-C: a trace for Perfetto or Chrome, and a table."""
    folder = settings_from(run_dir).run_dir
    ring = TimelineFile(folder / "timeline")
    if not ring.exists:
        raise PoolUnreachable(folder, "no arbiter has written a timeline there")
    cards, names = _known(folder)
    if not cards and not _is_written(folder):
        raise PoolUnreachable(folder, "nothing writes the timeline that is there")
    try:
        file = output.open("w")  # before the recording, which would be lost
    except OSError as error:
        words = f"cannot be written: {error.strerror}"
        raise BadInput("--output", str(output), words, "Name another file") from None
    told = ring.read()
    begin_ns = time.monotonic_ns()
    _record(ring, told, begin_ns, seconds)
    end_ns = time.monotonic_ns()
    seen = {record.device for record in told if record.device} - {uuid for uuid, _ in cards}
    cards += [(uuid, uuid) for uuid in sorted(seen)]
    found = spans(told, begin_ns, end_ns)
    with file:
        json.dump(chrome_trace(found, begin_ns, cards, names), file)
    lost = sum(record.context for record in told if record.kind is Kind.LOST and record.at_ns >= begin_ns)
    rows = _rows(found, end_ns - begin_ns, cards, names)
    if as_json:
        answer = {"seconds": (end_ns - begin_ns) / 1e9, "file": str(output), "tenants": rows}
        print_json(answer | {"n_missed": ring.n_missed, "n_lost_by_the_driver": lost})
        return
    shown = console()
    shown.print(_table(rows))
    if not rows:
        shown.print("No card was used: run something meanwhile, as `flexai run --share 50% -- PROGRAM`.")
    for n, what in ((ring.n_missed, "came faster than they could be read"), (lost, "were dropped by the driver")):
        if n:
            shown.print(f"{n} records {what}: around them the trace has gaps. Record for a shorter time.")
    shown.print(f"Wrote {output}: open it at {_VIEWER} (it stays on your machine), or in chrome://tracing.")


def _record(ring: TimelineFile, told: list[Record], begin_ns: int, seconds: float) -> None:
    status = console().status("") if seconds > 2 and console().is_terminal else None
    if status:
        status.start()
    try:
        while (past_s := (time.monotonic_ns() - begin_ns) / 1e9) < seconds:
            if status:
                status.update(f"recording: {past_s:.0f} of {seconds:g} s")
            time.sleep(min(_LOOK_EVERY_S, seconds - past_s))
            told += ring.read()
    except KeyboardInterrupt:  # enough: what there is gets written
        told += ring.read()
    finally:
        if status:
            status.stop()


def _known(folder: Path) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Cards and tenants by the names that people know; what the ring says when the pool does not answer."""
    pool = PoolClient(folder)
    try:
        devices, jobs = pool.pages("/v1/devices"), pool.pages("/v1/jobs")
    except PoolUnreachable:
        return [], {}
    cards = [(card["uuid"], f"card {card['index']}: {card['model']}") for card in devices]
    names = {f"{job['id']}.{n}": _job_name(job, n) for job in jobs for n in range(len(job.get("members") or ()))}
    return cards, names


def _is_written(folder: Path) -> bool:
    """Whether the arbiter lives, without a pool: it publishes its figures every 100 ms."""
    usage = UsageFile(folder / "usage").read()
    return usage is None or time.monotonic_ns() - usage.heartbeat_ns < _SILENT_NS


def _job_name(job: dict[str, Any], member: int) -> str:
    return f"{job['id']} {job['name']}" + (f", member {member}" if len(job["members"]) > 1 else "")


def _rows(
    found: Iterable[Span], window_ns: int, cards: list[tuple[str, str]], names: dict[str, str]
) -> list[dict[str, Any]]:
    lengths: defaultdict[tuple[str, str], defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for span in found:
        lengths[span.device, span.tenant][span.what].append(span.end_ns - span.begin_ns)
    titles = dict(cards)
    return [
        {
            "device": uuid,
            "card": titles[uuid],
            "tenant": names.get(tenant, tenant) or NOBODY,
            "had_milli": round(1000 * sum(did["runs"] or did["idle"]) / window_ns, 1),
            "n_runs": len(did["runs"] or did["idle"]),
            "longest_run_ms": max(did["runs"] or did["idle"] or [0]) / 1e6,
            "n_turns": len(did["turn"]),
            "stopped_milli": round(1000 * sum(did["stopped"]) / window_ns, 1),
            "longest_stop_ms": max(did["stopped"], default=0) / 1e6,
        }
        for (uuid, tenant), did in sorted(lengths.items(), key=lambda one: (one[0][0], one[0][1] == "", one[0][1]))
    ]


def _table(rows: list[dict[str, Any]]) -> Listing:
    return table_of(
        ("CARD", "TENANT", "HAD>", "TIMES>", "LONGEST>", "TURNS>", "STOPPED>", "LONGEST STOP>"),
        (
            (
                row["card"], row["tenant"], f"{row['had_milli'] / 10:.2f}%", row["n_runs"],
                f"{row['longest_run_ms']:.1f} ms", row["n_turns"] or "", f"{row['stopped_milli'] / 10:.2f}%",
                f"{row['longest_stop_ms']:.1f} ms",
            )
            for row in rows
        ),
    )  # fmt: skip
