"""What one does with jobs: list, follow, wait, steer."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flexai.adapters.pool_client import PoolClient, PoolUnreachable
from flexai.apps.cli import exits
from flexai.apps.cli.commands.listing import table_of
from flexai.apps.cli.commands.shown import (
    AsJson,
    RunDir,
    duration,
    pool_from,
    post_each,
    print_json,
    reason_text,
    share,
    show,
    size,
    styled_state,
)
from flexai.wire.api import check_job_id
from flexai.wire.errors import BadInput
from flexai.wire.quantity import parse_share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flexai.apps.cli.commands.listing import Listing

Ids = Annotated[list[str], typer.Argument(metavar="JOB...", help="Job ids, as 17 or 17_3.", show_default=False)]
Id = Annotated[str, typer.Argument(metavar="JOB", help="Job id, as 17 or 17_3.", show_default=False)]
FINAL = frozenset({"succeeded", "failed", "cancelled"})
_AWAY_PAUSE_S = 0.5
_DONE = {"pause": "paused", "unpause": "goes on"}  # no states of their own
_AWAY_FOR_S = 300.0


def jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in these states, as running,queued or final.")] = None,
    user: Annotated[str | None, typer.Option(help="Only jobs of this user.")] = None,
    queue: Annotated[str | None, typer.Option(help="Only jobs of this queue.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 100,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """List jobs: those that have not ended in order of submission, then the latest that have; waiting ones say why."""
    items = pool_from(run_dir).pages("/v1/jobs", limit, state=state, user=user, queue=queue)
    asked = " and ".join(
        f"{what} {name!r}" for what, name in (("state", state), ("user", user), ("queue", queue)) if name
    )
    show({"items": items}, as_json, jobs_table(items) if items else f"no jobs{asked and f' of {asked}'}")


def jobs_table(items: list[dict[str, Any]]) -> Listing:
    """One row per job."""
    now_ms = time.time() * 1000
    columns = (
        "JOB", "NAME<<", "USER????", "QUEUE??", "STATE", "SHARE>", "MEMORY>??", "TIME>?", "WAITED>???", "EXIT>", "WHY<",
    )  # fmt: skip
    rows = (
        (
            job["id"], escape(str(job.get("name") or "")), job.get("user"), job.get("queue"),
            styled_state(_state(job)), asked(job), asked_memory(job), duration(_ran_ms(job, now_ms)),
            duration(_waited_ms(job, now_ms)), job.get("exit_code"), escape(reason_text(job)),
        )
        for job in items
    )  # fmt: skip
    return table_of(columns, rows)


def _state(job: Mapping[str, Any]) -> str:
    """A running job whose members are all frozen by ``flexai pause`` is paused."""
    running = [member for member in job.get("members") or () if member["state"] == "running"]
    is_paused = job["state"] == "running" and running and all(member["paused"] for member in running)
    return "paused" if is_paused else str(job["state"])


def asked(job: Mapping[str, Any]) -> str:
    """``30%`` or ``2 x 30%``; of roles those of each, as in ``10% + 30%`` or, where one wants no card, ``- + 30%``."""
    request = job.get("request", {})
    if request.get("roles"):
        return " + ".join(asked({"request": role["request"]}) for role in request["roles"])
    text = share(request.get("compute_milli"))
    n_devices = request.get("n_devices", 1)
    if n_devices == 0:
        return "-"
    return text if n_devices == 1 else f"{n_devices} x {text}"


def asked_memory(job: Mapping[str, Any]) -> str:
    """``16 GiB``, the cap on each of its cards; of roles those of each."""
    request = job.get("request", {})
    each = [role["request"] for role in request.get("roles") or ()] or [request]
    return " + ".join(filter(None, (size(one.get("memory_bytes") or None) for one in each)))


def logs(
    job_id: Id,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Print what a submitted job has written."""
    pool = pool_from(run_dir)
    path = f"/v1/jobs/{check_job_id(job_id)}/logs"
    if as_json:
        text = b"".join(pool.chunks(path, follow=1 if follow else None)).decode(errors="replace")
        print_json({"id": job_id, "log": text})
        return
    offset, away_since = 0, 0.0
    while True:
        try:
            for chunk in pool.chunks(path, follow=1 if follow else None, offset=offset):
                offset += len(chunk)
                away_since = 0.0
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        except PoolUnreachable:
            away_since = away_since or time.monotonic()
            if not follow or offset == 0 or time.monotonic() - away_since > _AWAY_FOR_S:
                raise
            time.sleep(_AWAY_PAUSE_S)
        else:
            return


