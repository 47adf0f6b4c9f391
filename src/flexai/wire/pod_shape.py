"""The body of a Pod, or of a Job's template, to the fields of a submission."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flexai.model import MILLI_PER_DEVICE
from flexai.wire.errors import BadInput
from flexai.wire.fields import short
from flexai.wire.quantity import parse_duration_ms, parse_share, parse_size

_MAX_NOTES = 200
_GROUP = "flexai.io/pod-group"
_QUEUE = "flexai.io/queue"
SUBGROUP = "flexai.io/subgroup"
"""Names the subgroup of its PodGroup that a pod is of; also the key of its value among a pod's fields."""
# KAI Scheduler's names of the same two, so that pods written for it work (docs/topology/multilevel.md there).
_ALIKE = {"pod-group-name": _GROUP, "kai.scheduler/subgroup-name": SUBGROUP}
# Other vendors' names of the same three things, so that a file written for their pools works.
_ALIASES = {
    "flexai.io/xpu": ("huawei.com/vgpu-number", "nvidia.com/gpu"),
    "flexai.io/cores": ("huawei.com/vgpu-cores", "nvidia.com/gpucores"),
    "flexai.io/memory": ("huawei.com/vgpu-memory-1Gi", "nvidia.com/gpumem"),
}
_MEMORY_UNIT = {"huawei.com/vgpu-memory-1Gi": 1 << 30, "nvidia.com/gpumem": 1 << 20}


@dataclass(slots=True)
class Notes:
    """What was read and not used, each once."""

    lines: list[str] = field(default_factory=list)
    _where: str = ""
    _seen: set[str] = field(default_factory=set)

    def begin(self, where: str) -> None:
        """The notes that follow are about this document."""
        self._where = where

    def add(self, text: str) -> None:
        """One note."""
        line = f"{self._where}: {text}"
        if line in self._seen:
            return
        self._seen.add(line)
        if len(self.lines) < _MAX_NOTES:
            self.lines.append(line)
        elif len(self.lines) == _MAX_NOTES:
            self.lines.append("and more of the kind")

    def unused(self, fields: Mapping[str, Any], used: set[str], prefix: str) -> None:
        """Name the fields that nobody reads."""
        for name in fields:
            if name not in used:
                self.add(f"{prefix}{short(name)}: not used by the embedded pool")


def pod_fields(
    pod: Mapping[str, Any], where: str, defaults: Mapping[str, Any], notes: Notes
) -> tuple[dict[str, Any], str]:
    """The fields of a submission, and the name of its PodGroup or an empty text.

    Raises:
        BadInput: what is missing, or would make it another job than was written.
    """
    spec = section(pod, "spec", where)
    metadata = section(pod, "metadata", where)
    notes.unused(
        spec,
        {
            "containers",
            "activeDeadlineSeconds",
            "priority",
            "restartPolicy",
            "schedulerName",
            "terminationGracePeriodSeconds",
        },
        "spec.",
    )
    if spec.get("restartPolicy", "Never") != "Never":
        notes.add(f"spec.restartPolicy {short(spec['restartPolicy'])}: not supported; a failed job is not run again")
    containers = spec.get("containers")
    if not isinstance(containers, list) or len(containers) != 1 or not isinstance(containers[0], dict):
        given = f"{len(containers)} containers" if isinstance(containers, list) else short(containers)
        raise BadInput(
            f"{where}: spec.containers", given, "is not one container", "The embedded pool runs one command per pod"
        )
    container = containers[0]
    used = {"name", "command", "args", "env", "workingDir", "resources", "image", "imagePullPolicy"}
    notes.unused(container, used, "spec.containers[0].")
    if "image" in container:
        notes.add("image: not used by the embedded pool; the command runs on this machine")
    env = {**defaults.get("env", {}), **_env(container, where)}
    argv = words(container, "command", where) + words(container, "args", where)
    if not container.get("command"):
        raise BadInput(
            f"{where}: command", None, "is missing", "Write the command; the one inside an image is not known here"
        )
    fields: dict[str, Any] = {
        "command": [expand(word, env) for word in argv],
        "env": env,
        "cwd": container.get("workingDir") or defaults.get("cwd") or "/",
    }
    if spec.get("priority") is not None:
        fields["priority"] = spec["priority"]
    if type(deadline := spec.get("activeDeadlineSeconds")) is int:
        fields["time_limit_ms"] = deadline * 1000
    grace = spec.get("terminationGracePeriodSeconds")
    if type(grace) is int and grace >= 0:
        fields["grace_ms"] = max(1, grace * 1000)
    elif grace is not None:
        thing = f"{where}: spec.terminationGracePeriodSeconds"
        raise BadInput(thing, short(grace), "is not a number of seconds", "Write a whole number such as 30")
    fields |= _resources(section(container, "resources", where), where, notes)
    group = _annotations(metadata, fields, where, notes)
    return fields, group


