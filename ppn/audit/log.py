"""The audit log as a service uses it: many threads append, one writes, and all wait for the disk.

What comes while the disk is busy is written together afterwards, with one checkpoint and one wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ppn.audit.batches import MOST_ENTRIES
from ppn.audit.checkpoint import Checkpoint
from ppn.audit.entry import Entry, EntryInvalid, encode
from ppn.audit.journal import NAME, AuditDamaged, AuditUnavailable, Journal
from ppn.audit.note import LOG, Signer, Verifier
from ppn.audit.publish import Publisher
from ppn.audit.pusher import Pusher, PushStatus
from ppn.audit.witness.settings import WitnessAt
from ppn.durable import sync_folder, write_atomic
from ppn.lock import FolderLocked, folder_lock
from ppn.log import get_logger
from ppn.pool import keys

__all__ = ["AuditDamaged", "AuditUnavailable", "Log"]

APPEND_SECONDS = 5.0
MOST_WAITING = 4096
# Published at most so often: it takes several waits for the disk.
PUBLISH_SECONDS = 1.0
# Room for a million entries, and more.
LOW_BYTES = 1 << 30
CLOSE_SECONDS = 1.0

log = get_logger("audit")


@dataclass(frozen=True)
class Status:
    """How a log is doing.

    Args:
        size: how many entries are durable.
        published: how many of them the published checkpoint covers.
        trouble: why the last publication failed; empty when it did not.
        free_bytes: on its disk; 0 also when the disk does not say.
        witnesses: how far each is.
    """

    size: int
    published: int
    trouble: str
    free_bytes: int
    witnesses: tuple[PushStatus, ...]


@dataclass(frozen=True)
class _Waiting:
    """An entry on its way: its bytes, the intent it ends, and who waits for it."""

    data: bytes
    of: int | None
    made: Future[int]


class Log:
    """An audit log open for appending; any number of threads may use it.

    Args:
        journal: open; this log's alone in this process.
        publisher: of the same log.
        pushers: one for each witness.
    """

    def __init__(
        self, journal: Journal, publisher: Publisher, pushers: Sequence[Pusher] = ()
    ) -> None:
        self._journal = journal
        self._publisher = publisher
        self._pushers = pushers
        self._trouble = ""
        self._low = False
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=f"audit {target.__name__}", daemon=True)
            for target in (self._run, self._keep_published)
        ]
        self._threads += [
            threading.Thread(target=one.run, args=(self._closed,), name="audit push", daemon=True)
            for one in pushers
        ]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, folder: Path, origin: str, key: Path, witnesses: Sequence[WitnessAt] = ()) -> Log:
        """Open a log, or begin a new one; its key is born here when there is none yet.

        Args:
            folder: made when it does not exist.
            origin: the log's name, the same for all its life: see `checkpoint.origin_of`.
            key: the private key's file (mode 0600); outside the folder. Its public half is written
                beside it, with `.vkey` at the end.
            witnesses: who is sent every published checkpoint.

        Raises:
            AuditUnavailable: it cannot be opened, or not written.
            AuditDamaged: what is there contradicts itself.
            KeyUnusable: the key is missing though the log has entries, or cannot be used.
            NoteInvalid: the origin is no name.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with folder_lock(folder):
                signer = Signer(origin, _key(folder, key))
                publisher = Publisher(folder, signer)
                at = publisher.resume()
                _write_vkey(vkey_path(key), signer.verifier(LOG))
                journal = Journal(folder / NAME, signer, at, published=at.size)
                journal.open()
        except FolderLocked as error:
            raise AuditUnavailable(error.message, hint=error.hint) from error
        except OSError as error:
            raise AuditUnavailable(
                f"cannot open {folder}: {error.strerror}",
                hint="check its owner and the room on its disk",
            ) from error
        return cls(journal, publisher, [Pusher(folder, signer, one) for one in witnesses])

    def append(self, entry: Entry) -> int:
        """Add an entry; it is durable, with a signed checkpoint that covers it, on return (TEN-10).

        Args:
            entry: what happened.

        Returns:
            Its index, which an outcome refers to as `of`.

        Raises:
            AuditUnavailable: not written within `APPEND_SECONDS`: what was to be logged must not
                happen. An entry whose disk is only slow may still be found later.
            EntryInvalid: a value that no entry has.
        """
        waiting = self.submit(entry)
        try:
            return waiting.result(timeout=APPEND_SECONDS)
        except (TimeoutError, CancelledError) as error:
            waiting.cancel()
            raise AuditUnavailable(
                f"the disk did not take the entry within {APPEND_SECONDS:g} s",
                hint="look at the disk of the audit log",
            ) from error

    def submit(self, entry: Entry) -> Future[int]:
        """Add an entry without waiting: for event loops, with `asyncio.wrap_future`.

        Cancelling what is returned takes the entry back as long as nobody has begun to write it.

        Args:
            entry: what happened.

        Returns:
            What `append` returns or raises, once it is known.

        Raises:
            AuditUnavailable: too many wait already, or the log is closed.
            EntryInvalid: a value that no entry has.
        """
        made: Future[int] = Future()
        data = encode(entry)
        with self._changed:
            if self._closing or len(self._waiting) >= MOST_WAITING:
                raise AuditUnavailable(
                    "the audit log is closed"
                    if self._closing
                    else f"{MOST_WAITING} entries wait for the disk already",
                    hint="look at the disk of the audit log",
                )
            self._waiting.append(_Waiting(data, entry.of, made))
            self._changed.notify()
        return made

    @property
    def size(self) -> int:
        """How many entries are durable, as far as this process knows."""
        return self._journal.at.size

    def status(self) -> Status:
        """How the log is doing, for metrics and people."""
        pushed = tuple(one.status for one in self._pushers)
        return Status(
            self.size, self._publisher.at.size, self._trouble, self._journal.free_bytes(), pushed
        )

    def checkpoint(self) -> Checkpoint:
        """What the log says of itself now."""
        return self._journal.at.checkpoint(self._journal.signer.name)

    def close(self) -> None:
        """Write and publish what waits, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        writer, publisher, *pushers = self._threads
        writer.join()
        self._closed.set()
        publisher.join()
        # A witness may be slow, and is told at the next start.
        for pusher in pushers:
            pusher.join(timeout=CLOSE_SECONDS)
        self._journal.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while batch := self._next():
            self._write(batch)

    def _keep_published(self) -> None:
        """Publish what is new, once in a while and at the end."""
        while not self._closed.wait(PUBLISH_SECONDS):
            self._watch_room()
            self._publish()
        self._publish()

    def _watch_room(self) -> None:
        """Say once when the disk gets full: without room every change will be refused."""
        free = self._journal.free_bytes()
        if free < LOW_BYTES and not self._low:
            log.warning("the audit log's disk is getting full", free_bytes=free, entries=self.size)
        self._low = free < LOW_BYTES

    def _publish(self) -> None:
        at = self._journal.at
        if at.size <= self._publisher.at.size:
            return
        try:
            self._publisher.publish(at)
        except (AuditDamaged, FolderLocked, OSError) as error:
            log.warning("not published", error=str(error), entries=at.size)
            self._trouble = str(error)
        else:
            self._trouble = ""

    def _next(self) -> list[_Waiting]:
        """What waits, as much as one batch takes; empty when the log is closed."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            count = min(len(self._waiting), MOST_ENTRIES)
            return [self._waiting.popleft() for _ in range(count)]

    def _write(self, batch: Sequence[_Waiting]) -> None:
        taken = []
        for one in batch:
            if not one.made.set_running_or_notify_cancel():
                continue
            if one.of is not None and one.of >= self.size:
                one.made.set_exception(EntryInvalid(f"of is {one.of}: the log ends before it"))
                continue
            taken.append(one)
        if not taken:
            return
        try:
            first = self._journal.append([one.data for one in taken])
        except AuditUnavailable as error:
            for one in taken:
                one.made.set_exception(error)
            return
        for index, one in enumerate(taken, start=first):
            one.made.set_result(index)


def vkey_path(key: Path) -> Path:
    """Where the public half of a log's key stands, as C2SP writes it."""
    return key.with_name(key.name + ".vkey")


def _key(folder: Path, path: Path) -> Ed25519PrivateKey:
    """The log's private key, made when neither it nor the log is there yet."""
    journal = folder / NAME
    if not path.exists() and not (journal.exists() and journal.stat().st_size):
        keys.generate(path, keys.public_path(path))
        sync_folder(path.parent)
    return keys.load_private(path)


def _write_vkey(path: Path, verifier: Verifier) -> None:
    content = (verifier.text() + "\n").encode()
    if not path.exists() or path.read_bytes() != content:
        write_atomic(path, content)
