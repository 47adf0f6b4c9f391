"""A result to keep beside the code: ``NAME.json`` for programs, ``NAME.md`` for people, and the pictures it shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import note_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flexai.apps.bench.frame import Row

_MARKS = {"void": "void", "yes": "yes", "stretch": "yes, stretch too", "no": "**no**", "": ""}


def keep(document: Mapping[str, Any], rows: Sequence[Row], pictures: Mapping[str, str], folder: Path) -> list[Path]:
    """Write both files; ``pictures`` lie in ``folder`` already (file name to caption).

    Raises:
        OSError: they cannot be written.
    """
    name = document["benchmark"]
    files = [folder / f"{name}.json", folder / f"{name}.md"]
    for stale in _pictures_of(files[0]) - pictures.keys():
        (folder / Path(stale).name).unlink(missing_ok=True)
    files[0].write_text(json.dumps({**document, "pictures": dict(pictures)}, indent=2) + "\n")
    files[1].write_text("\n".join(_page(document, rows, pictures)) + "\n")
    return files


def _pictures_of(file: Path) -> set[str]:
    """The pictures of the result that lies there, if one does."""
    try:
        return set(json.loads(file.read_text())["pictures"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _page(document: Mapping[str, Any], rows: Sequence[Row], pictures: Mapping[str, str]) -> Iterator[str]:
    name = document["benchmark"]
    yield f"# Measured: {name}"
    yield ""
    yield f"Written by the command below, not by hand. The same for programs: [{name}.json]({name}.json)."
    if document["quick"]:
        yield "\n**A quick run: shorter, rougher, and in part not judged by the goals.**"
    if document["case"] != "*":
        yield f"\n**Only the cases whose name matches `{document['case']}`.**"
    if document.get("part", "1/1") != "1/1":
        yield f"\n**Part {document['part']} of the cases.**"
    yield "\n| | |\n|---|---|"
    for key in ("command", "commit", "date", "machine", "load", "cards", "driver", "seed"):
        yield f"| {key} | {_cell(document[key])} |"
    yield f"| took | {sum(document['took_s'].values()):.0f} s |"
    for file, sha256 in document["inputs"].items():
        yield f"| input | {_cell(file)}, SHA-256 {sha256} |"
    judged = [row for row in rows if row.met is not None]
    met = sum(row.met is True for row in judged)
    yield f"\n{met} of {len(judged)} goals met; rows without a goal are reported only."
    yield "\n| figure | conditions | goal | stretch | got | unit | met |\n|---|---|---:|---:|---:|---|---|"
    for row in rows:
        got = "-" if row.got != row.got else f"{row.got:.4g}"
        goal, stretch = (str(goal or "").replace("<=", "≤").replace(">=", "≥") for goal in (row.goal, row.stretch))
        mark = _MARKS[row.verdict]
        yield f"| {_cell(row.name)} | {_cell(row.conditions)} | {goal} | {stretch} | {got} | {row.unit} | {mark} |"
    notes = [(row, note_of(row.void and f"void: {row.void}", row.note)) for row in rows]
    if any(note for _, note in notes):
        yield "\n## Notes\n"
        yield from (f"- {_cell(row.name)}, {_cell(row.conditions)}: {_cell(note)}" for row, note in notes if note)
    if pictures:
        yield "\n## Pictures"
        for file, caption in pictures.items():
            yield f"\n{_cell(caption)}\n\n![{_cell(caption)}]({file})"


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
