"""What the proxy owes to the audit log."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from ppn.audit.entry import Entry
from ppn.audit.log import AuditUnavailable
from ppn.errors import PpnError
from ppn.tenant import records as records_module
from ppn.tenant.guard import Visit
from ppn.tenant.records import MOST_OWED, OPEN, Records

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
VISIT = Visit("create", "10.8.0.9", "correlation-1")


class Slow:
    """An audit log whose disk does not answer."""

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry, for ever."""
        return Future()


@dataclass
class Quick:
    """An audit log that takes so many entries; the next one finds it gone."""

    room: int
    taken: list[Entry] = field(default_factory=list)

    def submit(self, entry: Entry) -> Future[int]:
        """Take an entry, or refuse it."""
        if len(self.taken) >= self.room:
            raise AuditUnavailable("full", hint="")
        self.taken.append(entry)
        made: Future[int] = Future()
        made.set_result(len(self.taken) - 1)
        return made


def owing(audit: Slow | Quick, count: int) -> Records:
    """Records with so many outcomes owed, of intents 0 and on."""
    made = Records(audit)
    made.owed.extend(replace(OWED, of=index) for index in range(count))
    return made


def test_an_outcome_stays_owed_when_the_proxy_stops_meanwhile() -> None:
    """TEN-10: what watches over it is cancelled first, and it is written before the end."""

    async def story() -> None:
        records = owing(Slow(), 1)
        settling = asyncio.create_task(records.settle())
        await asyncio.sleep(0)
        settling.cancel()
        with suppress(asyncio.CancelledError):
            await settling
        assert list(records.owed) == [replace(OWED, of=0)]

    asyncio.run(story())


def test_what_is_owed_is_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """TEN-10: a slow disk is waited for once, not once for each: systemd waits no longer."""
    monkeypatch.setattr(records_module, "APPEND_SECONDS", 0.2)

    async def story() -> None:
        records = owing(Slow(), 200)
        async with asyncio.timeout(10):
            await records.settle()
        assert len(records.owed) == 200

    asyncio.run(story())


def test_what_the_log_takes_of_it_is_owed_no_more() -> None:
    """TEN-10: the rest is, in its order."""
    records = owing(Quick(room=3), 5)
    asyncio.run(records.settle())
    assert [one.of for one in records.owed] == [3, 4]


def test_with_too_much_owed_nothing_new_is_begun() -> None:
    """TEN-10: no outcome is ever given up."""
    audit = Quick(room=10)
    with pytest.raises(AuditUnavailable):
        asyncio.run(owing(audit, MOST_OWED).begin(VISIT))
    assert audit.taken == []
    assert asyncio.run(owing(audit, MOST_OWED - 1).begin(VISIT)) == 0


def test_an_intent_has_an_outcome_whatever_ends_it() -> None:
    """TEN-10: also what nobody foresaw, such as an answer that no release should give."""
    audit = Quick(room=10)

    async def story(ends: BaseException) -> None:
        with suppress(type(ends)):
            async with Records(audit).intent(replace(VISIT)):
                raise ends

    for ends in (ValueError("strange"), asyncio.CancelledError(), PpnError("no", code="no_room")):
        asyncio.run(story(ends))
    outcomes = [(one.outcome, one.code) for one in audit.taken[1::2]]
    assert outcomes == [("failed", OPEN), ("failed", OPEN), ("failed", "no_room")]
    assert [one.of for one in audit.taken[1::2]] == [0, 2, 4]


def test_what_is_counted_is_written_before_the_proxy_ends() -> None:
    """TEN-10: and not while outcomes are owed: counting on takes no room."""
    audit = Quick(room=100)
    records = owing(audit, 0)

    async def story() -> None:
        for _ in range(50):
            await records.refused(VISIT, "token_refused")
        await records.settle()
        assert {one.count for one in audit.taken} == {1}
        await records.settle(last=True)
        assert sum(one.count for one in audit.taken) == 50

    asyncio.run(story())
