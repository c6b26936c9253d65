"""What the guard writes down of what it lets in."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from ppn.audit.entry import Entry
from ppn.tenant.guard import Guard
from ppn.tenant.limits import Lanes, Rates
from ppn.tenant.metrics import Counts
from ppn.tenant.model import DEFAULT_CEILING
from ppn.tenant.openapi import bare_app
from ppn.tenant.records import Records
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.wire.web import Edge


@dataclass
class Trail:
    """An audit log in memory."""

    entries: list[Entry] = field(default_factory=list)

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry."""
        self.entries.append(entry)
        made: Future[int] = Future()
        made.set_result(len(self.entries) - 1)
        return made


def guard_of(store: Store, threads: Threads, trail: Trail) -> Guard:
    """A guard with room for a few requests."""
    records = Records(trail)
    return Guard(
        store=store,
        threads=threads,
        records=records,
        counts=Counts(CollectorRegistry(), records),
        sources=Rates(100, 100, time.monotonic),
        tenants=Rates(100, 100, time.monotonic),
        changes=Lanes(4, 4, 1.0),
        questions=Lanes(4, 4, 1.0),
    )


@pytest.mark.parametrize("body", [b"\xff\xfe\xff", b"[" * 100_000, b"{", b"{}"])
def test_an_order_that_cannot_be_read_is_written_down(tmp_path: Path, body: bytes) -> None:
    """TEN-10: whatever keeps it from being read."""
    now, threads, trail = datetime.now(UTC), Threads(), Trail()
    with Store.open(f"sqlite:///{tmp_path}/tenants.db", upgrade=True) as store:
        store.create_tenant("acme", DEFAULT_CEILING, now=now)
        text = store.issue_token("acme", now=now).text
        app = bare_app()
        app.state.guard = guard_of(store, threads, trail)
        headers = {"Authorization": f"Bearer {text}", "Content-Type": "application/json"}

        async def story() -> httpx.Response:
            transport = httpx.ASGITransport(Edge(app, lambda *_: None), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.post("/v1/vms", content=body, headers=headers)

        answer = asyncio.run(story())
        threads.close()
    assert (answer.status_code, answer.json()["code"]) == (400, "request_invalid")
    found = [(one.tenant, one.operation, one.outcome, one.code) for one in trail.entries]
    assert found == [("acme", "create", "refused", "request_invalid")]
