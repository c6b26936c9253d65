"""Checkpoints: what a log says of itself, signed (C2SP tlog-checkpoint)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ppn.audit.merkle import HASH_BYTES
from ppn.audit.note import (
    LOG,
    Note,
    NoteInvalid,
    Signer,
    Verifier,
    from_base64,
    parse_note,
    to_base64,
)

SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True)
class Checkpoint:
    """How large a log is, and the root of its tree.

    Args:
        origin: the log's name.
        size: how many entries it has.
        root: of the Merkle tree over them.
    """

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


def origin_of(node: str) -> str:
    """The name of the audit log that a node of the inventory keeps."""
    return f"ppn/audit/{node}"


def witness_name(node: str) -> str:
    """The name under which a node of the inventory witnesses."""
    return f"ppn/witness/{node}"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text; lines behind the first three are of no concern here.

    Raises:
        NoteInvalid: not in the format.
    """
    lines = text.split("\n")
    root = from_base64(lines[2]) if len(lines) >= 4 else None
    if root is None or len(root) != HASH_BYTES or not lines[0] or not SIZE.fullmatch(lines[1]):
        raise NoteInvalid("this is no checkpoint", code="audit_checkpoint_malformed")
    if lines[-1] or "" in lines[3:-1]:
        raise NoteInvalid("a checkpoint has an empty line", code="audit_checkpoint_malformed")
    return Checkpoint(lines[0], int(lines[1]), root)


def verified(data: bytes, trusted: Verifier) -> Checkpoint:
    """The checkpoint in a note, when the log's key signed it.

    Args:
        data: the note.
        trusted: the log's key, under the log's origin.

    Raises:
        NoteInvalid: malformed, of another log, or not signed by that key.
    """
    note = parse_note(data)
    found = parse_checkpoint(note.text)
    if trusted.kind != LOG:
        raise NoteInvalid(f"{trusted.name} is a witness, not a log", code="audit_key_wrong")
    if found.origin != trusted.name:
        raise NoteInvalid(
            f"the checkpoint is of {found.origin}, not of {trusted.name}",
            code="audit_origin_wrong",
            hint="compare the log and the key",
        )
    trusted.signature_in(note)
    return found


def signed(checkpoint: Checkpoint, signer: Signer) -> Note:
    """A checkpoint with the log's signature."""
    text = checkpoint.text()
    return Note(text, (signer.sign(text),))
