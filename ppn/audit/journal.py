"""The file that holds the log: it is appended to, and nothing in it is ever written again.

Several processes may append to one journal, one at a time under a lock on the file itself; each
first reads what the others added. What stands behind the last whole batch was never acknowledged:
a crash or a full disk left it there, and the next one to write cuts it off.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ppn.audit.batches import START, Position, advance, make_batch, parse_commit, read_batches
from ppn.audit.note import LOG, Signer
from ppn.durable import sync_folder
from ppn.errors import Refusal
from ppn.lock import take
from ppn.log import get_logger

NAME = "journal"
LOCK_SECONDS = 2.0

log = get_logger("audit")


class AuditUnavailable(Refusal):
    """The log cannot be written, so that what was to be logged must not happen (TEN-10)."""

    def __init__(self, message: str, *, hint: str, code: str = "audit_unavailable") -> None:
        super().__init__(message, code=code, constraint="audit log", hint=hint)


class AuditDamaged(AuditUnavailable):
    """The log's own files contradict each other; nothing is appended to them."""

    def __init__(self, message: str) -> None:
        super().__init__(
            message, code="audit_damaged", hint="run `ppn audit verify`, and see docs/audit.md"
        )


@dataclass
class Journal:
    """A journal open for appending, by one thread at a time.

    Args:
        path: the file; made when it does not exist.
        signer: the log's key.
        at: the end of what is known of it.
        published: entries that a published checkpoint covers: never cut off.
    """

    path: Path
    signer: Signer
    at: Position = START
    published: int = 0
    _file: int = field(init=False, default=-1)

    def open(self) -> None:
        """Open the file, read it to its end and cut off what a crash left there.

        Raises:
            AuditUnavailable: it cannot be opened or locked.
            AuditDamaged: a batch in it is broken.
        """
        try:
            self._file = os.open(
                self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            sync_folder(self.path.parent)
            with self._locked():
                self._catch_up()
                os.fdatasync(self._file)
        except OSError as error:
            raise self._failed("open", error) from error

    def append(self, entries: Sequence[bytes]) -> int:
        """Add entries and a checkpoint that covers them; all of it is durable when this returns.

        Args:
            entries: their bytes.

        Returns:
            The index of the first.

        Raises:
            AuditUnavailable: not written; nothing of it will be found in the log, unless the disk
                refuses even to take back what it has.
            AuditDamaged: the file was cut, replaced or changed behind our back.
        """
        try:
            with self._locked():
                self._catch_up()
                data, behind = make_batch(entries, self.at, self.signer)
                try:
                    self._write(data)
                except OSError:
                    os.ftruncate(self._file, self.at.end)
                    raise
        except OSError as error:
            raise self._failed("append to", error) from error
        first, self.at = self.at.size, behind
        return first

    def free_bytes(self) -> int:
        """The room on its disk; none when the disk does not say."""
        try:
            figures = os.fstatvfs(self._file)
        except OSError:
            return 0
        return figures.f_bavail * figures.f_frsize

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not take(self._file, timeout=LOCK_SECONDS):
            raise AuditUnavailable(
                f"{self.path}: another process held its lock for {LOCK_SECONDS:g} s",
                hint=f"see who with `fuser -v {self.path}`, then try again",
            )
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]
        os.fdatasync(self._file)

    def _catch_up(self) -> None:
        """Read what other processes appended; the lock is held."""
        found, named = os.fstat(self._file), os.stat(self.path)
        if (found.st_ino, found.st_dev) != (named.st_ino, named.st_dev):
            raise AuditDamaged(f"{self.path} was replaced by another file while it was open")
        if found.st_size < self.at.end:
            raise AuditDamaged(f"{self.path} was cut from {self.at.end} to {found.st_size} bytes")
        if found.st_size == self.at.end:
            return
        with open(self.path, "rb") as file:
            for batch in read_batches(file, self.at.end):
                behind = advance(self.at, batch, batch.leaves())
                if behind is None:
                    break
                self.at = behind
            # Whoever wrote it may have died before the disk had it, and ours comes behind.
            os.fdatasync(self._file)
            file.seek(self.at.end)
            left = file.read()
        if left:
            self._cut(left)

    def _cut(self, left: bytes) -> None:
        """Cut off a torn tail; anything else that is broken is left for the auditor to see."""
        if self.at.size < self.published:
            raise AuditDamaged(
                f"{self.path} has {self.at.size} sound entries, {self.published} were published"
            )
        # Each batch was durable before the next was begun: only the last one can be torn.
        if any(self._is_ours(line) for line in left.splitlines(keepends=True)[:-1]):
            raise AuditDamaged(f"{self.path}: what follows entry {self.at.size} is broken")
        log.warning(
            "torn tail cut off", journal=str(self.path), cut_bytes=len(left), entries=self.at.size
        )
        os.ftruncate(self._file, self.at.end)

    def _is_ours(self, line: bytes) -> bool:
        """Whether a line ends a batch and our key signed it."""
        commit = parse_commit(line)
        if commit is None:
            return False
        note = commit.note(self.signer.name)
        (made,) = note.signatures
        trusted = self.signer.verifier(LOG)
        return made.key_id == trusted.key_id and trusted.verifies(note.text, made)

    def _failed(self, verb: str, error: OSError) -> AuditUnavailable:
        return AuditUnavailable(
            f"cannot {verb} {self.path}: {error.strerror}",
            hint="check the room on its disk, its owner and that it is mounted for writing",
        )
