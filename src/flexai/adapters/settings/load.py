"""The settings and how they are found."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flexai.wire.errors import BadInput
from flexai.wire.quantity import parse_duration_ms, parse_share

OVER_CAP = ("warn", "stop", "kill")  # as model.OVER_CAP has them; `run` reads settings and cannot wait for the model


# Neither record is a dataclass: `flexai run` waits for this module, and `dataclasses` takes 10 ms of it.
class Settings(NamedTuple):
    """What this process was told.

    Attributes:
        run_dir: sockets and shared memory.
        state_dir: what must survive a restart.
        simulate: cards to simulate, as ``h200:2``; empty for the machine's own cards.
        backend: how shares are enforced: ``auto``, ``lease`` or ``hwslice``.
        over_cap: of jobs that hold more device memory than their cap: ``warn``, ``stop`` or ``kill``.
        hostile_acts: acts against control after which a job's member is ended; 0 for never.
        queue: queue of jobs that name none.
        share: share of a card of jobs that name none, as ``30%``.
        ready_timeout_s: how long ``up`` waits for each process to answer.
        color: ``auto`` (on a terminal), ``always`` or ``never``.
        grace_ms: of the scheduler; see ``scheduling.SchedulerSettings``, as for the next six.
        reclaim: see there.
        park: see there.
        park_least_ms: see there.
        consolidate_moves: see there.
        move_cost_ms: see there.
        filters: see there; names with commas between them.
        keep_days: jobs that ended, their output and history are kept so long.
    """

    run_dir: Path
    state_dir: Path
    simulate: str = ""
    backend: str = "auto"
    over_cap: str = "warn"
    hostile_acts: int = 20
    queue: str = "default"
    share: str = "100%"
    ready_timeout_s: int = 30
    color: str = "auto"
    grace_ms: int = 30_000
    reclaim: str = "quota"
    park: str = "never"
    park_least_ms: int = 10_000
    consolidate_moves: int = 0
    move_cost_ms: int = 60_000
    filters: str = ""
    keep_days: int = 30


class Setting(NamedTuple):
    """One setting: its key in the file, its variable, and how its text is read."""

    key: str
    read: Callable[[str], Any]
    meaning: str
    default: str
    attribute: str = ""

    @property
    def field(self) -> str:
        """The attribute of ``Settings`` that it sets."""
        return self.attribute or self.key

    @property
    def variable(self) -> str:
        """The environment variable, for example ``FLEXAI_RUN_DIR``."""
        return f"FLEXAI_{self.key.upper()}"


def _path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise ValueError("is not an absolute path. Write it from / or ~")
    return path


def _seconds(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 3600:
        raise ValueError("is not a whole number of seconds from 1 to 3600. Write for example 30")
    return int(text)


def _backend(text: str) -> str:
    if text not in {"auto", "lease", "hwslice"}:
        raise ValueError("is not a choice. Write auto, lease or hwslice")
    return text


def _over_cap(text: str) -> str:
    if text not in OVER_CAP:
        raise ValueError(f"is not a choice. Write {', '.join(OVER_CAP[:-1])} or {OVER_CAP[-1]}")
    return text


def _duration(text: str) -> int:
    try:
        return parse_duration_ms(text, "duration")
    except BadInput as error:
        raise ValueError(f"{error.problem}. {error.remedy}") from None


def _share(text: str) -> str:
    try:
        parse_share(text)
    except BadInput as error:
        raise ValueError(f"{error.problem}. {error.remedy}") from None
    return text


def _moves(text: str) -> int:
    if not text.isdigit() or int(text) > 1000:
        raise ValueError("is not a whole number from 0 to 1000. Write for example 4")
    return int(text)


def _acts(text: str) -> int:
    if not text.isdigit() or int(text) > 1_000_000:
        raise ValueError("is not a whole number from 0 to 1000000. Write for example 20, or 0 for never")
    return int(text)


def _days(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 36_500:
        raise ValueError("is not a whole number of days from 1 to 36500. Write for example 30")
    return int(text)


def _reclaim(text: str) -> str:
    if text not in {"quota", "fair_share"}:
        raise ValueError("is not a choice. Write quota or fair_share")
    return text


def _park(text: str) -> str:
    if text not in {"never", "if_cheaper"}:
        raise ValueError("is not a choice. Write never or if_cheaper")
    return text


def _color(text: str) -> str:
    if text not in {"auto", "always", "never"}:
        raise ValueError("is not a choice. Write auto, always or never")
    return text


SETTINGS = (
    Setting("run_dir", _path, "folder of sockets and shared memory",
            "root: `/run/flexai`; user: `$XDG_RUNTIME_DIR/flexai`, else `<state_dir>/run`"),
    Setting("state_dir", _path, "folder of the database, logs and checkpoints",
            "root: `/var/lib/flexai`; user: `$XDG_STATE_HOME/flexai`, else `~/.local/state/flexai`"),
    Setting("simulate", str, "cards that `flexai up` simulates, as `h200:2`",
            "the machine's cards; two simulated ones where it has none"),
    Setting("backend", _backend, "how shares are enforced: `auto` (the best that works), `lease` or `hwslice`",
            "`auto`"),
    Setting("over_cap", _over_cap, "what becomes of a job that holds more device memory than its cap: `warn` (it is "
            "told of), `stop` (frozen where it is, as by `flexai pause`) or `kill`; a queue can say otherwise",
            "`warn`"),
    Setting("hostile_acts", _acts, "a member of a job is ended after so many acts against control (it resumed"
            " itself while stopped, or changed its time slice); before, it is stopped again and frozen; `0` for never",
            "`20`"),
    Setting("queue", str, "queue of jobs that name none", "`default`"),
    Setting("share", _share, "share of a card of jobs that name none", "`100%`"),
    Setting("ready_timeout_s", _seconds, "how long `flexai up` waits for each process to answer", "`30`"),
    Setting("color", _color, "`auto` (colour on a terminal), `always` or `never`", "`auto`"),
    Setting("grace", _duration, "of the pool: time between SIGTERM and SIGKILL of jobs that say nothing else", "`30s`",
            "grace_ms"),
    Setting("reclaim", _reclaim, "of the pool: what a queue may take back from others: its `quota`, or its `fair_share`"
            " where that is larger", "`quota`"),
    Setting("park", _park, "of the pool: `if_cheaper`: a job that must give way is moved to host memory, where that"
            " costs it less than a restart, and back; `never`: it is ended and starts again", "`never`"),
    Setting("park_least", _duration, "of the pool: a job that was moved to host memory stays there so long at least",
            "`10s`", "park_least_ms"),
    Setting("consolidate", _moves, "of the pool: so many checkpointable jobs may be moved at a time to gather free"
            " cards for one that waits; `0` for none", "`0`", "consolidate_moves"),
    Setting("move_cost", _duration, "of the pool: what a move costs a job beside its grace; a job is moved only for one"
            " that has waited for as much card time", "`60s`", "move_cost_ms"),
    Setting("filters", str, "of the pool: filters in use, with commas between their names"
            " ([add one](../how-to/add-a-filter.md))", "none"),
    Setting("keep_days", _days, "of the pool: so many days jobs that ended, their output and their history are kept",
            "`30`"),
)  # fmt: skip
_BY_KEY = {setting.key: setting for setting in SETTINGS}


def config_files(environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Files that are read, the stronger one last."""
    home = environment.get("XDG_CONFIG_HOME") or str(_home(environment) / ".config")
    return (Path("/etc/flexai/config.toml"), Path(home) / "flexai/config.toml")


