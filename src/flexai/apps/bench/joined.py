"""One result of several parts that were measured one after the other on one machine at one commit."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flexai.apps.bench.frame import Goal, Row, is_not_begun

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flexai.apps.bench.frame import Add, Case

_MUST_AGREE = ("benchmark", "machine", "cards", "driver", "commit", "seed", "quick")


class Unjoinable(Exception):
    """What was named is no result, or not of one run with the others; says which and why."""


def join(
    name: str, folders: Sequence[Path], cases: Sequence[Case], into: Path | None
) -> tuple[dict[str, Any], list[Row], dict[str, str]]:
    """Document, rows and the pictures that cases drew themselves (copied ``into``), in the order of the folders.

    A case that can be added up (``Case.add``) may be in several of them, each with a seed of its own: pieces of one run
    that would be longer than a machine allows.

    Raises:
        Unjoinable: a folder holds no such result, differs from the first one in what must agree, or repeats a case.
        OSError: a picture cannot be copied.
    """
    parts = [_read(folder / f"{name}.json") for folder in folders]
    add = {case.name: case.add for case in cases if case.add is not None}
    first = parts[0]
    measured = {case for part in parts for case in part["took_s"].keys() - _not_begun(part)}
    told: set[str] = set()  # once, of those that no part had time for
    for part in parts:
        not_begun = _not_begun(part)
        _leave_out(not_begun & (measured | told), part)
        told |= not_begun
    took_s: dict[str, float] = {}
    captions: dict[str, str] = {}
    for folder, part in zip(folders, parts, strict=True):
        for key in _MUST_AGREE:
            if part[key] != first[key] and not (key == "seed" and part["took_s"].keys() <= add.keys()):
                raise Unjoinable(f"{folder} has {key} {part[key]!r}, {folders[0]} {first[key]!r}: join one run's parts")
        if twice := (took_s.keys() & part["took_s"].keys()) - add.keys():
            raise Unjoinable(f"{folder} repeats the case {min(twice)!r}: leave one out")
        for case, seconds in part["took_s"].items():
            took_s[case] = round(took_s.get(case, 0.0) + seconds, 1)
        for file, caption in part["pictures"].items():
            if not (folder / Path(file).name).is_file():
                raise Unjoinable(f"{folder} lacks its picture {file!r}: name the folder as it was written")
            captions[file] = caption
            if into is not None and (folder / file).resolve() != (into / file).resolve():
                shutil.copyfile(folder / file, into / file)
    document = {
        **first,
        "command": "; ".join(part["command"] for part in parts),
        "case": "*" if {case.name for case in cases} <= took_s.keys() else ",".join(took_s),
        "part": "1/1",
        "inputs": {file: sha for part in parts for file, sha in sorted(part["inputs"].items())},
        "took_s": took_s,
    }
    document.pop("pictures")
    rows = _added(parts, add)
    return {**document, "rows": [row.as_json() for row in rows]}, rows, captions


def _added(parts: Sequence[dict[str, Any]], add: Mapping[str, Add]) -> list[Row]:
    """All rows in order; those of a case that several parts have, added up where it was first."""
    rows = [[row_of(one) for one in part["rows"]] for part in parts]
    added: set[str] = set()
    found: list[Row] = []
    for part in rows:
        for row in part:
            pieces = [mine for other in rows if (mine := [one for one in other if one.case == row.case])]
            if row.case not in add or len(pieces) < 2:
                found.append(row)
            elif row.case not in added:
                added.add(row.case)
                found += add[row.case](pieces)
    return found


def _not_begun(part: dict[str, Any]) -> set[str]:
    """Cases that would not have ended in time, so that another part has them."""
    return {row["name"] for row in part["rows"] if row["name"] in part["took_s"] and is_not_begun(row["note"])}


def _leave_out(cases: set[str], part: dict[str, Any]) -> None:
    part["took_s"] = {case: took_s for case, took_s in part["took_s"].items() if case not in cases}
    part["rows"] = [row for row in part["rows"] if row["name"] not in cases]


def row_of(said: dict[str, Any]) -> Row:
    """A row as :meth:`Row.as_json` wrote it; a figure that was infinite or none is none."""
    goals = [Goal(words.split()[0], float(words.split()[1])) if words else None for words in
             (said["goal"], said["stretch"])]  # fmt: skip
    return Row(
        said["name"], said["conditions"], goals[0], math.nan if said["got"] is None else said["got"], said["unit"],
        said["note"], tuple(said["samples"]), goals[1], said["void"], said["data"], said.get("case", ""),
    )  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    wanted = {*_MUST_AGREE, "command", "inputs", "took_s", "rows", "pictures"}
    try:
        document: Any = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise Unjoinable(f"{file} cannot be read ({error}): name a folder that `--keep` wrote") from error
    said: dict[str, Any] = document if isinstance(document, dict) else {}
    if lacks := wanted - said.keys():
        raise Unjoinable(f"{file} lacks {', '.join(sorted(lacks))}: name a folder that `--keep` wrote")
    return said
