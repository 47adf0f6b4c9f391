"""The options of a job, once: ``run`` reads them by hand, ``submit`` and the help through click, the reference by test.

Standard library only: this is on the fast path of ``run``.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flexai.adapters.settings import Settings
from flexai.wire.errors import BadInput
from flexai.wire.handed_over import handed_over
from flexai.wire.quantity import parse_duration_ms, parse_share, parse_size


class Option(NamedTuple):
    """One option: ``metavar`` is empty for a switch; ``many`` may be given again."""

    flag: str
    metavar: str
    meaning: str
    only: str = ""
    short: str = ""
    many: bool = False

    @property
    def key(self) -> str:
        """``--idle-timeout`` -> ``idle_timeout``; ``class`` is a word of Python."""
        return {"--class": "tenant_class"}.get(self.flag, self.flag.removeprefix("--").replace("-", "_"))


OPTIONS = (
    Option("--share", "SHARE", "Guaranteed share of each card, as 30% or 0.3.", short="-s"),
    Option("--memory", "SIZE", "Memory on each card, as 16Gi; the whole card's with --share 100%.", short="-m"),
    Option("--limit", "SHARE", "Most it may use when others are idle; 100% when left out."),
    Option("--class", "CLASS", "latency, guaranteed or best_effort."),
    Option("--queue", "NAME", "Queue to wait in.", short="-q"),
    Option("--devices", "N", "Cards, each with this share.", short="-d"),
    Option("--model", "NAME", "Only cards of this model; may be given again.", many=True),
    Option("--cpus", "N", "CPU cores, as 4 or 0.5."),
    Option("--ram", "SIZE", "Main memory, as 16Gi."),
    Option("--time", "DURATION", "End it after this long, as 2h30m."),
    Option("--idle-timeout", "DURATION", "End it after it has not used its card for so long."),
    Option("--priority", "N", "Higher goes first within its queue."),
    Option("--no-preempt", "", "Never end it to make room for others."),
    Option("--no-park", "", "Never move it to host memory for others: end it instead."),
    Option("--grace", "DURATION", "Time to save its work between SIGTERM and SIGKILL, as 2m."),
    Option("--name", "TEXT", "A name for people.", short="-n"),
    Option(
        "--array", "RANGE", "One job per number, as 0-9 or 0-20:5; FLEXAI_ARRAY_INDEX tells each its own.", "submit"
    ),
    Option("--after", "JOB", "Start when this job has succeeded; may be given again.", "submit", many=True),
    Option("--held", "", "Wait until `flexai release`.", "submit"),
    Option("--members", "N", "Processes, started together or not at all.", "submit"),
    Option("--min-members", "N", "Start once so many fit together, and grow to --members.", "submit"),
    Option("--checkpointable", "", "It saves its own work, so it may be moved.", "submit"),
    Option("--file", "FILE", "YAML in the shape of Kubernetes manifests; - reads standard input.", "submit", "-f"),
    Option("--json", "", "Print JSON."),
    Option("--run-dir", "FOLDER", "Folder of the pool's sockets."),
    Option("--quiet", "", "Do not say what it waits for.", "run"),
)
CLASSES = ("latency", "guaranteed", "best_effort")


def options_of(command: str) -> tuple[Option, ...]:
    """Those of ``run`` or ``submit``."""
    return tuple(option for option in OPTIONS if option.only in {"", command})


def parse_words(command: str, words: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Split a command line into options by key and the command to run.

    Raises:
        BadInput: an unknown option, or one without its value.
    """
    by_flag = {name: option for option in options_of(command) for name in (option.flag, option.short) if name}
    given: dict[str, Any] = {}
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return given, list(words[at + 1 :])
        if not word.startswith("-") or word == "-":
            return given, list(words[at:])
        flag, has_value, value = word.partition("=")
        option = by_flag.get(flag)
        if option is None:
            remedy = f"`flexai {command} --help` lists the options; put -- before a command that starts with a dash"
            raise BadInput(flag, word, f"is not an option of `flexai {command}`", remedy)
        at += 1
        if not option.metavar:
            if has_value:
                raise BadInput(flag, value, "is given to a switch", f"Write {flag} alone")
            given[option.key] = True
            continue
        if not has_value:
            if at == len(words):
                raise BadInput(flag, "", "has no value", f"Write {flag} {option.metavar}")
            value = words[at]
            at += 1
        if option.many:
            given.setdefault(option.key, []).append(value)
        else:
            given[option.key] = value
    return given, []


