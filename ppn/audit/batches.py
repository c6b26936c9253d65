"""The journal's format: batches of entries, each ended by a line with a signed checkpoint.

    {...}                              an entry, as many as there are
    = SIZE ROOT SIGNATURE PREVIOUS     the log's checkpoint once it has them

The last three are base64; PREVIOUS is the SHA-256 of the line that ended the batch before, so that
no byte of the journal can change unnoticed. A batch without its last line was never acknowledged.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ppn.audit.checkpoint import Checkpoint
from ppn.audit.entry import MAX_BYTES
from ppn.audit.merkle import HASH_BYTES, Frontier, leaf_hash
from ppn.audit.note import Note, Signature, Signer, from_base64, to_base64

MOST_ENTRIES = 1024
COMMIT = re.compile(
    rb"= (0|[1-9][0-9]{0,15}) ([A-Za-z0-9+/]{43}=) ([A-Za-z0-9+/]{91}=) ([A-Za-z0-9+/]{43}=)\n"
)
# Stands for the line before the first batch.
GENESIS = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Commit:
    """The line that ends a batch.

    Args:
        size: of the log, with the batch.
        root: of the tree, with the batch.
        signature: of the checkpoint that says so: the key's id and what it made.
        previous: hash of the line that ended the batch before.
    """

    size: int
    root: bytes
    signature: bytes
    previous: bytes

    def encode(self) -> bytes:
        """The line, with its end."""
        words = map(to_base64, (self.root, self.signature, self.previous))
        return f"= {self.size} {' '.join(words)}\n".encode()

    def note(self, origin: str) -> Note:
        """The same as a signed note.

        Args:
            origin: the log's name.
        """
        made = Signature(origin, self.signature[:4], self.signature[4:])
        return Note(Checkpoint(origin, self.size, self.root).text(), (made,))


@dataclass(frozen=True)
class Batch:
    """Entries that were written together.

    Args:
        start: offset of its first byte in the journal.
        end: offset behind its last one.
        entries: their bytes.
        commit: the line that ends it.
    """

    start: int
    end: int
    entries: tuple[bytes, ...]
    commit: Commit

    def leaves(self) -> list[bytes]:
        """The hashes of its entries."""
        return [leaf_hash(entry) for entry in self.entries]


@dataclass(frozen=True)
class Position:
    """Between two batches of a journal.

    Args:
        tree: over all entries before; nobody changes it.
        end: offset in the journal.
        head: hash of the line that ended the batch before.
    """

    tree: Frontier
    end: int
    head: bytes

    @property
    def size(self) -> int:
        """How many entries stand before."""
        return self.tree.size

    def checkpoint(self, origin: str) -> Checkpoint:
        """What the log says of itself here.

        Args:
            origin: the log's name.
        """
        return Checkpoint(origin, self.tree.size, self.tree.root())


START = Position(Frontier(), 0, GENESIS)


def line_hash(line: bytes) -> bytes:
    """What the next batch says of the line that ended this one."""
    return hashlib.sha256(line).digest()


def parse_commit(line: bytes) -> Commit | None:
    """The line that ends a batch, None when it is another."""
    match = COMMIT.fullmatch(line)
    if match is None:
        return None
    root, signature, previous = (from_base64(word.decode()) for word in match.groups()[1:])
    if root is None or signature is None or previous is None or len(root) != HASH_BYTES:
        return None
    return Commit(int(match[1]), root, signature, previous)


def make_batch(
    entries: Sequence[bytes], before: Position, signer: Signer
) -> tuple[bytes, Position]:
    """The bytes of a batch, and the position behind it.

    Args:
        entries: their bytes.
        before: where it comes.
        signer: the log's key.
    """
    tree = before.tree.copy()
    for entry in entries:
        tree.add(leaf_hash(entry))
    checkpoint = Checkpoint(signer.name, tree.size, tree.root())
    made = signer.sign(checkpoint.text())
    line = Commit(checkpoint.size, checkpoint.root, made.key_id + made.value, before.head).encode()
    data = b"".join(entry + b"\n" for entry in entries) + line
    return data, Position(tree, before.end + len(data), line_hash(line))


def read_batches(file: BinaryIO, start: int) -> Iterator[Batch]:
    """The batches of a journal from an offset on, up to the first that has no end.

    Only their form is looked at: `advance` says whether one belongs where it stands.

    Args:
        file: the journal.
        start: where a batch begins.
    """
    file.seek(start)
    end = start
    entries: list[bytes] = []
    while line := file.readline(MAX_BYTES + 1):
        end += len(line)
        if not line.endswith(b"\n"):
            return
        if not line.startswith(b"= "):
            entries.append(line[:-1])
            continue
        commit = parse_commit(line)
        if commit is None or not entries:
            return
        yield Batch(start, end, tuple(entries), commit)
        start, entries = end, []


def advance(before: Position, batch: Batch, leaves: Sequence[bytes]) -> Position | None:
    """The position behind a batch; None when the batch does not belong where it stands.

    Args:
        before: where it stands.
        batch: what was read there.
        leaves: hashes of its entries.
    """
    tree = before.tree.copy()
    for leaf in leaves:
        tree.add(leaf)
    commit = batch.commit
    if (commit.size, commit.root, commit.previous) != (tree.size, tree.root(), before.head):
        return None
    return Position(tree, batch.end, line_hash(commit.encode()))
