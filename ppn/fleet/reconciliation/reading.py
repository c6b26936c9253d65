"""Asks every part of the pool what it has; a part that does not answer leaves a gap."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from ppn.errors import PpnError
from ppn.fleet.reconciliation.model import ControllerLook, Gap, Kind, NodeLook, StoreLook, Views
from ppn.fleet.reconciliation.settings import ReconcileSettings
from ppn.log import get_logger
from ppn.pool.tls import NO_TLS, TlsUnusable, trusting_context
from ppn.wire.agent import AgentReport
from ppn.wire.fleet import NodeReport, OpenIntent, PlacedVm
from ppn.wire.heartbeat import Alert
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.problems import ProblemBody
from ppn.wire.tenant import AllocationList

# A node's agent looks anew for us, which takes long where libvirt does.
SECONDS = 60.0
# All sources of one kind together, however many hang: both looks of a run and what is told of them
# stay within the 1800 s of its unit.
KIND_SECONDS = 180.0
CONNECT_SECONDS = 5.0
AT_ONCE = 64
MAX_ANSWER_BYTES = 64 * 1024 * 1024

log = get_logger("reconciliation")

Answer = TypeVar("Answer")
Look = TypeVar("Look", ControllerLook, NodeLook, StoreLook)


class Unread(PpnError):
    """A source that did not answer, or whose answer is none."""

    code = "source_unreadable"


class Sources:
    """The way to controllers, through them to the nodes, and to the tenant proxies.

    Args:
        settings: who is asked.
        plain: for controllers, inside the mesh's encryption.
        encrypted: for tenant proxies.
        seconds: all sources of one kind have to answer.
    """

    def __init__(
        self,
        settings: ReconcileSettings,
        plain: httpx.AsyncClient,
        encrypted: httpx.AsyncClient,
        seconds: float,
    ) -> None:
        self._settings = settings
        self._seconds = seconds
        self._plain = plain
        self._encrypted = encrypted
        self._turn = asyncio.Semaphore(AT_ONCE)
        # One for all questions of a look: it stands in the log of every service that was asked.
        self._headers = {CORRELATION_HEADER: f"reconcile-{secrets.token_hex(8)}"}

    async def views(self) -> Views:
        """Everything there is to compare."""
        settings, gaps = self._settings, list[Gap]()
        controllers = await self._all("controller", settings.controllers, self._controller, gaps)
        # Nodes last: what a controller or a store knew of a VM is there by then, or gone.
        stores = await self._all("tenant proxy", settings.tenant_proxies, self._store, gaps)
        answering = tuple(one.name for one in controllers)

        async def node(name: str) -> NodeLook:
            return await self._node(name, answering)

        # Those that hang are most likely those that nobody hears: they keep no other one waiting.
        heard = {
            one.name for controller in controllers for one in controller.nodes if not one.stale
        }
        names = tuple(sorted(settings.nodes, key=lambda name: name not in heard))
        nodes = await self._all("node", names, node, gaps)
        return Views(
            at=datetime.now(UTC),
            known=settings.nodes,
            nodes=nodes,
            controllers=controllers,
            stores=stores,
            gaps=tuple(gaps),
        )

    async def told(self) -> tuple[tuple[ControllerLook, ...], tuple[Gap, ...]]:
        """What the controllers tell of nodes and alerts, and which of them are silent."""
        gaps: list[Gap] = []
        found = await self._all("controller", self._settings.controllers, self._alerts, gaps)
        return found, tuple(gaps)

    async def _alerts(self, url: str) -> ControllerLook:
        """What one controller tells of nodes and alerts; a large pool's VMs are not sent for it."""
        nodes, alerts = await asyncio.gather(
            self._get(self._plain, url, "/nodes", list[NodeReport]),
            self._get(self._plain, url, "/alerts", list[Alert]),
        )
        return ControllerLook(name=url, nodes=tuple(nodes), alerts=tuple(alerts))

    async def _controller(self, url: str) -> ControllerLook:
        told, placed, intents = await asyncio.gather(
            self._alerts(url),
            self._get(self._plain, url, "/vms", list[PlacedVm]),
            self._get(self._plain, url, "/intents", list[OpenIntent]),
        )
        return replace(told, placed=tuple(placed), intents=tuple(intents))

    async def _store(self, url: str) -> StoreLook:
        found = await self._get(self._encrypted, url, "/allocations", AllocationList)
        return StoreLook(url, found.allocations)

    async def _node(self, name: str, controllers: tuple[str, ...]) -> NodeLook:
        reason = "no controller answers, through which it could be asked"
        for url in controllers:
            try:
                report = await self._get(self._plain, url, f"/nodes/{name}/report", AgentReport)
            except Unread as error:
                reason = error.message
                continue
            return NodeLook(
                name=name,
                vms=report.node.vms,
                alerts=report.node.alerts,
                going=frozenset(one.vm for one in report.operations),
            )
        raise Unread(reason)

    async def _all(
        self,
        kind: Kind,
        names: tuple[str, ...],
        ask: Callable[[str], Awaitable[Look]],
        gaps: list[Gap],
    ) -> tuple[Look, ...]:
        """Ask all of one kind side by side; those that have not answered in time become gaps."""
        end = asyncio.get_running_loop().time() + self._seconds

        async def one(name: str) -> Look | Gap:
            try:
                async with asyncio.timeout_at(end), self._turn:
                    return await ask(name)
            except Unread as error:
                return Gap(kind, name, error.message)
            except TimeoutError:
                return Gap(kind, name, f"no answer of {name} within {self._seconds:g} s")

        found = await asyncio.gather(*(one(name) for name in names))
        gaps += [one for one in found if isinstance(one, Gap)]
        return tuple(one for one in found if not isinstance(one, Gap))

    async def _get(
        self, client: httpx.AsyncClient, url: str, path: str, kind: type[Answer]
    ) -> Answer:
        """The answer to one question.

        Raises:
            Unread: none came in time, or it is a problem, too long, or not of that kind.
        """
        try:
            async with (
                asyncio.timeout(SECONDS),
                client.stream("GET", f"{url}/v1{path}", headers=self._headers) as answer,
            ):
                content = await _content(answer)
            if answer.is_success:
                return TypeAdapter(kind).validate_json(content)
            problem = ProblemBody.model_validate_json(content)
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, TimeoutError) as error:
            raise Unread(f"{url} does not answer: {error or type(error).__name__}") from error
        except ValidationError as error:
            raise Unread(f"{url}{path} answers what is no answer to that") from error
        raise Unread(f"{url}{path}: {problem.detail} ({problem.code})")


