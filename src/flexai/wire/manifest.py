"""Manifests in the shape of Kubernetes (Pod, Job, Queue, PodGroup) to submissions and queues.

A file that works here is the file that works on a cluster later. What the embedded pool does not use (an image) or does
not support (volumes) comes back as a note that names it; what would make a job something else than was written is
refused.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flexai.model import MILLI_PER_DEVICE, Queue
from flexai.wire import api
from flexai.wire.api import Submission
from flexai.wire.errors import BadInput
from flexai.wire.fields import one_of, short
from flexai.wire.pod_group import PodGroup, group_fields, pod_group
from flexai.wire.pod_shape import SUBGROUP, Notes, asks_for_a_card, pod_fields, section
from flexai.wire.queue import decode_queue
from flexai.wire.yaml_text import load_documents

_Decoded = TypeVar("_Decoded")

MAX_DOCUMENTS = 1000
KINDS = ("Pod", "Job", "Queue", "PodGroup", "List")
GROUP = "flexai.io/pod-group"
_QUEUE_CARDS = {"quotaCards": "quota_milli", "limitCards": "limit_milli", "userLimitCards": "user_limit_milli"}
_QUEUE_PLAIN = {"parent": "parent", "weight": "weight", "priority": "priority", "users": "users"}
_QUEUE_PLAIN |= {"overCap": "over_cap"}
_CLASS_CARDS = {"quotaCards": "quota_milli", "limitCards": "limit_milli"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a text asks for; ``notes`` names what was not used."""

    queues: tuple[Queue, ...]
    submissions: tuple[Submission, ...]
    notes: tuple[str, ...]


def decode_manifest(text: str, defaults: Mapping[str, Any], thing: str = "manifest") -> Manifest:
    """Read a manifest of one or more documents.

    Args:
        text: the YAML.
        defaults: ``cwd`` and ``env`` of jobs that name none; a job's own variables come on top.
        thing: how to call it in errors, for example the file's name.

    Raises:
        BadInput: what is wrong, and in which document and field.
    """
    notes = Notes()
    queues: list[Queue] = []
    jobs: list[dict[str, Any]] = []
    groups: dict[str, PodGroup] = {}
    documents = list(_flatten(load_documents(text, thing), thing))
    if not documents:
        raise BadInput(thing, short(text), "holds no document", "Write at least one Pod, Job or Queue")
    grouped: list[tuple[str, dict[str, Any]]] = []
    for document in documents:
        kind = document.get("kind")
        if kind not in KINDS:
            raise BadInput(f"{thing}: kind", short(kind), "is not a kind that the pool knows", one_of(KINDS))
        metadata = section(document, "metadata", f"{thing}: {kind}")
        name = metadata.get("name")
        if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable():
            raise BadInput(f"{thing}: {kind}.metadata.name", short(name), "is not a name", "Give it a name")
        where = f"{kind} {name}"
        notes.begin(where)
        _check_version(document, str(kind), where)
        notes.unused(document, {"apiVersion", "kind", "metadata", "spec", "status"}, "")
        notes.unused(metadata, {"name", "labels", "annotations"}, "metadata.")
        match kind:
            case "Queue":
                queues.append(_queue(name, section(document, "spec", where), where, notes))
            case "PodGroup":
                if name in groups:
                    raise BadInput(where, name, "is there twice", "Give each group a name of its own")
                groups[name] = pod_group(section(document, "spec", where), where, notes)
            case "Pod":
                fields, group = pod_fields(document, where, defaults, notes)
                fields["name"] = name
                grouped.append((group, fields)) if group else jobs.append(_alone(fields, where))
            case _:
                fields, group = _job(document, where, defaults, notes)
                fields["name"] = name
                grouped.append((group, fields)) if group else jobs.append(_alone(fields, where))
    jobs += _gangs(groups, grouped, thing)
    submissions = tuple(_submission(fields) for fields in jobs)
    return Manifest(tuple(queues), submissions, tuple(notes.lines))


def _flatten(documents: Iterable[Any], thing: str) -> Iterable[dict[str, Any]]:
    n_documents = 0
    waiting = list(documents)[::-1]
    while waiting:
        document = waiting.pop()
        n_documents += 1
        if not isinstance(document, dict):
            raise BadInput(thing, short(document), "is not an object with kind and metadata", "Write kind: Pod, ...")
        if n_documents > MAX_DOCUMENTS:
            raise BadInput(thing, n_documents, "has too many documents", f"Send at most {MAX_DOCUMENTS} at once")
        if document.get("kind") == "List":
            items = document.get("items")
            if not isinstance(items, list):
                raise BadInput(f"{thing}: List.items", short(items), "is not a list", "Write a list of documents")
            waiting += items[::-1]
        else:
            yield document


def _check_version(document: Mapping[str, Any], kind: str, where: str) -> None:
    version = document.get("apiVersion")
    fits = {"Pod": version == "v1", "Job": version == "batch/v1"}
    fits |= dict.fromkeys(("Queue", "PodGroup"), isinstance(version, str) and version.startswith("flexai.io/"))
    fits["PodGroup"] |= isinstance(version, str) and version.startswith("scheduling.run.ai/")
    if not fits.get(kind, True):
        wanted = {"Pod": "v1", "Job": "batch/v1"}.get(kind, "flexai.io/v1alpha1")
        raise BadInput(f"{where}: apiVersion", short(version), "does not fit its kind", f"Write apiVersion: {wanted}")


