"""What the proxy owes to the audit log."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime

from ppn.audit.entry import Entry
from ppn.tenant.records import Records

OWED = Entry(
    at=datetime(2026, 1, 1, tzinfo=UTC),
    tenant="acme",
    vm="vm-a",
    operation="create",
    outcome="done",
    source="10.8.0.9",
    token="0123456789abcdef",
    correlation_id="correlation-1",
    code="",
    of=0,
)


class Slow:
    """An audit log whose disk does not answer."""

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry, for ever."""
        return Future()


def test_an_outcome_stays_owed_when_the_proxy_stops_meanwhile() -> None:
    """TEN-10: what watches over it is cancelled first, and it is written before the end."""

    async def story() -> None:
        records = Records(Slow())
        records.owed.append(OWED)
        settling = asyncio.create_task(records.settle())
        await asyncio.sleep(0)
        settling.cancel()
        with suppress(asyncio.CancelledError):
            await settling
        assert list(records.owed) == [OWED]

    asyncio.run(story())