def job_body(kind: str, given: Mapping[str, Any], command: Sequence[str], settings: Settings) -> dict[str, Any]:
    """The body of ``POST /v1/jobs``.

    Raises:
        BadInput: an option that cannot be read; no command, or one that does not exist or hands its work to a daemon.
    """
    check_command(command, f"flexai {kind}")
    compute = parse_share(given.get("share") or settings.share)
    limit = parse_share(given["limit"], "--limit") if given.get("limit") else None
    if limit is not None and limit < compute:
        raise BadInput("--limit", given["limit"], "is below the share", "Give a limit of at least the share")
    if given.get("tenant_class") not in {None, *CLASSES}:
        raise BadInput("--class", given["tenant_class"], "is unknown", f"Use one of: {', '.join(CLASSES)}")
    body: dict[str, Any] = {
        "kind": kind,
        "command": list(command),
        "cwd": os.getcwd(),  # noqa: PTH109  the shell's own name of the folder, without resolving links twice
        "env": dict(os.environ) if kind == "submit" else {},
        "name": given.get("name") or Path(command[0]).name,
        "queue": given.get("queue") or settings.queue,
        "compute_milli": compute,
        "memory_bytes": parse_size(given["memory"]) if given.get("memory") else 0,
    }
    optional = {
        "limit_milli": limit,
        "tenant_class": given.get("tenant_class"),
        "n_devices": _whole(given, "devices", 1),
        "models": list(given.get("model") or []) or None,
        "cpu_milli": _cpus(given),
        "ram_bytes": parse_size(given["ram"], "--ram") if given.get("ram") else None,
        "time_limit_ms": parse_duration_ms(given["time"]) if given.get("time") else None,
        "idle_timeout_ms": parse_duration_ms(given["idle_timeout"], "--idle-timeout")
        if given.get("idle_timeout")
        else None,
        "priority": _whole(given, "priority", -1_000_000),
        "preemptible": False if given.get("no_preempt") else None,
        "parkable": False if given.get("no_park") else None,
        "array": given.get("array"),
        "after": list(given.get("after") or []) or None,
        "held": given.get("held") or None,
        "n_members": _whole(given, "members", 1),
        "min_member": _whole(given, "min_members", 1),
        "grace_ms": max(1, parse_duration_ms(given["grace"], "--grace")) if given.get("grace") else None,
        "checkpointable": given.get("checkpointable") or None,
    }
    if body["memory_bytes"] == 0 and compute < 1000:
        told = given.get("share") or settings.share
        raise BadInput("--memory", "", f"is missing beside --share {told}", "Give --memory 16Gi, or --share 100%")
    return body | {name: value for name, value in optional.items() if value is not None}


def check_command(command: Sequence[str], who: str) -> None:
    """See that the command exists and is one whose processes FlexAI can hold.

    Raises:
        BadInput: there is none, it does not exist, or it hands its work to somebody else.
    """
    if not command:
        raise BadInput("command", "", "is missing", f"Write it after --, as: {who} --share 100% -- python train.py")
    handed = handed_over(command)
    if handed is not None:
        raise BadInput("command", handed.client, handed.problem, handed.remedy)


def find_program(program: str, environment: Mapping[str, str]) -> str | None:
    """Path of the program as the shell would find it; None if there is none."""
    if "/" in program:
        return program if os.path.exists(program) else None  # noqa: PTH110  as below
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder or ".", program)  # noqa: PTH118  with os.path, a folder that may not be read is skipped
        if os.path.isfile(path) and os.access(path, os.X_OK):  # noqa: PTH113
            return path
    return None


def _whole(given: Mapping[str, Any], key: str, low: int) -> int | None:
    text = given.get(key)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:
        raise BadInput(f"--{key}", text, "is not a whole number", "Write for example 2") from None
    if number < low:
        raise BadInput(f"--{key}", text, f"is below {low}", f"Give at least {low}")
    return number


def _cpus(given: Mapping[str, Any]) -> int | None:
    text = given.get("cpus")
    if text is None:
        return None
    try:
        milli = round(float(text) * 1000)
    except (ValueError, OverflowError):
        raise BadInput("--cpus", text, "is not a number of cores", "Write 4 or 0.5") from None
    if milli < 1:
        raise BadInput("--cpus", text, "is not above zero", "Write 4 or 0.5")
    return milli
