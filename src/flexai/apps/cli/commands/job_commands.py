"""``submit``, and ``run`` as the help and the completion see it: both from the one table of job options."""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexai.apps.cli.commands.shown import pool_from, print_json, settings_from
from flexai.apps.cli.job_options import Option, find_program, job_body, options_of
from flexai.wire.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

_NEVER = frozenset({"TooLarge", "NoSuchDevice"})
_HELP = {
    "run": "Wait for a slice, then run a command in it as your own child: terminal, signals and exit code are yours.",
    "submit": "Queue a command; the pool runs it as you and keeps its output.",
}


def job_command(kind: str) -> Callable[..., int]:
    """The function that typer makes ``run`` or ``submit`` of: its parameters are those of the table."""

    def call(**given: Any) -> int:
        command = tuple(given.pop("command") or ())
        return _submit(command, **given) if kind == "submit" else _run()

    parameters = [_parameter(option) for option in options_of(kind)]
    words = Annotated[list[str] | None, typer.Argument(metavar="COMMAND...", help="What to run.", show_default=False)]
    parameters.append(inspect.Parameter("command", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=words))
    call.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    call.__name__, call.__doc__ = kind, _HELP[kind]
    return call


def _parameter(option: Option) -> inspect.Parameter:
    names = [name for name in (option.flag, option.short) if name]
    kind: Any = bool if not option.metavar else (list[str] | None if option.many else str | None)
    asked = typer.Option(*names, help=option.meaning, metavar=option.metavar or None, show_default=False)
    return inspect.Parameter(
        option.key,
        inspect.Parameter.KEYWORD_ONLY,
        default=None if option.metavar else False,
        annotation=Annotated[kind, asked],
    )


def _run() -> int:
    """Reached only when the tree is driven from within; the words are those of this process."""
    from flexai.apps.cli.run import run  # noqa: PLC0415  the tree names `run` for help and completion only

    return run(sys.argv[2:])


def _submit(command: tuple[str, ...], **given: Any) -> int:
    pool = pool_from(given["run_dir"])
    if given["file"]:
        if command:
            raise BadInput("command", " ".join(command), "is given beside --file", "Give one of the two")
        body = {"yaml": _manifest(given["file"]), "cwd": str(Path.cwd()), "env": dict(os.environ)}
        answer = pool.post("/v1/manifests", body if given["file"] == "-" else body | {"file": given["file"]}, decided=1)
    else:
        body = job_body("submit", given, command, settings_from(given["run_dir"]))
        if find_program(command[0], os.environ) is None:
            raise BadInput("command", command[0], "does not exist", "Give a program on PATH, or its path")
        answer = pool.post("/v1/jobs", body, decided=1)
    if given["json"]:
        print_json(answer)
        return 0
    for job_id in answer["ids"]:
        print(job_id)
    for queue in answer.get("queues") or ():
        print(f"queue {queue} set", file=sys.stderr)
    for note in (*(answer.get("notes") or ()), *_never_start(answer.get("items") or ())):
        print(f"note: {note}", file=sys.stderr)
    return 0


def _never_start(jobs: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What the cards of this pool can never give, said at once; it is kept, for cards may come."""
    seen: set[str] = set()
    for job in jobs:
        reason = job.get("reason") or {}
        message = str(reason.get("message"))
        if reason.get("code") in _NEVER and message not in seen:
            seen.add(message)
            whole = job["id"].partition("_")[0]
            yield f"job {job['id']} waits: {message} Take it back: `flexai cancel {whole}`"


def _manifest(name: str) -> str:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        text.encode()  # what was no UTF-8 on standard input came as lone surrogates
    except OSError as error:
        raise BadInput("--file", name, f"cannot be read ({error.strerror})", "Name a YAML file") from None
    except UnicodeError:
        raise BadInput("--file", name, "is not UTF-8 text", "Name a YAML file") from None
    return text
