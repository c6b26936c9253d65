"""Calls to node proxies: what was surely done, surely not done, or not known."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from ppn.errors import PpnError
from ppn.wire.agent import Ticket
from ppn.wire.heartbeat import VmReport
from ppn.wire.problems import ProblemBody, error_of
from ppn.wire.reading import TooLong, read_body

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
# What was sent and not taken in for so long is given up, also by the kernel of a closed connection:
# nothing reaches a node long after its caller has gone.
LOST_MILLISECONDS = 8000
# Answers that leave open whether the agent has done, or will yet do, what was asked.
OPEN_CODES = frozenset({"agent_failed", "agent_timeout"})

Body = TypeVar("Body", bound=BaseModel)


class NodeUnreachable(PpnError):
    """A node could not be asked: nothing was done there."""

    code = "node_unreachable"


class OutcomeUnknown(PpnError):
    """A node was asked and its answer did not come: it may or may not have done it."""

    code = "outcome_unknown"


@dataclass(frozen=True)
class Call:
    """One request to a node's proxy.

    Args:
        node: the node's name.
        address: its mesh address.
        method: of HTTP.
        path: with the version in front.
        correlation_id: of the request that led to it.
        session: of the node's agent, for a change; None for a question.
        body: JSON; None for none.
        seconds: the longest to wait for the whole answer.
    """

    node: str
    address: IPv4Address
    method: str
    path: str
    correlation_id: str
    session: str | None = None
    body: Mapping[str, Any] | None = None
    seconds: float = 120.0


class Nodes:
    """The way to every node's proxy.

    Args:
        own: this controller's mesh address, which its certificate is good for.
        port: of every node proxy.
        context: gives the TLS settings in force; a new object after a certificate was renewed.
    """

    def __init__(self, own: IPv4Address, port: int, context: Callable[[], ssl.SSLContext]) -> None:
        self._own = own
        self._port = port
        self._context = context
        self._used: ssl.SSLContext | None = None
        self._client = httpx.AsyncClient()
        self._retired: httpx.AsyncClient | None = None

    async def close(self) -> None:
        """Close every connection."""
        for client in (self._client, self._retired):
            if client is not None:
                await client.aclose()

    async def ask(self, call: Call) -> dict[str, Any]:
        """Send a request and return the answer's body.

        Raises:
            NodeUnreachable: nothing was sent.
            OutcomeUnknown: something was sent and no answer came.
            PpnError: the node's own refusal or failure, as it was raised there.
        """
        client = await self._current()
        try:
            async with (
                asyncio.timeout(call.seconds + CONNECT_SECONDS),
                client.stream(
                    call.method,
                    f"https://{call.address}:{self._port}{call.path}",
                    json=call.body,
                    headers=_headers(call),
                    timeout=httpx.Timeout(call.seconds, connect=CONNECT_SECONDS),
                ) as answer,
            ):
                content = await read_body(answer, MAX_ANSWER_BYTES)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NodeUnreachable(
                f"node {call.node} cannot be reached: {_reason(error)}",
                hint="look at its mesh path and its node proxy",
            ) from error
        except (httpx.HTTPError, ssl.SSLError, TimeoutError, TooLong) as error:
            raise _unknown(call, _reason(error)) from error
        return _body(call, answer, content)

    async def _current(self) -> httpx.AsyncClient:
        context = self._context()
        if context is not self._used:
            # Requests under way end on the connections they have: closed at the next renewal.
            old, self._used = self._client, context
            transport = httpx.AsyncHTTPTransport(
                verify=context,
                local_address=str(self._own),
                limits=httpx.Limits(max_connections=256, max_keepalive_connections=128),
                socket_options=[(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MILLISECONDS)],
            )
            self._client = httpx.AsyncClient(transport=transport)
            if self._retired is not None:
                await self._retired.aclose()
            self._retired = old
        return self._client


def understood(model: type[Body], answer: object, node: str) -> Body:
    """A node's answer, or a part of it, as the contract has it.

    Args:
        model: what it must be.
        answer: what came.
        node: who answered.

    Raises:
        OutcomeUnknown: it is something else, as a node of another release may answer.
    """
    try:
        return model.model_validate(answer, strict=False)
    except ValidationError as error:
        raise OutcomeUnknown(
            f"{node}: the answer breaks the contract", hint="see the node's release"
        ) from error


def vm_in(answer: Mapping[str, Any], node: str) -> VmReport:
    """The VM that a node's answer tells of.

    Raises:
        OutcomeUnknown: it tells of none.
    """
    return understood(VmReport, answer.get("vm"), node)


def _reason(error: BaseException) -> str:
    """What the kernel or TLS said; the libraries in between say less."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ssl.SSLError):
            return str(inner)
        if isinstance(inner, OSError) and inner.errno is not None:
            return os.strerror(inner.errno)
        inner = inner.__cause__ or inner.__context__
    return str(error) or type(error).__name__


def _headers(call: Call) -> dict[str, str]:
    headers = {"Ppn-Correlation-Id": call.correlation_id, "Accept-Encoding": "identity"}
    if call.session is not None:
        ticket = Ticket(node=call.node, session=call.session, nonce=secrets.token_hex(16))
        headers["Ppn-Ticket"] = ticket.model_dump_json()
    return headers


def _body(call: Call, answer: httpx.Response, content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
        if answer.is_success and isinstance(body, dict):
            return body
        problem = ProblemBody.model_validate(body)
    except (ValueError, ValidationError) as error:
        raise _unknown(call, f"status {answer.status_code} with no problem in it") from error
    if problem.code in OPEN_CODES:
        raise _unknown(call, problem.detail)
    raise error_of(problem)


def _unknown(call: Call, reason: str) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"node {call.node} was asked to {call.method} {call.path} and did not answer: {reason}",
        hint="ask again; the same request is carried out once",
    )