async def _content(answer: httpx.Response) -> bytes:
    content = bytearray()
    async for part in answer.aiter_bytes():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise httpx.DecodingError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def read(
    settings: ReconcileSettings,
    what: Callable[[Sources], Awaitable[Answer]],
    seconds: float = KIND_SECONDS,
) -> Answer:
    """Ask the pool something, with connections of its own.

    Args:
        settings: who is asked.
        what: a question, for example `Sources.views`.
        seconds: all sources of one kind have to answer.
    """
    return asyncio.run(_read(settings, what, seconds))


async def _read(
    settings: ReconcileSettings,
    what: Callable[[Sources], Awaitable[Answer]],
    seconds: float,
) -> Answer:
    try:
        trust = trusting_context(settings.trust) if settings.tenant_proxies else NO_TLS
    except TlsUnusable as error:
        # Nobody is trusted then: each tenant proxy becomes a gap, and the rest is judged.
        log.error("tenant proxies cannot be asked", code=error.code, error=error.message)
        trust = NO_TLS
    async with AsyncExitStack() as stack:
        plain, encrypted = [
            await stack.enter_async_context(_client(settings, context))
            for context in (NO_TLS, trust)
        ]
        return await what(Sources(settings, plain, encrypted, seconds))


def _client(settings: ReconcileSettings, context: ssl.SSLContext) -> httpx.AsyncClient:
    # The others know us by our mesh address.
    transport = httpx.AsyncHTTPTransport(verify=context, local_address=str(settings.address))
    timeout = httpx.Timeout(SECONDS, connect=CONNECT_SECONDS)
    return httpx.AsyncClient(transport=transport, timeout=timeout)
