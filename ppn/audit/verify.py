"""Verifies a whole log, offline: the journal, its tiles, its checkpoint, and what others know.

The journal is recomputed from its first byte. Tiles and checkpoint must follow from it, and so must
every checkpoint that someone else kept. A torn tail behind the last batch is no damage: nobody was
ever told that it was written.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppn.audit.batches import START, Batch, Commit, Position, advance, parse_commit, read_batches
from ppn.audit.checkpoint import Checkpoint, verified
from ppn.audit.diagnosis import Finding, damage
from ppn.audit.entry import EntryInvalid, ends
from ppn.audit.journal import NAME
from ppn.audit.merkle import HASH_BYTES, frontier_of, leaf_hash
from ppn.audit.note import MAX_NOTE_BYTES, NoteInvalid, Verifier
from ppn.audit.publish import CHECKPOINT
from ppn.audit.tiles import ENTRIES, FOLDER, LEVELS, WIDTH, Tiler, Tiles, TileUnusable, tile_path

TILE = re.compile(r"(tile/(?:entries|[0-9]+)(?:/x[0-9]{3})*/[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Report:
    """What a log is worth.

    Args:
        origin: its name.
        size: how many sound entries its journal has.
        root: of the tree over them.
        published: how many its own checkpoint covers.
        torn_bytes: what a crash left behind the last batch; the log's next start cuts it off.
        findings: what is wrong; nothing when it is sound.
    """

    origin: str
    size: int
    root: bytes
    published: int
    torn_bytes: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Known:
    """A checkpoint of the same log that was kept elsewhere.

    Args:
        where: its file, for the findings.
        checkpoint: its log's signature was verified.
    """

    where: str
    checkpoint: Checkpoint


def verify(folder: Path, trusted: Verifier, known: Iterable[Known] = ()) -> Report:
    """Verify a log (TEN-12).

    Args:
        folder: the log's.
        trusted: its public key.
        known: what others know of it.

    Raises:
        OSError: a file is there and cannot be read.
    """
    findings: list[Finding] = []
    # A log at work grows meanwhile: the checkpoint first, then the tiles, then the journal, or what
    # is published in between would seem to lack its tiles, or to be ahead of the journal.
    published = _published(folder, trusted, findings)
    tiles = _listed(folder)
    others = list(known)
    if published is not None:
        others.insert(0, Known(CHECKPOINT, published))
    check = _Check(folder, trusted, published, tiles, others, findings)
    return check.run()


@dataclass
class _Check:
    """One verification under way."""

    folder: Path
    trusted: Verifier
    published: Checkpoint | None
    tiles: dict[str, set[int]]
    known: Sequence[Known]
    findings: list[Finding]
    at: Position = START
    last: Commit | None = None
    torn_bytes: int = 0
    broken: bool = False
    tiler: Tiler = field(default_factory=Tiler)

    def run(self) -> Report:
        """Verify everything."""
        journal = self.folder / NAME
        if not journal.exists():
            self._found("audit_journal_missing", f"{journal} is not there")
        else:
            with open(journal, "rb") as file:
                self._read(file)
        if self.last is not None:
            self._check_signature(self.last)
        if not self.broken:
            self._check_known_beyond()
        if not self.broken:
            self._check_partials()
        size = self.published.size if self.published else 0
        root, found = self.at.tree.root(), tuple(self.findings)
        return Report(self.trusted.name, self.at.size, root, size, self.torn_bytes, found)

    def _found(self, code: str, message: str, index: int | None = None) -> None:
        self.findings.append(Finding(code, message, index))

    def _read(self, file: io.BufferedReader) -> None:
        # What is appended from here on is no tail, torn or other.
        length = file.seek(0, io.SEEK_END)
        for batch in read_batches(file, 0):
            leaves = batch.leaves()
            behind = advance(self.at, batch, leaves)
            if behind is None:
                break
            self._check_entries(batch)
            self._check_known(batch.commit, leaves)
            for path, content in self.tiler.add(batch.entries, leaves):
                self._check_tile(path, content, WIDTH)
            self.at, self.last = behind, batch.commit
        file.seek(self.at.end)
        left = file.read(max(length - self.at.end, 0))
        if left:
            self._judge(left)

    def _check_entries(self, batch: Batch) -> None:
        for index, entry in enumerate(batch.entries, start=self.at.size):
            try:
                of = ends(entry)
            except EntryInvalid as error:
                self._found("audit_entry_malformed", f"entry {index}: {error.message}", index)
            else:
                if of is not None and of >= index:
                    text = f"entry {index} ends {of}, which is not before it"
                    self._found("audit_entry_malformed", text, index)

    def _check_signature(self, commit: Commit) -> None:
        """Of the last batch alone: the lines before are chained, the root covers all."""
        try:
            self.trusted.signature_in(commit.note(self.trusted.name))
        except NoteInvalid as error:
            self._found(error.code, f"{NAME}: the last batch: {error.message}")

    def _check_known(self, commit: Commit, leaves: Sequence[bytes]) -> None:
        """Compare what others know of the log at a size within this batch."""
        for one in self.known:
            size = one.checkpoint.size
            if not self.at.size < size <= commit.size:
                continue
            tree = self.at.tree.copy()
            for leaf in leaves[: size - self.at.size]:
                tree.add(leaf)
            if tree.root() != one.checkpoint.root:
                text = f"{one.where} has another history of the first {size} entries"
                self._found("audit_fork", text)

    def _check_known_beyond(self) -> None:
        for one in self.known:
            if one.checkpoint.size > self.at.size:
                gone = one.checkpoint.size - self.at.size
                own = one.where == CHECKPOINT
                self.broken |= own
                self._found(
                    "audit_truncated" if own else "audit_rollback",
                    f"{one.where} has {gone} entries more than the journal",
                    self.at.size,
                )

    def _judge(self, left: bytes) -> None:
        """Say what stands behind the last sound batch."""
        size = self.at.size
        lines = left.splitlines(keepends=True)
        commits = [i for i, line in enumerate(lines) if self._is_signed(line)]
        if self.published is None or size >= self.published.size:
            if all(i == len(lines) - 1 for i in commits):
                self.torn_bytes = len(left)
            else:
                self.broken = True
                text = f"the batch behind entry {size} is broken, and others follow it"
                self._found("audit_batch_broken", text, size)
            return
        self.broken = True
        expected = self._expected()
        if expected is None:
            text = f"the batch behind entry {size} is broken, and the tiles do not say how"
            self._found("audit_batch_broken", text, size)
            return
        found = [
            leaf_hash(line[:-1])
            for line in lines
            if line.endswith(b"\n") and not line.startswith(b"= ")
        ]
        self.findings.append(damage(expected, found, size))

    def _expected(self) -> list[bytes] | None:
        """The hashes of all published entries, when the tiles are those of the checkpoint."""
        if self.published is None:
            return None
        try:
            leaves = list(Tiles(self.folder, self.published.size).leaves())
        except TileUnusable:
            return None
        return leaves if frontier_of(leaves).root() == self.published.root else None

    def _is_signed(self, line: bytes) -> bool:
        commit = parse_commit(line)
        if commit is None:
            return False
        try:
            self.trusted.signature_in(commit.note(self.trusted.name))
        except NoteInvalid:
            return False
        return True

    def _check_tile(self, path: str, content: bytes, width: int) -> None:
        """Compare every file of a tile, full or partial, with what the journal makes of it.

        Args:
            path: of the full one.
            content: what there is of it, `width` wide.
            width: up to 256.
        """
        widths = self.tiles.pop(path, set())
        needed = self._needed_width(path)
        if needed and not {needed, WIDTH} & widths:
            self._found("audit_tile_missing", f"{path} is not there, {needed} wide")
        for one in sorted(widths):
            name = path if one == WIDTH else f"{path}.p/{one}"
            try:
                data = (self.folder / name).read_bytes()
            except FileNotFoundError:
                # A full tile has replaced it since we looked.
                continue
            if one > width:
                self._found("audit_tile_unknown", f"{name} is ahead of the journal")
            elif data != _prefix(path, content, one):
                self._found("audit_tile_wrong", f"{name} does not follow from the journal")

    def _needed_width(self, path: str) -> int:
        """How wide the published checkpoint needs a tile, 0 when it does not."""
        if self.published is None:
            return 0
        _, level, *parts = path.split("/")
        number = int("".join(part.removeprefix("x") for part in parts))
        row = 0 if level == ENTRIES else int(level)
        return max(0, min((self.published.size >> (LEVELS * row)) - number * WIDTH, WIDTH))

    def _check_partials(self) -> None:
        for path, content in self.tiler.partials():
            base, _, width = path.partition(".p/")
            self._check_tile(base, content, int(width))
        for path in self.tiles:
            self._found("audit_tile_unknown", f"{path} is none of this log")


def _listed(folder: Path) -> dict[str, set[int]]:
    """The tiles there are: per path the widths."""
    found: dict[str, set[int]] = {}
    for name in sorted(_files(folder / FOLDER, f"{FOLDER}/")):
        # A part is gone once its tile is full.
        if not os.path.exists(folder / name):
            continue
        match = TILE.fullmatch(name)
        width = int(match[2] or WIDTH) if match else WIDTH
        found.setdefault(match[1] if match else name, set()).add(width)
    return found


def _files(folder: Path | os.DirEntry[str], prefix: str) -> Iterator[str]:
    """The paths of all files in a folder but those that a killed writer has left.

    A large log has tens of thousands.
    """
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry, f"{prefix}{entry.name}/")
            elif not (entry.name.startswith(".") and entry.name.endswith(".new")):
                yield prefix + entry.name


def _published(folder: Path, trusted: Verifier, findings: list[Finding]) -> Checkpoint | None:
    try:
        with open(folder / CHECKPOINT, "rb") as file:
            return verified(file.read(MAX_NOTE_BYTES + 1), trusted)
    except FileNotFoundError:
        findings.append(Finding("audit_checkpoint_missing", f"{CHECKPOINT} is not there"))
    except NoteInvalid as error:
        findings.append(Finding(error.code, f"{CHECKPOINT}: {error.message}"))
    return None


def _prefix(path: str, content: bytes, width: int) -> bytes:
    """The first hashes or entries of a tile."""
    if not path.startswith(tile_path(ENTRIES, 0).rpartition("/")[0]):
        return content[: width * HASH_BYTES]
    end = 0
    for _ in range(width):
        end += 2 + int.from_bytes(content[end : end + 2], "big")
    return content[:end]
