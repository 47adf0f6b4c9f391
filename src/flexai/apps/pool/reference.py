"""The reference of the API, made from its routes: ``python -m flexai.apps.pool.reference docs/reference``."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flexai.apps.pool.app import make_app

if TYPE_CHECKING:
    from flexai.apps.pool.service import Pool

_HEAD = """# API

Made from the routes themselves (`python -m flexai.apps.pool.reference docs/reference`); a test compares.
[openapi.json](openapi.json) is the same in full, with the fields of each request; a pool answers it at
`GET /openapi.json`.

HTTP/1.1 with JSON over the Unix socket `pool.sock` in the run directory. The kernel says who is calling (SO_PEERCRED):
there is no token. A user sees and changes their own jobs; root and who runs the pool see and change all.

    curl --unix-socket /run/flexai/pool.sock http://pool/v1/jobs

- **A refusal** is `{"code", "message", "thing", "value", "remedy"}` with a status of 400 and above; codes are stable.
- **A list** is `{"items", "cursor"}`: give `cursor` to have the next page, `limit` for its size; null is the end.
- **Quantities** carry their unit in their name: `_milli` thousandths of a card (or core), `_bytes`, `_ms`, `_at_ms`
  milliseconds since 1970.
- **What was acknowledged is durable**: an answer of 201 to a submission comes after its bytes are on the disk.
- **Events** are told in [events.md](events.md).

| | | what it does |
|---|---|---|
"""


def pages() -> dict[str, str]:
    """File name to content."""
    # Routes close over the pool and ask it nothing before a request comes.
    document: dict[str, Any] = make_app(cast("Pool", None)).openapi()
    rows = "".join(
        f"| {method.upper()} | `{path}` | {_sentence(operation)} |\n"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    )
    return {"openapi.json": json.dumps(document, indent=1) + "\n", "api.md": _HEAD + rows}


def _sentence(operation: dict[str, Any]) -> str:
    return " ".join(str(operation.get("description", "")).split()).replace("``", "`")


if __name__ == "__main__":
    for name, content in pages().items():
        (Path(sys.argv[1]) / name).write_text(content)
