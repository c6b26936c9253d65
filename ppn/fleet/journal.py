"""What a controller is about to do, on disk before it does it: a crash leaves no one guessing."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ppn.durable import write_atomic
from ppn.errors import PpnError

# Ended intents are dropped once so many lines have come together.
COMPACT_LINES = 4096


class JournalDamaged(PpnError):
    """A journal with a line in its midst that is none; what it said cannot be known."""

    code = "journal_damaged"


class Intent(BaseModel):
    """A VM that a controller is about to have made, or moved.

    Args:
        id: the VM.
        owner: whose.
        digest: of the order; empty for a move.
        node: where it was placed, or goes to.
        batch: all of it or nothing; empty for a VM of its own.
        move: the id of the move; empty for a VM that is made.
        source: the node it moves from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    owner: str
    digest: str
    node: str
    batch: str = ""
    move: str = ""
    source: str = ""


class Line(BaseModel):
    """One line of the file: intents that begin, or ids of those that end; never a part of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    intended: tuple[Intent, ...] = ()
    ended: tuple[str, ...] = ()


class Journal:
    """The intents that have not ended yet, in memory and on disk.

    One process at a time; the caller holds it for its whole life.

    Args:
        path: the file; its folder must exist.

    Raises:
        JournalDamaged: a line that is none; a torn last one, which a crash leaves, is dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Writing waits for the disk, so that callers do it in threads.
        self._one_at_a_time = threading.Lock()
        self._open = _read(path)
        self._lines = 0
        self._file = self._rewritten()

    @property
    def intents(self) -> Mapping[str, Intent]:
        """Intents without an end, by VM id."""
        return dict(self._open)

    def intend(self, *intents: Intent) -> None:
        """Remember intents; all of them are durable when this returns.

        Raises:
            OSError: not written; nothing may be begun.
        """
        with self._one_at_a_time:
            self._append(Line(intended=intents))
            self._open |= {one.id: one for one in intents}

    def end(self, *ids: str) -> None:
        """Forget intents that have come to an end, all at once; unknown ones are passed over.

        Raises:
            OSError: not written; they are found again after a restart.
        """
        with self._one_at_a_time:
            known = tuple(one for one in ids if one in self._open)
            if not known:
                return
            self._append(Line(ended=known))
            for one in known:
                del self._open[one]
            if self._lines > COMPACT_LINES:
                self._file.close()
                # Without room for it now, it is made anew before the next line.
                with suppress(OSError):
                    self._file = self._rewritten()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _append(self, line: Line) -> None:
        if self._file.closed:
            self._file = self._rewritten()
        start = self._file.tell()
        try:
            left = _text(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError:
            # A full disk may have taken a part; what follows must start on a line of its own.
            self._file.truncate(start)
            self._file.seek(start)
            raise
        self._lines += 1

    def _rewritten(self) -> FileIO:
        """The file anew, with what is open alone, ready for more."""
        content = _text(Line(intended=tuple(self._open.values()))) if self._open else b""
        write_atomic(self._path, content, mode=0o600)
        file = FileIO(self._path, "r+")
        file.seek(0, os.SEEK_END)
        self._lines = 0
        return file


def _text(line: Line) -> bytes:
    return line.model_dump_json(exclude_defaults=True).encode() + b"\n"


def _read(path: Path) -> dict[str, Intent]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    found: dict[str, Intent] = {}
    # What follows the last line's end was torn by a crash, and what it announced was not begun.
    for number, text in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            line = Line.model_validate_json(text)
        except ValidationError as error:
            raise JournalDamaged(
                f"{path}: line {number} is none of a journal",
                hint="compare the VMs of the nodes with what was asked for, then move it away",
            ) from error
        found |= {one.id: one for one in line.intended}
        for one in line.ended:
            found.pop(one, None)
    return found
