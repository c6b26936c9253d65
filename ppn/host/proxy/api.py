"""The node proxy's HTTP side: a request is judged whole, then asked of the agent, then answered."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Any

from pydantic_core import to_json

from ppn.errors import PpnError, Refusal
from ppn.host.proxy import policy, routes
from ppn.host.proxy.agent import AgentClient
from ppn.host.proxy.audit import Audit, Entry
from ppn.host.proxy.openapi import document_bytes
from ppn.host.proxy.settings import Limits, ProxySettings
from ppn.pool.tls import Identity
from ppn.wire.agent import Request
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.problems import MEDIA_TYPE, ProblemBody, problem_of

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


class CallerGone(PpnError):
    """The caller closed its connection before it had its answer."""

    code = "caller_gone"


@dataclass(frozen=True)
class Answer:
    """What goes back over HTTP; `allowed` are the methods of a path asked with another."""

    status: int
    body: bytes
    media_type: str = "application/json"
    allowed: tuple[str, ...] = ()


@dataclass
class Caller:
    """The other side of a connection.

    Args:
        identity: whom its certificate names.
        source: its address.
        abort: ends the connection at once.
        task: what works on its request now; cancelled when the connection is lost.
    """

    identity: Identity
    source: str
    abort: Callable[[], None]
    task: asyncio.Task[Any] | None = None


class Api:
    """The ASGI application.

    Args:
        settings: of this proxy.
        client: asks the agent.
        audit: gets a line for each request.
    """

    def __init__(self, settings: ProxySettings, client: AgentClient, audit: Audit) -> None:
        self.settings = settings
        self.limits: Limits = settings.limits
        self.client = client
        self.audit = audit

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, whatever it is; called by uvicorn."""
        caller: Caller = scope["state"]["caller"]
        caller.task = asyncio.current_task()
        began = time.monotonic()
        entry = Entry(caller.identity.node, caller.source, secrets.token_hex(16))
        body = Body(scope["headers"], receive, self.limits)
        try:
            answer = await self._answer(scope, body, caller, entry)
        except PpnError as error:
            answer = _problem(problem_of(error), entry)
            if isinstance(error, routes.MethodUnknown):
                answer = replace(answer, allowed=error.allowed)
        except asyncio.CancelledError:
            # The connection is lost, so there is nobody to answer and nothing else to undo.
            entry.status, entry.code = 499, CallerGone.code
            self.audit.request(entry, time.monotonic() - began)
            return
        finally:
            caller.task = None
        entry.status = answer.status
        self.audit.request(entry, time.monotonic() - began)
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                await _send(send, answer, entry.correlation_id, close=body.is_in_the_way)
        except TimeoutError:
            caller.abort()

    async def _answer(self, scope: Message, body: Body, caller: Caller, entry: Entry) -> Answer:
        headers: Headers = scope["headers"]
        given = routes.read_correlation(routes.values_of(headers, CORRELATION_HEADER))
        entry.correlation_id = given or entry.correlation_id
        policy.check_caller(caller.identity, caller.source, time.time())
        path = scope["raw_path"].decode("ascii", errors="replace")
        if path == routes.OPENAPI_PATH:
            policy.check_role(caller.identity)
            entry.operation = "openapi"
            if scope["method"] != "GET":
                raise routes.MethodUnknown("GET")
            return Answer(200, document_bytes())
        match = routes.find_route(scope["method"], path)
        entry.operation = match.route.name
        ticket = routes.read_ticket(routes.values_of(headers, routes.TICKET_HEADER))
        operation = match.route.operation
        policy.check_operation(caller.identity, operation, ticket, self.settings.node)
        if match.route.body is not None:
            routes.check_media_type(routes.values_of(headers, "content-type"))
        asked = routes.read_operation(match, scope["query_string"], await body.read())
        entry.vm = routes.subject_of(asked)
        policy.check_sender(caller.identity, asked)
        return await self._ask(
            Request(
                correlation_id=entry.correlation_id,
                ticket=ticket,
                deadline_seconds=self.client.deadline(operation),
                body=asked,
            ),
            entry,
        )

    async def _ask(self, request: Request, entry: Entry) -> Answer:
        response = await self.client.ask(request)
        if response.problem is not None:
            return _problem(response.problem, entry)
        return Answer(200, to_json(response.result))


class Body:
    """A request's body, read within a size and a time.

    Args:
        headers: of the request.
        receive: gives the next piece.
        limits: size and time.
    """

    def __init__(self, headers: Headers, receive: Receive, limits: Limits) -> None:
        lengths = routes.values_of(headers, "content-length")
        coded = routes.values_of(headers, "transfer-encoding")
        self.length = int(lengths[0]) if lengths else 0
        self.complete = not coded and not self.length
        self.coded = bool(coded)
        self.failed = False
        self.receive = receive
        self.limits = limits

    @property
    def is_in_the_way(self) -> bool:
        """Whether what was not read of it keeps the connection from a next request."""
        endless = self.coded or self.length > self.limits.body_bytes
        return self.failed or (endless and not self.complete)

    async def read(self) -> bytes:
        """The whole body.

        Raises:
            Refusal: longer or slower than a body may be.
            CallerGone: the connection was lost.
        """
        if self.complete:
            return b""
        self._check(self.length)
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while not self.complete:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        raise CallerGone("the caller went away while it sent its body")
                    body += message["body"]
                    self._check(len(body))
                    self.complete = not message["more_body"]
        except TimeoutError as error:
            self.failed = True
            raise Refusal(
                f"the body did not arrive within {self.limits.body_seconds:g} s",
                code="body_late",
                constraint="time for a body",
                hint="send it without pauses",
            ) from error
        return bytes(body)

    def _check(self, length: int) -> None:
        if length > self.limits.body_bytes:
            raise Refusal(
                "the body is longer than a body may be",
                code="body_too_long",
                constraint="length of a body",
                wanted=length,
                free=self.limits.body_bytes,
                unit="bytes",
                hint="send less user data",
            )


def _problem(problem: ProblemBody, entry: Entry) -> Answer:
    """A problem as an answer, noted in the entry."""
    entry.code = problem.code
    said = problem.model_copy(update={"correlation_id": entry.correlation_id})
    return Answer(said.status, said.model_dump_json().encode(), MEDIA_TYPE)


async def _send(send: Send, answer: Answer, correlation_id: str, *, close: bool) -> None:
    headers = [
        (b"content-type", answer.media_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"date", formatdate(usegmt=True).encode()),
        (CORRELATION_HEADER.lower().encode(), correlation_id.encode()),
    ]
    if answer.allowed:
        headers.append((b"allow", ", ".join(answer.allowed).encode()))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
