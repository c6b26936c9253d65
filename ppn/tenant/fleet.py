"""Asks the pool's controllers, one after the other, in a tenant's name."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import httpx
from pydantic import ValidationError

from ppn.errors import PpnError, Refusal
from ppn.log import get_logger
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.problems import ProblemBody, error_of
from ppn.wire.reading import TooLong, read_body

CONNECT_SECONDS = 3.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
CONNECTIONS = 1024
# Plain HTTP inside the mesh: without this, httpx reads every public authority at the start.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Refusals, and yet the VM of the order may be there or come: another controller is at it, or
# something else has its id.
UNDECIDED = frozenset({"order_differs", "order_elsewhere", "vm_exists", "vm_undecided"})
# Failures after which nothing was asked of any node.
NOT_ASKED = frozenset(
    {"agent_busy", "agent_unavailable", "fleet_unreachable", "node_busy", "node_unknown"}
    | {"node_unreachable", "tls_unusable"}
)

log = get_logger("tenant-proxy")


class FleetUnreachable(PpnError):
    """No controller could be asked: nothing was done."""

    code = "fleet_unreachable"


class OutcomeOpen(PpnError):
    """A controller was asked and did not say what became of it."""

    code = "outcome_unknown"


@dataclass(frozen=True)
class Call:
    """One request to a controller.

    Args:
        method: of HTTP.
        path: with the version in front, and the query behind.
        correlation_id: of the tenant's request.
        seconds: the longest to wait, for all controllers together.
        body: JSON; None for none.
        key: the idempotency key; None for none.
    """

    method: str
    path: str
    correlation_id: str
    seconds: float
    body: Mapping[str, Any] | None = None
    key: str | None = None


class Fleet:
    """The way to the controllers.

    Every request may be sent to several of them: orders carry their key, and what changes a VM
    says what shall be, not by how much.

    Args:
        own: this proxy's mesh address, which the controllers know.
        controllers: their base URLs.
        clock: seconds that never go back.
    """

    def __init__(
        self, own: IPv4Address, controllers: Sequence[str], clock: Callable[[], float]
    ) -> None:
        self._controllers = list(controllers)
        self._clock = clock
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=NO_TLS,
                local_address=str(own),
                limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=128),
            )
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def ask(self, call: Call) -> Any:
        """Send a request to the first controller that can be asked, and return its answer.

        Raises:
            FleetUnreachable: none could be asked.
            OutcomeOpen: one was asked, and what became of it is not known.
            PpnError: the pool's own refusal or failure.
        """
        deadline = self._clock() + call.seconds
        unasked: PpnError = FleetUnreachable("no controller answers", hint="ask again later")
        undecided: PpnError | None = None
        for controller in tuple(self._controllers):
            left = deadline - self._clock()
            if left <= 0:
                break
            try:
                answer = await self._ask(controller, call, left)
            except (FleetUnreachable, OutcomeOpen) as error:
                log.warning("controller passed over", error=str(error))
                self._last(controller)
                if isinstance(error, OutcomeOpen):
                    undecided = error
            except PpnError as error:
                if error.code == "warming_up":
                    unasked = error
                elif undecided is not None and call.method != "GET":
                    raise undecided from error
                else:
                    raise
            else:
                return answer
        raise undecided or unasked

    def _last(self, controller: str) -> None:
        """Ask a controller that did not answer after the others from now on."""
        self._controllers.remove(controller)
        self._controllers.append(controller)

    async def _ask(self, controller: str, call: Call, seconds: float) -> Any:
        try:
            async with (
                asyncio.timeout(seconds),
                self._client.stream(
                    call.method,
                    f"{controller}{call.path}",
                    json=call.body,
                    headers=_headers(call),
                    timeout=httpx.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
                ) as answer,
            ):
                content = await read_body(answer, MAX_ANSWER_BYTES)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise FleetUnreachable(f"{controller} cannot be reached: {error}") from error
        except (httpx.HTTPError, TooLong, TimeoutError) as error:
            raise _open(controller, call, str(error) or type(error).__name__) from error
        return _body(controller, call, answer, content)


def surely_not_done(error: PpnError) -> bool:
    """Whether an error says that what was asked for was not done, and will not be."""
    if isinstance(error, Refusal):
        return error.code not in UNDECIDED
    return error.code in NOT_ASKED


def _headers(call: Call) -> dict[str, str]:
    headers = {CORRELATION_HEADER: call.correlation_id, "Accept-Encoding": "identity"}
    if call.key is not None:
        headers["Idempotency-Key"] = call.key
    return headers


def _body(controller: str, call: Call, answer: httpx.Response, content: bytes) -> Any:
    try:
        body = json.loads(content)
        if answer.is_success:
            return body
        problem = ProblemBody.model_validate(body)
    except (ValueError, ValidationError) as error:
        what = f"status {answer.status_code} with no problem in it"
        raise _open(controller, call, what) from error
    if problem.code == "source_wrong":
        raise FleetUnreachable(
            f"{controller} does not take requests from this proxy",
            hint="run the pool's deploy: controllers must know their tenant proxies",
        )
    raise error_of(problem)


def _open(controller: str, call: Call, reason: str) -> OutcomeOpen:
    return OutcomeOpen(
        f"{controller} was asked to {call.method} {call.path} and did not answer: {reason}",
        hint="ask again; the same request is carried out once",
    )
