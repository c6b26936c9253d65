"""Reads entries off a journal for people; nothing is verified."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ppn.audit.batches import START, read_batches
from ppn.audit.entry import Entry, EntryInvalid, parse
from ppn.audit.journal import NAME
from ppn.errors import PpnError

POLL_SECONDS = 0.5


class LogMissing(PpnError):
    """A folder that holds no log, or one that cannot be read."""

    code = "audit_journal_missing"


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; what is None or empty does not matter.

    Args:
        tenant: whose.
        vm: about which VM.
        operation: for example `create`.
        outcome: for example `refused`.
        correlation_id: of one request.
        since: not before.
        until: before.
    """

    tenant: str | None = None
    vm: str | None = None
    operation: str | None = None
    outcome: str | None = None
    correlation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is one of them."""
        names = ("tenant", "vm", "operation", "outcome", "correlation_id")
        if any(getattr(self, one) not in (None, getattr(entry, one)) for one in names):
            return False
        if self.since is not None and entry.at < self.since:
            return False
        return self.until is None or entry.at < self.until


def entries(folder: Path, wanted: Filter, *, follow: bool = False) -> Iterator[tuple[int, Entry]]:
    """The wanted entries of a log with their index.

    Args:
        folder: the log's.
        wanted: which.
        follow: go on for ever with what is appended.

    Raises:
        LogMissing: no journal there, or not readable.
        EntryInvalid: a line that is no entry: run `ppn audit verify`.
    """
    index, end = 0, START.end
    try:
        with open(folder / NAME, "rb") as file:
            while True:
                for batch in read_batches(file, end):
                    for data in batch.entries:
                        entry = _parsed(index, data)
                        if wanted.wants(entry):
                            yield index, entry
                        index += 1
                    end = batch.end
                if not follow:
                    return
                time.sleep(POLL_SECONDS)
    except OSError as error:
        raise LogMissing(
            f"cannot read {folder / NAME}: {error.strerror}", hint="name the folder of a log"
        ) from error


def _parsed(index: int, data: bytes) -> Entry:
    try:
        return parse(data)
    except EntryInvalid as error:
        raise EntryInvalid(
            f"entry {index}: {error.message}", hint="run `ppn audit verify`"
        ) from error
