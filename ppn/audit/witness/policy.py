"""What a witness decides: may this checkpoint follow the one it signed last?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ppn.audit.checkpoint import SIZE, Checkpoint
from ppn.audit.merkle import is_consistent
from ppn.audit.note import NoteInvalid, from_base64
from ppn.errors import Refusal

# In which a log sends its key along, beyond what C2SP asks for.
KEY_HEADER = "Ppn-Log-Key"
MOST_PROOF_LINES = 63
OLD = re.compile(r"old (.+)")


class WitnessRefusal(Refusal):
    """A checkpoint that a witness does not sign."""


class SizeConflict(WitnessRefusal):
    """A checkpoint that does not go on from the one the witness signed last.

    Args:
        size: of that one.
    """

    def __init__(self, size: int, offered: int, *, code: str = "audit_size_conflict") -> None:
        super().__init__(
            f"the witness has {size} entries of this log; what was sent goes on from {offered}",
            code=code,
            constraint="one history of a log",
            hint="send a proof from the witness's size",
        )
        self.size = size


@dataclass(frozen=True)
class Submission:
    """What a log sends.

    Args:
        old: the size it believes the witness has.
        proof: of consistency from there on.
        note: the new checkpoint.
    """

    old: int
    proof: tuple[bytes, ...]
    note: bytes


def parse_submission(body: bytes) -> Submission:
    """Read a request.

    Raises:
        WitnessRefusal: `audit_submission_malformed`.
    """
    head, blank, note = body.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise _malformed("the proof is no ASCII") from error
    match = OLD.fullmatch(first)
    if not blank or match is None or not SIZE.fullmatch(match[1]):
        raise _malformed("it does not begin with `old SIZE`")
    proof = [from_base64(line) for line in lines]
    if len(proof) > MOST_PROOF_LINES or any(one is None or len(one) != 32 for one in proof):
        raise _malformed("a line of the proof is no hash, or they are too many")
    return Submission(int(match[1]), tuple(one for one in proof if one is not None), note)


Verdict = Literal["sign", "fork", "inconsistent"]


def judge(kept: Checkpoint | None, offered: Checkpoint, submission: Submission) -> Verdict:
    """Whether a checkpoint may be signed.

    Args:
        kept: the last one that was signed of this log.
        offered: the new one; the log's signature is verified.
        submission: how it came.

    Returns:
        `sign`; `fork` when both have one size and two roots; `inconsistent` when the proof does not
        show that the new one begins with the old one.

    Raises:
        SizeConflict: it goes on from another size than the witness has.
        WitnessRefusal: `audit_submission_malformed`.
    """
    size = kept.size if kept else 0
    if submission.old > offered.size:
        raise _malformed("the old size is larger than the checkpoint's")
    if submission.old != size:
        raise SizeConflict(size, submission.old)
    if kept is not None and kept.size == offered.size and kept.root != offered.root:
        return "fork"
    if kept is None or size == 0:
        return "inconsistent" if submission.proof else "sign"
    sound = is_consistent(size, kept.root, offered.size, offered.root, submission.proof)
    return "sign" if sound else "inconsistent"


def refused(error: NoteInvalid) -> WitnessRefusal:
    """A checkpoint that cannot be read, or that its log has not signed."""
    return WitnessRefusal(
        error.message, code=error.code, constraint="signature of the log", hint=error.hint
    )


def _malformed(what: str) -> WitnessRefusal:
    return WitnessRefusal(
        f"this is no submission of a checkpoint: {what}",
        code="audit_submission_malformed",
        constraint="C2SP tlog-witness",
        hint="see c2sp.org/tlog-witness",
    )
