"""What every HTTP service of the pool has in common: correlation, bounds, access, problems."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ppn.errors import PpnError, Refusal
from ppn.log import bound_contextvars, get_logger
from ppn.wire.bodies import whole_body
from ppn.wire.model import CORRELATION_HEADER, CORRELATION_PATTERN, Malformed
from ppn.wire.problems import MEDIA_TYPE, problem_of, status_of

MAX_BODY_BYTES = 4 * 1024 * 1024
# What a client is told beside the problem.
HEADERS_OF_STATUS = {
    401: {"WWW-Authenticate": "Bearer"},
    429: {"Retry-After": "1"},
    503: {"Retry-After": "5"},
}

# Lets a request through by its source address and path, or raises a refusal.
Gate = Callable[[str, str], None]

log = get_logger("http")


class Edge:
    """The outermost layer of a service: every request passes it and leaves one log line.

    Args:
        app: the service.
        gate: says who may ask what.
        max_body: bytes a body may have; None where the service itself reads them, once it knows
            whose they are.
    """

    def __init__(self, app: ASGIApp, gate: Gate, max_body: int | None = MAX_BODY_BYTES) -> None:
        self._app = app
        self._gate = gate
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        correlation_id = _correlation_id(scope)
        scope.setdefault("state", {})["correlation_id"] = correlation_id
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                header = (CORRELATION_HEADER.lower().encode(), correlation_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        source = scope["client"][0] if scope.get("client") else ""
        with bound_contextvars(correlation_id=correlation_id):
            try:
                _check_path(scope["path"])
                self._gate(source, scope["path"])
                if self._max_body is not None:
                    receive = await whole_body(receive, self._max_body, _uncounted)
                await self._app(scope, receive, answer)
            except Refusal as refusal:
                await problem_response(refusal, correlation_id)(scope, receive, answer)
            finally:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    source=source,
                    status=status,
                    milliseconds=round((time.monotonic() - started) * 1000, 1),
                )


def _uncounted(_: int) -> None:
    """Each body has its own bound, and the callers are few."""


def correlation_of(request: Request) -> str:
    """The correlation id of a request that passed the edge."""
    return str(request.state.correlation_id)


def problem_response(error: PpnError, correlation_id: str) -> Response:
    """An error as a response (RFC 9457)."""
    problem = problem_of(error, correlation_id=correlation_id)
    return Response(
        problem.model_dump_json(exclude_defaults=True),
        status_code=status_of(error),
        media_type=MEDIA_TYPE,
        headers=HEADERS_OF_STATUS.get(problem.status),
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Make every error of a service a problem body."""

    @app.exception_handler(PpnError)
    async def ours(request: Request, error: PpnError) -> Response:
        if not isinstance(error, Refusal):
            log.warning("failed", code=error.code, error=error.message)
        return problem_response(error, correlation_of(request))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        log.error("broke off", method=request.method, path=request.url.path, exc_info=error)
        failure = PpnError(
            "the service failed in a way nobody foresaw",
            code="internal",
            hint="see the service's log for the correlation id",
        )
        return problem_response(failure, correlation_of(request))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [
            f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in error.errors()
        ]
        refusal = Malformed(
            "the request breaks the contract: " + "; ".join(found[:20]),
            code="request_invalid",
            constraint="wire contract",
            hint="see /openapi.json",
        )
        return problem_response(refusal, correlation_of(request))

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> Response:
        code = {404: "route_unknown", 405: "method_unknown"}.get(error.status_code)
        refusal = Malformed(
            f"{request.method} {request.url.path}: {error.detail}",
            code=code or "request_invalid",
            constraint="wire contract",
            hint="see /openapi.json",
        )
        response = problem_response(refusal, correlation_of(request))
        response.headers.update(error.headers or {})
        return response


def _correlation_id(scope: Scope) -> str:
    """The caller's correlation id when it is a sound one, else a new one."""
    for name, value in scope["headers"]:
        if name == CORRELATION_HEADER.lower().encode():
            text = value.decode("latin-1")
            if re.fullmatch(CORRELATION_PATTERN, text):
                return str(text)
    return secrets.token_hex(16)


def _check_path(path: str) -> None:
    """Refuse a path that routes find under another name than the gate judged it by.

    Raises:
        Malformed: `route_unknown`.
    """
    # Their patterns end with `$`, which also matches before a line feed at the end.
    if path.endswith("\n"):
        raise Malformed(
            "the path ends with a line feed",
            code="route_unknown",
            constraint="wire contract",
            hint="see /openapi.json",
        )
