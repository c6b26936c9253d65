"""Publishes the journal: tiles, then the checkpoint that covers them, all durable in that order."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ppn.audit.batches import START, Position, advance, line_hash, read_batches
from ppn.audit.checkpoint import Checkpoint, signed, verified
from ppn.audit.journal import NAME, AuditDamaged
from ppn.audit.note import LOG, MAX_NOTE_BYTES, NoteInvalid, Signer
from ppn.audit.tiles import FOLDER, Tiler, Tiles, TileUnusable
from ppn.durable import sync_folder, write_atomic
from ppn.lock import folder_lock

CHECKPOINT = "checkpoint"
WINDOW_BYTES = 1 << 16


@dataclass
class Publisher:
    """What is published of a log, and how more of it is.

    Args:
        folder: the log's.
        signer: the log's key.
        at: up to where it is published.
    """

    folder: Path
    signer: Signer
    at: Position = START
    _tiler: Tiler = field(default_factory=Tiler)

    def resume(self) -> Position:
        """Find out from the files up to where the log is published; the folder is locked.

        A new log publishes that it is empty before it has a journal. What a killed publisher left
        half-written is removed.

        Raises:
            AuditDamaged: checkpoint, tiles and journal contradict each other.
            OSError: they cannot be read.
        """
        for left in (*self.folder.glob(".*.new"), *(self.folder / FOLDER).rglob(".*.new")):
            left.unlink(missing_ok=True)
        found = self._published()
        if found is None:
            if (self.folder / NAME).exists():
                raise AuditDamaged(f"{self.folder / CHECKPOINT} is missing")
            self._write_checkpoint(START)
        if found is None or found.size == 0:
            self.at, self._tiler = START, Tiler()
            return self.at
        try:
            tiler = Tiles(self.folder, found.size).tiler()
        except TileUnusable as error:
            raise AuditDamaged(f"{self.folder / str(error)} is missing or damaged") from error
        tree = tiler.tree()
        if tree.root() != found.root:
            raise AuditDamaged(f"the tiles in {self.folder} are not those of its checkpoint")
        end, line = self._commit_of(found)
        self.at, self._tiler = Position(tree, end, line_hash(line)), tiler
        return self.at

    def publish(self, up_to: Position) -> None:
        """Publish the journal up to a position whose batches are durable.

        Args:
            up_to: in the same journal, at the end of a batch.

        Raises:
            AuditDamaged: what is there contradicts itself.
            FolderLocked: another process is publishing.
            OSError: it cannot be written.
        """
        with folder_lock(self.folder):
            found = self._published()
            if found is not None and found.size != self.at.size:
                self.resume()
            if up_to.size <= self.at.size:
                return
            tiler = Tiler(
                self._tiler.size, list(self._tiler.entries), [list(row) for row in self._tiler.rows]
            )
            full = self._write_full(tiler, up_to)
            for path, content in tiler.partials():
                self._write(path, content)
            self._write_checkpoint(up_to)
            self.at, self._tiler = up_to, tiler
            for path in full:
                shutil.rmtree(self.folder / f"{path}.p", ignore_errors=True)

    def _write_full(self, tiler: Tiler, up_to: Position) -> list[str]:
        """Write the tiles that the journal has filled since, and return their paths."""
        full, at = [], self.at
        with open(self.folder / NAME, "rb") as file:
            # Whoever wrote it, also one that died before it could do this itself.
            os.fdatasync(file.fileno())
            for batch in read_batches(file, at.end):
                leaves = batch.leaves()
                behind = advance(at, batch, leaves)
                if behind is None:
                    break
                at = behind
                for path, content in tiler.add(batch.entries, leaves):
                    self._write(path, content)
                    full.append(path)
                if at.end >= up_to.end:
                    break
        if at != up_to:
            raise AuditDamaged(f"{self.folder / NAME} has changed since it was written")
        return full

    def _write(self, path: str, content: bytes) -> None:
        target = self.folder / path
        if not target.parent.is_dir():
            made = [target.parent, *target.parent.parents]
            target.parent.mkdir(parents=True, exist_ok=True)
            for folder in made[1 : made.index(self.folder) + 1]:
                sync_folder(folder)
        write_atomic(target, content)

    def _write_checkpoint(self, at: Position) -> None:
        note = signed(at.checkpoint(self.signer.name), self.signer)
        write_atomic(self.folder / CHECKPOINT, note.encode())

    def _published(self) -> Checkpoint | None:
        try:
            data = (self.folder / CHECKPOINT).read_bytes()[: MAX_NOTE_BYTES + 1]
        except FileNotFoundError:
            return None
        try:
            return verified(data, self.signer.verifier(LOG))
        except NoteInvalid as error:
            raise AuditDamaged(f"{self.folder / CHECKPOINT}: {error}") from error

    def _commit_of(self, found: Checkpoint) -> tuple[int, bytes]:
        """Where in the journal the batch ends that a checkpoint covers last, and its last line."""
        pattern = b"\n= %d " % found.size
        try:
            with open(self.folder / NAME, "rb") as file:
                length = file.seek(0, 2)
                window = WINDOW_BYTES
                while True:
                    start = file.seek(max(length - window, 0))
                    data = file.read()
                    place = data.rfind(pattern)
                    if place >= 0 or not start:
                        break
                    window *= 4
        except FileNotFoundError:
            place, data, start = -1, b"", 0
        if place < 0:
            raise AuditDamaged(
                f"{self.folder / NAME} ends before entry {found.size}, which was published"
            )
        line = data[place + 1 :].partition(b"\n")[0] + b"\n"
        return start + place + 1 + len(line), line