def wait(
    job_ids: Ids,
    timeout: Annotated[float | None, typer.Option(help="Give up after so many seconds.", min=0.0)] = None,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> int:
    """Wait until the jobs have ended; the exit code is the first one that is not 0."""
    pool = pool_from(run_dir)
    until = None if timeout is None else time.monotonic() + timeout
    ended = []
    for job_id in job_ids:
        job = _until_final(pool, check_job_id(job_id), until)
        if job is None:
            print(f"flexai: job {job_id} has not ended within {timeout:g} s", file=sys.stderr)
            return exits.NOT_STARTED
        ended.append(job)
    if as_json:
        print_json({"items": ended})
    return next((code for code in map(_exit_code, ended) if code), exits.OK)


def _until_final(pool: PoolClient, job_id: str, until: float | None) -> dict[str, Any] | None:
    away_since = 0.0
    while True:
        left_s = 20.0 if until is None else min(20.0, until - time.monotonic())
        if left_s <= 0:
            return None
        try:
            job = pool.get(f"/v1/jobs/{job_id}/wait", timeout_s=left_s + 30, timeout_ms=int(left_s * 1000))
        except PoolUnreachable:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > _AWAY_FOR_S or not pool.path.parent.exists():
                raise
            time.sleep(_AWAY_PAUSE_S)
            continue
        if job.get("state") in FINAL:
            return dict(job)


def _exit_code(job: Mapping[str, Any]) -> int:
    code = job.get("exit_code")
    if isinstance(code, int):
        return code
    return exits.OK if job.get("state") == "succeeded" else exits.NOT_STARTED


def cancel(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """End jobs, or take them out of the queue."""
    return _each(job_ids, "cancel", as_json, run_dir)


def hold(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Keep pending jobs from starting."""
    return _each(job_ids, "hold", as_json, run_dir)


def release(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Let held jobs start."""
    return _each(job_ids, "release", as_json, run_dir)


def pause(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Stop running jobs where they are; they keep their memory."""
    return _each(job_ids, "pause", as_json, run_dir)


def unpause(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Let paused jobs go on."""
    return _each(job_ids, "unpause", as_json, run_dir)


def park(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Move running jobs to host memory; others may have their place.

    They keep all their work, and stay there until they are woken.
    """
    return _each(job_ids, "park", as_json, run_dir)


def wake(job_ids: Ids, as_json: AsJson = False, run_dir: RunDir = None) -> int:
    """Bring parked jobs back, once their cards have room.

    One whose card has none waits for it; `flexai explain` says what is missing.
    """
    return _each(job_ids, "wake", as_json, run_dir)


def resize(
    job_id: Id,
    share_text: Annotated[
        str | None, typer.Option("--share", "-s", help="New share, as 30%.", metavar="SHARE", show_default=False)
    ] = None,
    limit: Annotated[str | None, typer.Option(help="New limit, as 60%.", metavar="SHARE")] = None,
    members: Annotated[int | None, typer.Option(help="So many members of an elastic job at once.", min=1)] = None,
    role: Annotated[str | None, typer.Option(help="Of a job with roles, which is meant.", metavar="NAME")] = None,
    as_json: AsJson = False,
    run_dir: RunDir = None,
) -> None:
    """Change the share of a job, or how many of its members run.

    It may run or not. Of a job with roles name one. Members of an elastic job that are too many are stopped, the last
    first, and wait until more are wanted.
    """
    if (share_text is None) is (members is None):
        thing, value = ("--members", members) if members is not None else ("--share", None)
        remedy = "Give --share 30%, or --members 2; the one, and then the other"
        raise BadInput(thing, value, "is asked for together with --share" if members else "is missing", remedy)
    body: dict[str, Any] = {} if role is None else {"role": role}
    told = f"{members} members{f' of role {role}' if role else ''}" if members else share_text
    if members is not None:
        body["n_members"] = members
    if share_text is not None:
        body["compute_milli"] = parse_share(share_text)
    if limit is not None and share_text is None:
        raise BadInput("--limit", limit, "goes with a share", "Give --share too")
    if limit is not None:
        body["limit_milli"] = parse_share(limit, "--limit")
        if body["limit_milli"] < body["compute_milli"]:
            raise BadInput("--limit", limit, "is below the share", "Give a limit of at least the share")
    answer = pool_from(run_dir).post(f"/v1/jobs/{check_job_id(job_id)}/resize", body)
    show(answer, as_json, f"{job_id}: {told}")


def _each(job_ids: list[str], action: str, as_json: bool, run_dir: str | None) -> int:
    for job_id in job_ids:
        check_job_id(job_id)
    paths = {job_id: f"/v1/jobs/{job_id}/{action}" for job_id in job_ids}

    def told(job_id: str, answer: dict[str, Any]) -> str:
        why = reason_text(answer) if answer["state"] == "parked" and action in {"park", "wake"} else ""
        return f"{job_id}: {_DONE.get(action) or answer['state']}{f': {why}' if why else ''}"

    return post_each(pool_from(run_dir), paths, as_json, told)


def _ran_ms(job: Mapping[str, Any], now_ms: float) -> float | None:
    started = job.get("started_at_ms")
    return (job.get("finished_at_ms") or now_ms) - started if started else None


def _waited_ms(job: Mapping[str, Any], now_ms: float) -> float | None:
    submitted = job.get("submitted_at_ms")
    return (job.get("started_at_ms") or job.get("finished_at_ms") or now_ms) - submitted if submitted else None


COMMANDS = (jobs, logs, wait, cancel, hold, release, pause, unpause, park, wake, resize)