def section(fields: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """An object inside an object; a missing one is empty.

    Raises:
        BadInput: something else stands there.
    """
    value = fields.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadInput(f"{where}: {name}", short(value), "is not an object", "Indent its fields under it")
    return value


def words(container: Mapping[str, Any], name: str, where: str) -> list[str]:
    """A list of words.

    Raises:
        BadInput: anything else.
    """
    value = container.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise BadInput(f"{where}: {name}", short(value), "is not a list of words", 'Write ["python", "train.py"]')
    return list(value)


def expand(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` in a command as Kubernetes expands it; ``$$(NAME)`` stands for itself without the first sign."""
    return re.sub(r"\$(\$\([^()]*\))|\$\(([^()]*)\)", lambda m: m[1] or env.get(m[2], m[0]), text)


def _env(container: Mapping[str, Any], where: str) -> dict[str, str]:
    entries = container.get("env") or []
    if not isinstance(entries, list):
        raise BadInput(f"{where}: env", short(entries), "is not a list", "Write - name: A, value: b")
    env: dict[str, str] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise BadInput(f"{where}: env", short(entry), "has no name", "Write - name: A, value: b")
        if "valueFrom" in entry:
            remedy = "Write its value; there are no secrets, config maps or pod fields to take it from"
            raise BadInput(
                f"{where}: env {short(entry['name'])}", "valueFrom", "cannot be taken from elsewhere", remedy
            )
        value = entry.get("value", "")
        if not isinstance(value, str):
            raise BadInput(f"{where}: env {short(entry['name'])}", short(value), "is not text", "Put it in quotes")
        env[entry["name"]] = expand(value, env)
    return env


def _resources(resources: Mapping[str, Any], where: str, notes: Notes) -> dict[str, Any]:
    notes.unused(resources, {"limits", "requests"}, "resources.")
    limits, requests = section(resources, "limits", where), section(resources, "requests", where)
    known = {"cpu", "memory", *_ALIASES, *(alias for names in _ALIASES.values() for alias in names)}
    notes.unused({**requests, **limits}, known, "resources ")
    asked = {name: _asked(limits, requests, name, where, notes) for name in _ALIASES}
    no_card = asked["flexai.io/xpu"][0] in (None, 0, "0") and asked["flexai.io/xpu"][0] is not False
    if no_card and asked["flexai.io/cores"][0] is None and asked["flexai.io/memory"][0] is None:
        fields: dict[str, Any] = {"n_devices": 0}
    else:
        fields = _slice(asked, where)
    host = {**limits, **requests}
    if "cpu" in host:
        fields["cpu_milli"] = _cpu(host["cpu"], f"{where}: cpu")
    if "memory" in host:
        fields["ram_bytes"] = parse_size(str(host["memory"]), f"{where}: memory")
    return fields


def asks_for_a_card(fields: Mapping[str, Any], where: str) -> None:
    """Refuse what wants no card at all.

    Raises:
        BadInput: it does; only members of a group in which others have cards may.
    """
    if fields["n_devices"] == 0:
        remedy = f"Write flexai.io/xpu: 1; only a subgroup ({SUBGROUP}) beside others that have cards may go without"
        raise BadInput(f"{where}: resources.limits", None, "asks for no card", remedy)


def _slice(asked: Mapping[str, tuple[Any, str]], where: str) -> dict[str, Any]:
    """What is asked of each card."""
    xpu, cores, memory = (asked[name] for name in _ALIASES)
    fields: dict[str, Any] = {"n_devices": _whole(xpu[0], xpu[1], where) if xpu[0] is not None else 1}
    fields["compute_milli"] = MILLI_PER_DEVICE if cores[0] is None else _cores(cores[0], cores[1], where)
    if memory[0] is not None:
        unit = _MEMORY_UNIT.get(memory[1])
        thing = f"{where}: {memory[1]}"
        fields["memory_bytes"] = (
            _whole(memory[0], memory[1], where) * unit if unit else parse_size(str(memory[0]), thing)
        )
    elif fields["compute_milli"] < MILLI_PER_DEVICE:
        raise BadInput(
            f"{where}: flexai.io/memory", None, "is missing beside flexai.io/cores", "Write flexai.io/memory: 16Gi"
        )
    return fields


def _asked(
    limits: Mapping[str, Any], requests: Mapping[str, Any], name: str, where: str, notes: Notes
) -> tuple[Any, str]:
    given = [alias for alias in (name, *_ALIASES[name]) if alias in limits or alias in requests]
    if not given:
        return None, name
    if len(given) > 1:
        raise BadInput(f"{where}: resources", ", ".join(given), "say the same thing twice", f"Write only {name}")
    if given[0] != name:
        notes.add(f"resources {given[0]}: taken for {name}")
    return limits.get(given[0], requests.get(given[0])), given[0]


def _whole(value: Any, name: str, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if type(value) is not int or not 1 <= value < 10**9:
        raise BadInput(f"{where}: {name}", short(value), "is not a whole number above 0", "Write a number such as 1")
    return value


def _cores(value: Any, name: str, where: str) -> int:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
        raise BadInput(f"{where}: {name}", short(value), "is not a per cent of a card", "Write a number from 1 to 100")
    return parse_share(f"{value:.9f}".rstrip("0").rstrip(".") + "%", f"{where}: {name}")


def _cpu(value: Any, thing: str) -> int:
    match = re.fullmatch(r"(\d{1,7}(?:\.\d{1,3})?)(m?)", str(value))
    if match is None or isinstance(value, bool):
        raise BadInput(thing, short(value), "is not a number of CPUs", "Write 2, 0.5 or 500m")
    return round(float(match[1]) * (1 if match[2] else 1000))


def _annotations(metadata: Mapping[str, Any], fields: dict[str, Any], where: str, notes: Notes) -> str:
    """Put what annotations say into ``fields``; the name of the PodGroup."""
    labels = section(metadata, "labels", where)
    annotations = section(metadata, "annotations", where)
    group = ""
    used = (_GROUP, _QUEUE, SUBGROUP, *_ALIKE)
    for given, value in {**{k: labels[k] for k in used if k in labels}, **annotations}.items():
        name = _ALIKE.get(given, given)
        if not isinstance(value, str):
            raise BadInput(f"{where}: annotation {short(name)}", short(value), "is not text", "Put it in quotes")
        if name == _GROUP:
            group = value
        elif name in _READERS:
            field_name, read = _READERS[name]
            fields[field_name] = read(value, f"{where}: {name}")
        else:
            notes.add(f"annotation {short(name)}: not used by the embedded pool")
    return group


def _text(value: str, _: str) -> str:
    return value


def _list(value: str, _: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def _truth(value: str, thing: str) -> bool:
    if value not in {"true", "false"}:
        raise BadInput(thing, short(value), "is neither true nor false", 'Write "true" or "false"')
    return value == "true"


def _number(value: str, thing: str) -> int:
    if re.fullmatch(r"-?\d{1,9}", value, re.ASCII) is None:
        raise BadInput(thing, short(value), "is not a whole number", 'Write a number in quotes, such as "10"')
    return int(value)


_READERS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    _QUEUE: ("queue", _text),
    "flexai.io/limit": ("limit_milli", parse_share),
    "flexai.io/class": ("tenant_class", lambda value, _: value.replace("-", "_")),
    "flexai.io/models": ("models", _list),
    "flexai.io/partition": ("partition", _text),
    "flexai.io/priority": ("priority", _number),
    "flexai.io/preemptible": ("preemptible", _truth),
    "flexai.io/checkpointable": ("checkpointable", _truth),
    "flexai.io/parkable": ("parkable", _truth),
    "flexai.io/hold": ("held", _truth),
    "flexai.io/time-limit": ("time_limit_ms", parse_duration_ms),
    "flexai.io/idle-timeout": ("idle_timeout_ms", parse_duration_ms),
    "flexai.io/min-runtime": ("min_runtime_ms", parse_duration_ms),
    "flexai.io/after": ("after", _list),
    "flexai.io/required-level": ("required_level", _text),
    "flexai.io/preferred-level": ("preferred_level", _text),
    "flexai.io/subgroup-size": ("subgroup_size", _number),
    "flexai.io/subgroup-level": ("subgroup_level", _text),
    SUBGROUP: (SUBGROUP, _text),
}
