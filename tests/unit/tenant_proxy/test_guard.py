"""What the guard writes down of what it lets in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from ppn.tenant.guard import Guard
from ppn.tenant.limits import Lanes, Rates
from ppn.tenant.metrics import Counts
from ppn.tenant.model import DEFAULT_CEILING
from ppn.tenant.openapi import bare_app
from ppn.tenant.records import Records
from ppn.tenant.sources import Sources
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.wire.bodies import Bodies
from ppn.wire.web import Edge
from tests.unit.tenant.samples import Trail

SOURCE = "10.8.0.200"


@dataclass
class Stand:
    """A proxy's service in this process.

    Args:
        store: with the tenants `acme` and `other`, each with a customer's machine.
        trail: the audit log.
        guard: in front of its routes.
    """

    store: Store
    trail: Trail
    guard: Guard

    def token(self, tenant: str | None = "acme") -> str:
        """A fresh token."""
        return self.store.issue_token(tenant, now=datetime.now(UTC)).text

    async def send(
        self, method: str, path: str, content: Any = b"", *, token: str = "", source: str = SOURCE
    ) -> httpx.Response:
        """The answer to one request."""
        app = bare_app()
        app.state.guard = self.guard
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(
            Edge(app, lambda *_: None, max_body=None),
            raise_app_exceptions=False,
            client=(source, 1),
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, content=content, headers=headers)

    def ask(self, *words: Any, **options: Any) -> tuple[int, str]:
        """Status and code of the answer to one request."""
        answer = asyncio.run(self.send(*words, **options))
        return answer.status_code, answer.json().get("code", "")


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    """A guard with room for a few requests."""
    threads, trail = Threads(), Trail()
    records = Records(trail)
    with Store.open(f"sqlite:///{tmp_path}/tenants.db", upgrade=True) as store:
        for name in ("acme", "other"):
            store.create_tenant(name, DEFAULT_CEILING, now=datetime.now(UTC))
        guard = Guard(
            store=store,
            threads=threads,
            records=records,
            counts=Counts(CollectorRegistry(), records),
            known=Sources(frozenset({"10.8.0.1"}), {SOURCE: "acme", "10.8.0.201": "other"}),
            sources=Rates(100, 100, time.monotonic),
            tenants=Rates(100, 100, time.monotonic),
            changes=Lanes(4, 4, 1.0),
            questions=Lanes(4, 4, 1.0),
            bodies=Bodies(200_000, 300_000, 400_000),
        )
        yield Stand(store, trail, guard)
        threads.close()


@pytest.mark.parametrize("body", [b"\xff\xfe\xff", b"[" * 100_000, b"{", b"{}"])
def test_an_order_that_cannot_be_read_is_written_down(stand: Stand, body: bytes) -> None:
    """TEN-10: whatever keeps it from being read."""
    assert stand.ask("POST", "/v1/vms", body, token=stand.token()) == (400, "request_invalid")
    found = [(one.tenant, one.operation, one.outcome, one.code) for one in stand.trail.entries]
    assert found == [("acme", "create", "refused", "request_invalid")]


@dataclass
class Body:
    """A body without an end, of which it is known whether anybody looked at it."""

    read: int = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            self.read += 1
            yield b" " * 50_000


@pytest.mark.parametrize(
    ("method", "path", "token", "expected"),
    [
        ("POST", "/v1/vms", "", (401, "token_refused")),
        ("POST", "/v1/vms", "ppn_0123456789abcdef_" + "x" * 43, (401, "token_refused")),
        ("PATCH", "/v1/vms/vm-of-nobody", "good", (404, "vm_unknown")),
        ("POST", "/v1/vms/vm-a/move", "good", (403, "scope_refused")),
        ("POST", "/v1/nowhere", "good", (404, "route_unknown")),
        ("POST", "/metrics", "good", (405, "method_unknown")),
    ],
)
def test_nothing_is_read_of_a_body_that_is_refused_anyway(
    stand: Stand, method: str, path: str, token: str, expected: tuple[int, str]
) -> None:
    """TEN-09: what a stranger sends takes no memory."""
    body = Body()
    token = stand.token() if token == "good" else token
    assert stand.ask(method, path, body, token=token) == expected
    assert body.read == 0


def test_a_body_without_an_end_is_refused(stand: Stand) -> None:
    """TEN-09: once it is too long, from whoever may order."""
    body = Body()
    answer = stand.ask("POST", "/v1/vms", body, token=stand.token())
    assert answer == (413, "body_too_long") and body.read == 5
    assert [one.code for one in stand.trail.entries] == ["body_too_long"]


def test_bodies_are_bounded_together(stand: Stand) -> None:
    """TEN-09: a tenant's, so that another's find room; and all, so that memory does."""
    tokens = {name: stand.token(name) for name in ("acme", "other")}
    leave = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b" " * 150_000
        await leave.wait()

    async def order(tenant: str) -> str:
        source = {"acme": SOURCE, "other": "10.8.0.201"}[tenant]
        answer = await stand.send("POST", "/v1/vms", slow(), token=tokens[tenant], source=source)
        return str(answer.json()["code"])

    async def story() -> list[str]:
        going = [asyncio.create_task(order("acme")) for _ in range(2)]
        while stand.guard.bodies.held < 300_000:
            await asyncio.sleep(0.01)
        # The third of the tenant, and the first of another that no longer fits.
        refused = [await order("acme"), await order("other")]
        leave.set()
        return [*refused, *await asyncio.gather(*going)]

    codes = asyncio.run(asyncio.wait_for(story(), 60))
    assert codes == ["too_many_at_once", "too_many_at_once", "request_invalid", "request_invalid"]
    assert stand.guard.bodies.held == 0


@pytest.mark.parametrize(
    ("tenant", "source", "good"),
    [
        ("acme", SOURCE, True),
        ("acme", "10.8.0.201", False),
        ("acme", "10.8.0.99", False),
        ("acme", "", False),
        ("acme", "10.8.0.1", True),
        (None, "10.8.0.1", True),
        (None, SOURCE, False),
        (None, "10.8.0.99", False),
    ],
)
def test_a_token_is_good_at_its_tenants_own_machines(
    stand: Stand, tenant: str | None, source: str, good: bool
) -> None:
    """TEN-03, MESH-03: a stolen one is refused elsewhere like any that is none."""
    token = stand.token(tenant)
    if good:
        found = stand.ask("DELETE", "/v1/vms/vm-of-nobody", token=token, source=source)
        assert found == (404, "vm_unknown")
        return

    def told(text: str) -> dict[str, Any]:
        answer = asyncio.run(stand.send("DELETE", "/v1/vms/x", token=text, source=source))
        assert answer.status_code == 401
        return {**answer.json(), "correlation_id": ""}

    assert told(token) == told("ppn_0123456789abcdef_" + "x" * 43)
    assert [(one.code, one.tenant) for one in stand.trail.entries] == [("token_refused", "")] * 2
    assert stand.trail.entries[0].token in token and stand.trail.entries[0].source == source


def test_what_waits_while_its_token_is_revoked_is_not_begun(stand: Stand) -> None:
    """TEN-03: whoever stole a token may have sent many requests before it was revoked."""
    token = stand.token()
    lanes = stand.guard.changes

    async def story() -> int:
        async with AsyncExitStack() as under_way:
            for _ in range(lanes.at_once):
                await under_way.enter_async_context(lanes.turn("acme"))
            going = asyncio.create_task(stand.send("DELETE", "/v1/vms/vm-a", token=token))
            while not lanes.lanes["acme"].waiting:
                await asyncio.sleep(0.01)
            stand.store.revoke_token(token[4:20], now=datetime.now(UTC))
        return (await going).status_code

    assert asyncio.run(asyncio.wait_for(story(), 60)) == 401
    assert [(one.code, one.tenant) for one in stand.trail.entries] == [("token_refused", "acme")]
