"""HTTP as the pool speaks it: JSON in and out, refusals with thing, value and remedy, bounded bodies."""

import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from flexai.adapters.agent_client import AgentAway, AgentRefused
from flexai.adapters.sqlite import StoreError, StoreFull
from flexai.apps.pool.identity import Peer
from flexai.wire.api import MAX_BODY_BYTES, decode_json
from flexai.wire.errors import BadInput
from flexai.wire.store import dumps

log = logging.getLogger("flexai.pool.http")

_SHOWN_CHARS = 80


class Refusal(Exception):
    """The pool will not do what was asked.

    Attributes:
        status: HTTP status.
        code: stable PascalCase code.
        message: one sentence.
        thing: what it is about.
        value: what was given.
        remedy: what would help.
    """

    def __init__(self, status: int, code: str, message: str, thing: str, value: object, remedy: str) -> None:
        self.status, self.code, self.message = status, code, message
        self.thing, self.value, self.remedy = thing, value, remedy
        super().__init__(message)


def answer(content: Any, status: int = 200) -> Response:
    """A JSON response."""
    return Response(dumps(content), status, media_type="application/json")


def refusal(status: int, code: str, message: str, thing: str, value: object, remedy: str) -> Response:
    """An error response."""
    if not isinstance(value, str | int | float | bool | None):
        value = str(value)
    fields = {"code": code, "message": message, "thing": thing, "value": value, "remedy": remedy}
    return answer(fields, status)


def peer_of_request(request: Request) -> Peer:
    """Who asks."""
    peer: Peer = request.state.peer
    return peer


def operator_only(request: Request, what: str) -> None:
    """Refuse callers that may not change the pool.

    Raises:
        Refusal: neither root nor who runs the pool.
    """
    peer = peer_of_request(request)
    if not peer.is_operator:
        remedy = "Ask who runs the pool, or root"
        raise Refusal(403, "NotAllowed", f"User {peer.user} may not {what}.", "user", peer.user, remedy)


async def body_of(request: Request) -> bytes:
    """The body of a request, read no further than the largest one allowed.

    Raises:
        Refusal: too large.
    """
    said = request.headers.get("content-length", "")
    parts, n_bytes = [], 0
    _check_size(int(said) if said.isdecimal() else 0)  # before it is sent
    async for part in request.stream():
        n_bytes += len(part)
        _check_size(n_bytes)
        parts.append(part)
    return b"".join(parts)


def _check_size(n_bytes: int) -> None:
    if n_bytes > MAX_BODY_BYTES:
        raise Refusal(
            413, "TooLarge", f"The request is larger than {MAX_BODY_BYTES} bytes.", "request body", n_bytes,
            "Send less; large inputs belong into files",
        )  # fmt: skip


async def fields_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries; none is an empty one.

    Raises:
        BadInput: not a JSON object.
    """
    body = await body_of(request)
    return decode_json(body) if body else {}


def number(request: Request, name: str, low: int, high: int, default: int) -> int:
    """A whole number out of the query string.

    Raises:
        BadInput: not one, or out of range.
    """
    given = request.query_params.get(name)
    if given is None or given == "":
        return default
    sign, digits = (-1, given[1:]) if given.startswith("-") else (1, given)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20) or not low <= sign * int(digits) <= high:
        raise BadInput(name, given[:80], f"is not a whole number from {low} to {high}", "Give a number in that range")
    return sign * int(digits)


def page_limit(request: Request, default: int, largest: int) -> int:
    """How many items a page may hold: what was asked for, up to ``largest``; the cursor leads to the rest.

    Raises:
        BadInput: not a whole number above 0.
    """
    return min(number(request, "limit", 1, 2**31, default), largest)


def install_errors(app: FastAPI) -> None:
    """Turn every failure into the pool's error body."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refusal(error.status, error.code, error.message, error.thing, error.value, error.remedy)

    @app.exception_handler(BadInput)
    async def bad_input(_: Request, error: Exception) -> Response:
        assert isinstance(error, BadInput)
        given = "" if error.value in ("", None) else f" {str(error.value)[:_SHOWN_CHARS]!r}"
        message = f"{error.thing}{given} {error.problem}."
        return refusal(400, "BadInput", message, error.thing, error.value, error.remedy)

    @app.exception_handler(StoreError)
    async def store_error(_: Request, error: Exception) -> Response:
        if isinstance(error, StoreFull):
            return refusal(
                503, "NoSpace", "The pool's disk is full; nothing was changed.", "disk", str(error),
                "Free space where the pool keeps its state, then try again",
            )  # fmt: skip
        return refusal(
            503, "StoreFailed", "The pool could not write its database; nothing was changed.", "database",
            str(error), "See the pool's log and check the disk",
        )  # fmt: skip

    @app.exception_handler(AgentAway)
    async def away(_: Request, error: Exception) -> Response:
        remedy = "Try again in a moment; `flexai status` says whether the agent is back"
        return refusal(503, "AgentAway", f"The agent cannot be asked: {error}.", "agent", None, remedy)

    @app.exception_handler(AgentRefused)
    async def agent_refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, AgentRefused)
        return refusal(409, error.code, error.message, "agent", None, error.remedy)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "Refused")
        message = f"{request.method} {request.url.path[:200]}: {error.detail}."
        return refusal(error.status_code, code, message, "path", request.url.path[:200], "See GET /openapi.json")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: Exception) -> Response:
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def our_bug(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return refusal(500, "Internal", "The pool made a mistake.", "pool", None, "See the pool's log, and report it")
