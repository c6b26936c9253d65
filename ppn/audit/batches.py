"""The journal's format: batches of entries, each ended by a line with a signed checkpoint.

    {...}                     an entry, as many as there are
    = SIZE ROOT SIGNATURE     the log's checkpoint once it has them

Root and signature are base64. A batch without its last line was never acknowledged to anyone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ppn.audit.checkpoint import Checkpoint
from ppn.audit.entry import MAX_BYTES
from ppn.audit.merkle import HASH_BYTES, Frontier, leaf_hash
from ppn.audit.note import Note, Signature, Signer, from_base64, to_base64

MOST_ENTRIES = 1024
COMMIT = re.compile(rb"= (0|[1-9][0-9]{0,15}) ([A-Za-z0-9+/]{43}=) ([A-Za-z0-9+/]{91}=)\n")


@dataclass(frozen=True)
class Commit:
    """The line that ends a batch.

    Args:
        size: of the log, with the batch.
        root: of the tree, with the batch.
        signature: of the checkpoint that says so: the key's id and what it made.
    """

    size: int
    root: bytes
    signature: bytes

    def encode(self) -> bytes:
        """The line, with its end."""
        return f"= {self.size} {to_base64(self.root)} {to_base64(self.signature)}\n".encode()

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


def parse_commit(line: bytes) -> Commit | None:
    """The line that ends a batch, None when it is another."""
    match = COMMIT.fullmatch(line)
    if match is None:
        return None
    root, signature = from_base64(match[2].decode()), from_base64(match[3].decode())
    if root is None or signature is None or len(root) != HASH_BYTES:
        return None
    return Commit(int(match[1]), root, signature)


def make_batch(
    entries: Sequence[bytes], before: Frontier, signer: Signer
) -> tuple[bytes, Frontier]:
    """The bytes of a batch, and the tree once it is there.

    Args:
        entries: their bytes.
        before: the tree as it is; left alone.
        signer: the log's key.
    """
    after = before.copy()
    for entry in entries:
        after.add(leaf_hash(entry))
    checkpoint = Checkpoint(signer.name, after.size, after.root())
    made = signer.sign(checkpoint.text())
    commit = Commit(checkpoint.size, checkpoint.root, made.key_id + made.value)
    return b"".join(entry + b"\n" for entry in entries) + commit.encode(), after


def read_batches(file: BinaryIO, start: int) -> Iterator[Batch]:
    """The batches of a journal from an offset on, up to the first that has no end.

    Only their form is looked at: whether entries and root belong together is for the caller.

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


def add_batch(tree: Frontier, batch: Batch) -> Frontier | None:
    """The tree with a batch; None when the batch's own line says otherwise.

    Args:
        tree: the tree before; left alone.
        batch: what follows in the journal.
    """
    grown = tree.copy()
    for entry in batch.entries:
        grown.add(leaf_hash(entry))
    fits = (grown.size, grown.root()) == (batch.commit.size, batch.commit.root)
    return grown if fits else None
