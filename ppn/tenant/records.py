"""What the proxy writes into the audit log: before an effect, and after it (TEN-10, TEN-11)."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Protocol

from ppn.audit.entry import MAX_TEXT, Entry, Outcome
from ppn.audit.log import APPEND_SECONDS, AuditUnavailable
from ppn.audit.read import unended
from ppn.errors import PpnError
from ppn.log import get_logger
from ppn.tenant.floods import Floods
from ppn.tenant.provisioning import SOURCE

# Nobody knows what became of a change.
OPEN = "outcome_unknown"
# Outcomes that could not be written yet; with more than these owed, nothing new is begun.
MOST_OWED = 4096
# So that new intents find room beside them.
PAID_AT_ONCE = 1024

log = get_logger("tenant-proxy")


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
        floods: refusals that are written down together.
    """

    audit: Appends
    owed: deque[Entry] = field(default_factory=deque)
    floods: Floods = field(default_factory=lambda: Floods(time.monotonic))

    async def refused(self, asked: Asked, code: str) -> None:
        """Write that a change was refused before anything was done.

        Raises:
            AuditUnavailable: it cannot be written.
        """
        if self.floods.stands_alone(asked, code):
            await self._append(entry_of(asked, "refused", code=code))

    @asynccontextmanager
    async def intent(self, asked: Asked) -> AsyncIterator[None]:
        """Write that a change is about to be made, and after the block what became of it.

        Raises:
            AuditUnavailable: the intent cannot be written; the block did not begin.
        """
        index = await self.begin(asked)
        asked.intended = True
        # Of what ends it in a way nobody foresaw.
        code = OPEN
        try:
            yield
            code = ""
        except PpnError as error:
            code = error.code
            raise
        finally:
            await self.end(asked, index, code)

    async def begin(self, asked: Asked) -> int:
        """Write that a change is about to be made; returns the index that `end` needs.

        Raises:
            AuditUnavailable: it cannot be written.
        """
        if len(self.owed) >= MOST_OWED:
            raise AuditUnavailable(
                f"{len(self.owed)} outcomes are not written down yet",
                hint="look at the disk of the audit log",
            )
        return await self._append(entry_of(asked, "allowed"))

    async def end(self, asked: Asked, index: int, code: str = "") -> None:
        """Write what became of a change, now or later: what was done is answered as it is.

        Args:
            asked: the request.
            index: of its intent.
            code: why it failed; empty when it was done.
        """
        entry = entry_of(asked, "failed" if code else "done", code=code, of=index)
        try:
            await self._append(entry)
        except AuditUnavailable as error:
            log.error("outcome owed to the audit log", error=str(error), of=index)
            self.owed.append(entry)

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

    async def settle(self, *, last: bool = False) -> None:
        """Write what is owed, together, as far as the log takes it within `APPEND_SECONDS`.

        Args:
            last: the proxy ends; what is counted is written before its interval is over.
        """
        if last or not self.owed:
            # Not while outcomes wait: counting on takes no room.
            self.owed.extend(self.floods.due(now=last))
        paid = islice(self.owed, None if last else PAID_AT_ONCE)
        await asyncio.gather(*[self._pay(entry) for entry in paid])

    async def _pay(self, entry: Entry) -> None:
        """Write what is owed; it stays owed when it cannot be written, or the proxy ends first."""
        try:
            await self._append(entry)
        except AuditUnavailable:
            return
        self.owed.remove(entry)


def interrupted(folder: Path, lease_seconds: float) -> Iterator[Entry]:
    """Outcomes for intents of a process that ended before it knew them.

    Args:
        folder: of the audit log; no proxy writes to it.
        lease_seconds: the longest a request goes on: one of `ppn tenant` may be under way.

    Raises:
        LogMissing: see `unended`.
        EntryInvalid: see `unended`.
    """
    now = datetime.now(UTC)
    for index, intent in unended(folder).items():
        if intent.source != SOURCE or (now - intent.at).total_seconds() > lease_seconds:
            yield replace(intent, at=now, outcome="failed", code=OPEN, of=index)


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