def _queue(name: str, spec: dict[str, Any], where: str, notes: Notes) -> Queue:
    notes.unused(spec, {*_QUEUE_CARDS, *_QUEUE_PLAIN, "classes"}, "spec.")
    fields: dict[str, Any] = {ours: spec[theirs] for theirs, ours in _QUEUE_PLAIN.items() if theirs in spec}
    for theirs, ours in _QUEUE_CARDS.items():
        if theirs in spec:
            fields[ours] = _cards(spec[theirs], f"{where}: spec.{theirs}")
    if "classes" in spec:
        fields["classes"] = _classes(section(spec, "classes", where), where, notes)
    return _within(where, lambda: decode_queue(name, fields))


def _classes(spec: dict[str, Any], where: str, notes: Notes) -> dict[str, Any]:
    """Terms for single classes of cards: ``classes: {NVIDIA H200: {quotaCards: 4, limitCards: 8}}``."""
    out: dict[str, Any] = {}
    for name in spec:
        terms = section(spec, name, f"{where}: spec.classes")
        notes.unused(terms, {*_CLASS_CARDS, "weight", "priority"}, f"spec.classes.{short(name)}.")
        fields: dict[str, Any] = {key: terms[key] for key in ("weight", "priority") if key in terms}
        for theirs, ours in _CLASS_CARDS.items():
            if theirs in terms:
                fields[ours] = _cards(terms[theirs], f"{where}: spec.classes.{short(name)}.{theirs}")
        out[name] = fields
    return out


def _cards(value: Any, thing: str) -> int:
    """A number of cards, such as 2 or 0.5, to thousandths."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1_000_000:
        raise BadInput(thing, short(value), "is not a number of cards", "Write a number such as 2 or 0.5")
    milli = round(value * MILLI_PER_DEVICE)
    if abs(milli - value * MILLI_PER_DEVICE) > 1e-6:
        raise BadInput(thing, short(value), "is finer than a thousandth of a card", "Use steps of 0.001")
    return milli


def _job(
    document: Mapping[str, Any], where: str, defaults: Mapping[str, Any], notes: Notes
) -> tuple[dict[str, Any], str]:
    spec = section(document, "spec", where)
    notes.unused(spec, {"template", "completions", "parallelism", "completionMode", "suspend",
                        "activeDeadlineSeconds"}, "spec.")  # fmt: skip
    template = section(spec, "template", where)
    both = {**section(document, "metadata", where), **section(template, "metadata", where)}
    fields, group = pod_fields({"metadata": both, "spec": template.get("spec")}, where, defaults, notes)
    n_completions = _count(spec, "completions", where)
    n_parallel = _count(spec, "parallelism", where)
    if spec.get("completionMode", "NonIndexed") not in {"NonIndexed", "Indexed"}:
        mode = short(spec["completionMode"])
        raise BadInput(f"{where}: spec.completionMode", mode, "is unknown", "Use NonIndexed or Indexed")
    if spec.get("suspend") is True:
        fields["held"] = True
    if type(deadline := spec.get("activeDeadlineSeconds")) is int:
        fields["time_limit_ms"] = deadline * 1000
    if group:
        fields["n_members"] = n_completions or n_parallel or 1
        if 0 < n_parallel < n_completions:
            fields["most_at_once"] = n_parallel
    elif n_completions > 1:
        fields["array"] = f"0-{n_completions - 1}"
        if 0 < n_parallel < n_completions:
            notes.add("spec.parallelism: not used by the embedded pool; as many run at once as fit")
    elif n_parallel > 1:
        raise BadInput(
            f"{where}: spec.parallelism", n_parallel, "needs completions in the embedded pool",
            "Write completions too; or annotate it with a PodGroup for members that run together",
        )  # fmt: skip
    return fields, group


def _count(spec: Mapping[str, Any], name: str, where: str) -> int:
    value = spec.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 1 <= value <= api.MAX_ARRAY_ELEMENTS:
        remedy = f"Write a number from 1 to {api.MAX_ARRAY_ELEMENTS}"
        raise BadInput(f"{where}: spec.{name}", short(value), "is not a number of runs", remedy)
    return value


def _gangs(
    groups: dict[str, PodGroup], grouped: list[tuple[str, dict[str, Any]]], thing: str
) -> Iterable[dict[str, Any]]:
    """One submission for each PodGroup: its members start together."""
    for name, fields in grouped:
        if name not in groups:
            where = f"{thing}: annotation {GROUP}"
            raise BadInput(where, name, "names a PodGroup that is not in this manifest", "Write the PodGroup beside it")
        groups[name].members.append(fields)
    for name, group in groups.items():
        if not group.members:
            raise BadInput(group.where, name, "has no members", f"Annotate its pods with {GROUP}: {name}")
        yield _named({**group_fields(group), "name": name}, group.where)


def _alone(fields: dict[str, Any], where: str) -> dict[str, Any]:
    """A job of no PodGroup."""
    if SUBGROUP in fields:
        remedy = f"Annotate it with {GROUP} too"
        raise BadInput(f"{where}: {SUBGROUP}", short(fields[SUBGROUP]), "is the subgroup of no PodGroup", remedy)
    asks_for_a_card(fields, where)
    return _named(fields, where)


def _named(fields: dict[str, Any], where: str) -> dict[str, Any]:
    return {**fields, " where": where}


def _submission(fields: dict[str, Any]) -> Submission:
    where = fields.pop(" where")
    return _within(where, lambda: api.decode_submission(fields))


def _within(where: str, decode: Callable[[], _Decoded]) -> _Decoded:
    try:
        return decode()
    except BadInput as error:
        raise BadInput(f"{where}: {error.thing}", error.value, error.problem, error.remedy) from None
