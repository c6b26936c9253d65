"""What the proxy writes into the audit log: before an effect, and after it (TEN-10, TEN-11)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import structlog

from ppn.audit.entry import MAX_TEXT, Entry, Outcome
from ppn.audit.log import APPEND_SECONDS, AuditUnavailable
from ppn.errors import PpnError

# Outcomes that could not be written yet; with more than these owed, nothing new is begun anyway.
OWED_KEPT = 4096

log = structlog.get_logger("tenant-proxy")


class Appends(Protocol):
    """The audit log, as far as it is used here."""

    def submit(self, entry: Entry) -> Future[int]:
        """Write an entry; its index comes once it is durable."""


class Asked(Protocol):
    """The request that an entry is about."""

    operation: str
    source: str
    correlation_id: str
    token_id: str
    vm: str
    intended: bool

    @property
    def tenant(self) -> str:
        """For whom it speaks."""


@dataclass
class Records:
    """Entries about requests.

    Args:
        audit: the log.
        owed: outcomes that the log could not take.
    """

    audit: Appends
    owed: deque[Entry] = field(default_factory=lambda: deque(maxlen=OWED_KEPT))

    async def refused(self, asked: Asked, code: str) -> None:
        """Write that a change was refused before anything was done.

        Raises:
            AuditUnavailable: it cannot be written.
        """
        await self._append(entry_of(asked, "refused", code=code))

    @asynccontextmanager
    async def intent(self, asked: Asked) -> AsyncIterator[None]:
        """Write that a change is about to be made, and after the block what became of it.

        Raises:
            AuditUnavailable: the intent cannot be written; the block did not begin.
        """
        index = await self._append(entry_of(asked, "allowed"))
        asked.intended = True
        try:
            yield
        except PpnError as error:
            await self._outcome(entry_of(asked, "failed", code=error.code, of=index))
            raise
        await self._outcome(entry_of(asked, "done", of=index))

    async def _append(self, entry: Entry) -> int:
        made = asyncio.wrap_future(self.audit.submit(entry))
        try:
            async with asyncio.timeout(APPEND_SECONDS):
                return await made
        except TimeoutError as error:
            raise AuditUnavailable(
                f"the disk did not take the entry within {APPEND_SECONDS:g} s",
                hint="look at the disk of the audit log",
            ) from error

    async def _outcome(self, entry: Entry) -> None:
        """Write an outcome, now or later: what was done is answered as it is."""
        try:
            await self._append(entry)
        except AuditUnavailable as error:
            log.error("outcome owed to the audit log", error=str(error), of=entry.of)
            self.owed.append(entry)

    async def settle(self) -> None:
        """Write the outcomes that are owed, as far as the log takes them."""
        while self.owed:
            entry = self.owed.popleft()
            try:
                await self._append(entry)
            except asyncio.CancelledError:
                # The proxy ends, and settles once more before it does.
                self.owed.appendleft(entry)
                raise
            except AuditUnavailable:
                self.owed.appendleft(entry)
                return


def entry_of(asked: Asked, outcome: Outcome, *, code: str = "", of: int | None = None) -> Entry:
    """An entry about a request, now.

    Args:
        asked: the request.
        outcome: of `ppn.audit.entry.OUTCOMES`.
        code: of the refusal or failure.
        of: the index of the intent that it ends.
    """
    return Entry(
        at=datetime.now(UTC),
        tenant=asked.tenant,
        # What a stranger sends as an id may be anything.
        vm=asked.vm[:MAX_TEXT],
        operation=asked.operation,
        outcome=outcome,
        source=asked.source,
        token=asked.token_id,
        correlation_id=asked.correlation_id,
        code=code,
        of=of,
    )