def load_settings(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    files: tuple[Path, ...] | None = None,
) -> Settings:
    """Read files, environment and flags; the last one that names a setting wins.

    Raises:
        BadInput: a value that cannot be read, or a key in a file that is no setting; names file and key.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for file in config_files(environment) if files is None else files:
        values |= _from_file(file)
    for setting in SETTINGS:
        if environment.get(setting.variable):
            values[setting.field] = _read(setting, environment[setting.variable], setting.variable)
    for key, text in (flags or {}).items():
        if text is not None:
            values[_BY_KEY[key].field] = _read(_BY_KEY[key], text, "--" + key.replace("_", "-"))
    state_dir = values.setdefault("state_dir", _default_state_dir(environment))
    values.setdefault("run_dir", _default_run_dir(environment, state_dir))
    return Settings(**values)


def _from_file(file: Path) -> dict[str, Any]:
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise BadInput(str(file), error.strerror, "cannot be read", "Make it readable, or remove it") from None
    import tomllib  # noqa: PLC0415  only who has a file pays for its parser

    try:
        table = tomllib.loads(content.decode())
    except ValueError as error:
        raise BadInput(str(file), str(error), "is not TOML", "Write lines such as: queue = 'team-a'") from None
    values = {}
    for key, value in table.items():
        if key not in _BY_KEY:
            known = ", ".join(sorted(_BY_KEY))
            raise BadInput(f"{file}: {key}", value, "is not a setting", f"Known settings: {known}")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise BadInput(f"{file}: {key}", value, "is not text or a number", f"Write {key} = '...'")
        values[_BY_KEY[key].field] = _read(_BY_KEY[key], str(value), f"{file}: {key}")
    return values


def _read(setting: Setting, text: str, thing: str) -> Any:
    try:
        return setting.read(text)
    except ValueError as error:
        problem, _, remedy = str(error).partition(". ")
        raise BadInput(thing, text, problem, remedy) from None


def _home(environment: Mapping[str, str]) -> Path:
    return Path(environment["HOME"]) if environment.get("HOME") else Path.home()


def _default_state_dir(environment: Mapping[str, str]) -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/flexai")
    base = environment.get("XDG_STATE_HOME") or str(_home(environment) / ".local/state")
    return Path(base) / "flexai"


def _default_run_dir(environment: Mapping[str, str], state_dir: Path) -> Path:
    if os.geteuid() == 0:
        return Path("/run/flexai")
    base = environment.get("XDG_RUNTIME_DIR")
    return Path(base) / "flexai" if base else state_dir / "run"
