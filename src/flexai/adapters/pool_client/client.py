"""Requests to the pool."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from flexai.adapters.pool_client.http1 import Answer, BrokenAnswer, ask, connected

_READ_CHUNK = 65536


class PoolUnreachable(ConnectionError):
    """Nobody answers at the socket, or the answer broke off."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"no pool answers at {path} ({problem}). Start one with `flexai up`, or give --run-dir")


class PoolRefused(RuntimeError):
    """The pool said no.

    Attributes:
        status: HTTP status, 4xx or 5xx.
        code: stable PascalCase code.
        thing, value, remedy: what the refusal is about; empty when the pool named none.
    """

    def __init__(self, status: int, answer: dict[str, Any]) -> None:
        self.status = status
        self.code = str(answer.get("code", "Unknown"))
        self.message = str(answer.get("message", f"HTTP {status}"))
        self.thing, self.value = str(answer.get("thing") or ""), answer.get("value")
        self.remedy = str(answer.get("remedy") or "")
        told = self.message.rstrip(". ")
        super().__init__(told if not self.remedy or self.remedy.rstrip(". ") in told else f"{told}. {self.remedy}")


class PoolClient:
    """Talks to the pool whose socket is ``<run_dir>/pool.sock``. It keeps nothing open, so threads may share it."""

    def __init__(self, run_dir: Path, timeout_s: float = 30.0) -> None:
        self.path = run_dir / "pool.sock"
        self.timeout_s = timeout_s

    def get(self, path: str, timeout_s: float | None = None, **query: Any) -> Any:
        """GET a JSON answer; ``query`` entries that are None are left out.

        Raises:
            PoolUnreachable: nobody answers, or not within the timeout.
            PoolRefused: the pool answered with an error.
        """
        return self.call("GET", path, None, query, timeout_s)

    def post(self, path: str, body: Any = None, timeout_s: float | None = None, **query: Any) -> Any:
        """POST JSON. Raises as :meth:`get`."""
        return self.call("POST", path, {} if body is None else body, query, timeout_s)

    def pages(self, path: str, limit: int | None = None, **query: Any) -> list[Any]:
        """All items of a paged list, or the first ``limit``. Raises as :meth:`get`."""
        items: list[Any] = []
        cursor: str | None = None
        while True:
            page = self.get(path, cursor=cursor, limit=None if limit is None else limit - len(items), **query)
            if isinstance(page, list):
                return page[:limit]
            items += page["items"]
            cursor = page.get("cursor")
            if cursor is None or (limit is not None and len(items) >= limit):
                return items

    def call(self, method: str, path: str, body: Any, query: dict[str, Any], timeout_s: float | None = None) -> Any:
        """One request, one JSON answer. Raises as :meth:`get`."""
        with self._answer(method, path, body, query, timeout_s or self.timeout_s) as response:
            return _decoded(response.read())

    def lines(self, path: str, timeout_s: float | None = None, **query: Any) -> Iterator[bytes]:
        """Lines of a streamed answer, as they arrive. Raises as :meth:`get`; also when the stream breaks off."""
        with self._answer("GET", path, None, query, timeout_s) as response:
            while line := response.readline():
                yield line.rstrip(b"\r\n")

    def chunks(self, path: str, **query: Any) -> Iterator[bytes]:
        """Bytes of a streamed answer, as they arrive. Raises as :meth:`lines`."""
        with self._answer("GET", path, None, query, None) as response:
            while chunk := response.read1(_READ_CHUNK):
                yield chunk

    @contextmanager
    def _answer(
        self, method: str, path: str, body: Any, query: dict[str, Any], timeout_s: float | None
    ) -> Iterator[Answer]:
        asked = {name: str(value) for name, value in query.items() if value is not None}
        target = quote(path, safe="/%") + (f"?{urlencode(asked)}" if asked else "")
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if payload is not None else {}
        try:
            with (
                connected(self.path, timeout_s) as connection,
                closing(ask(connection, method, target, headers, payload)) as response,
            ):
                if response.status >= 400:
                    raise PoolRefused(response.status, _refusal(response.read()))
                yield response
        except TimeoutError:
            raise PoolUnreachable(self.path, f"no answer within {timeout_s} s") from None
        except (OSError, BrokenAnswer) as error:
            raise PoolUnreachable(self.path, _problem(error)) from None


def _problem(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such socket"
    if isinstance(error, ConnectionRefusedError):
        return "the socket is stale: its pool is gone"
    if isinstance(error, PermissionError):
        return "no permission"
    return str(error) or type(error).__name__


def _refusal(content: bytes) -> dict[str, Any]:
    try:
        decoded = json.loads(content)
    except ValueError:
        return {"message": content.decode(errors="replace")[:500]}
    if isinstance(decoded, dict):
        detail = decoded.get("detail")
        return detail if isinstance(detail, dict) else decoded
    return {"message": str(decoded)[:500]}


def _decoded(content: bytes) -> Any:
    return json.loads(content) if content else None
