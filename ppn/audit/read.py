"""Reads entries off a journal for people; nothing is verified."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from ppn.audit.batches import START, parse_commit, read_batches
from ppn.audit.entry import MAX_BYTES, Entry, EntryInvalid, ends, parse
from ppn.audit.journal import NAME
from ppn.errors import PpnError

POLL_SECONDS = 0.5
# Quotes inside a text are escaped: nothing but the field itself reads like this.
INTENT = b'"outcome":"allowed"'
# Some 70,000 entries: far more than come while any one request is under way.
UNENDED_BYTES = 16 << 20


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
        EntryInvalid: a line that is no entry, or broken: run `ppn audit verify`.
    """
    index, end = 0, START.end
    try:
        with open(folder / NAME, "rb") as file:
            while True:
                length = file.seek(0, os.SEEK_END)
                for batch in read_batches(file, end):
                    for data in batch.entries:
                        entry = _parsed(index, data)
                        if wanted.wants(entry):
                            yield index, entry
                        index += 1
                    end = batch.end
                if _is_broken(file, end, length):
                    raise EntryInvalid(
                        f"what follows the first {index} entries is broken",
                        hint="run `ppn audit verify`",
                    )
                if not follow:
                    return
                time.sleep(POLL_SECONDS)
    except OSError as error:
        raise _missing(folder, error) from error


def _is_broken(file: BinaryIO, start: int, length: int) -> bool:
    """Whether a batch ends behind one that does not: a torn tail has no such end.

    Args:
        file: the journal.
        start: where its last whole batch ended.
        length: what it had before that was looked for.
    """
    file.seek(start)
    while file.tell() < length and (line := file.readline(MAX_BYTES + 1)):
        if parse_commit(line) is not None:
            return True
    return False


def _missing(folder: Path, error: OSError) -> LogMissing:
    return LogMissing(
        f"cannot read {folder / NAME}: {error.strerror}", hint="name the folder of a log"
    )


def _parsed(index: int, data: bytes) -> Entry:
    try:
        return parse(data)
    except EntryInvalid as error:
        raise EntryInvalid(
            f"entry {index}: {error.message}", hint="run `ppn audit verify`"
        ) from error


def unended(folder: Path) -> dict[int, Entry]:
    """Intents without an outcome near the end of a log, by index.

    Args:
        folder: the log's.

    Raises:
        LogMissing: no journal there, or not readable.
        EntryInvalid: a line that is no entry: run `ppn audit verify`.
    """
    found: dict[int, bytes] = {}
    try:
        with open(folder / NAME, "rb") as file:
            index, start = _near_the_end(file)
            for batch in read_batches(file, start):
                for data in batch.entries:
                    if INTENT in data:
                        found[index] = data
                    elif (of := ends(data)) is not None:
                        found.pop(of, None)
                    index += 1
    except OSError as error:
        raise _missing(folder, error) from error
    return {number: _parsed(number, data) for number, data in found.items()}


def _near_the_end(file: BinaryIO) -> tuple[int, int]:
    """The index of an entry that is not far from the end of a journal, and where it begins."""
    start = max(file.seek(0, 2) - UNENDED_BYTES, 0)
    if not start:
        return 0, 0
    file.seek(start)
    while line := file.readline():
        if commit := parse_commit(line):
            return commit.size, file.tell()
    return 0, 0
