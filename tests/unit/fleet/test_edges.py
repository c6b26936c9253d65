"""The controller's edges: what it asks of nodes is bounded, and every answer of it is a problem."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from structlog.testing import capture_logs

from ppn.errors import Refusal
from ppn.fleet.making import Asked
from ppn.fleet.nodes import Call, Nodes, OutcomeUnknown
from ppn.fleet.openapi import bare_app
from ppn.fleet.service import Service
from ppn.wire.web import Edge

CALL = Call("a", IPv4Address("10.8.0.2"), "GET", "/v1/vms/vm-1", "test-correlation", seconds=0.1)


async def endless(part: bytes, pause: float) -> AsyncIterator[bytes]:
    """An answer without an end."""
    while True:
        yield part
        await asyncio.sleep(pause)


@pytest.mark.parametrize(("part", "pause"), [(b" " * (1 << 20), 0.0), (b" ", 0.05)])
def test_an_answer_without_an_end_is_cut(
    part: bytes, pause: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in bytes, and in seconds from the first to the last of them."""
    monkeypatch.setattr("ppn.fleet.nodes.CONNECT_SECONDS", 0.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nodes = Nodes(IPv4Address("127.0.0.1"), 1, lambda: context)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=endless(part, pause))

    async def story() -> None:
        await nodes._current()
        nodes._client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        async with asyncio.timeout(60):
            await nodes.ask(CALL)

    with pytest.raises(OutcomeUnknown):
        asyncio.run(story())


def test_what_nobody_foresaw_is_a_problem_too() -> None:
    """NP-05's rule: a stable code and the correlation id, and nothing of the inside."""
    app = bare_app()
    app.state.service = SimpleNamespace(registry=None, clock=lambda: 0.0)

    async def story() -> httpx.Response:
        transport = httpx.ASGITransport(Edge(app, lambda *_: None), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/v1/vms", headers={"Ppn-Correlation-Id": "correlation-1"})

    with capture_logs():
        answer = asyncio.run(story())
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "internal")
    assert problem["correlation_id"] == "correlation-1" and "None" not in answer.text


def test_a_vm_in_the_making_is_not_removed() -> None:
    """A node asked too early has nothing to remove, and would make the VM after."""
    maker: Any = SimpleNamespace(under_way={"vm-1": ()})
    service = cast(Service, SimpleNamespace(maker=maker))
    with pytest.raises(Refusal) as caught:
        asyncio.run(Service.destroy(service, "vm-1", Asked("test-correlation", 0.0)))
    assert caught.value.code == "vm_busy"
