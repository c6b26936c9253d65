"""Two checkpoints of one log: do they go together?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppn.audit.checkpoint import Checkpoint
from ppn.audit.note import Verifier
from ppn.audit.verify import Known, verify


@dataclass(frozen=True)
class Comparison:
    """What two checkpoints say about their log.

    Args:
        verdict: `fork`: the log signed two histories, and the two are the proof; `same`: they are
            one; `consistent`: the log shown holds both; `undecided`: the log is needed to tell.
        first: the smaller one.
        second: the larger one.
        against: which of them the log shown contradicts.
    """

    verdict: Literal["fork", "same", "consistent", "undecided"]
    first: Checkpoint
    second: Checkpoint
    against: tuple[str, ...] = ()


def compare(
    one: Checkpoint, other: Checkpoint, trusted: Verifier, folder: Path | None = None
) -> Comparison:
    """Compare two checkpoints whose log's signature was verified.

    Args:
        one: of the log.
        other: of the same log.
        trusted: the log's key.
        folder: the log itself: needed to tell when the sizes differ.

    Raises:
        OSError: the log cannot be read.
    """
    first, second = sorted((one, other), key=lambda checkpoint: checkpoint.size)
    if first.size == second.size:
        return Comparison("same" if first.root == second.root else "fork", first, second)
    if folder is None:
        return Comparison("undecided", first, second)
    known = [Known(f"the checkpoint of {one.size}", one) for one in (first, second)]
    report = verify(folder, trusted, known)
    against = tuple(
        f.message for f in report.findings if f.code in ("audit_fork", "audit_rollback")
    )
    # A log that goes on from one of them and not from the other: it signed both.
    verdict: Literal["fork", "consistent", "undecided"] = "consistent"
    codes = {one.code for one in report.findings}
    # A log that it has not signed accuses nobody.
    if "audit_fork" in codes and not codes & {"audit_signature_wrong", "audit_key_wrong"}:
        verdict = "fork"
    elif report.findings:
        verdict = "undecided"
    return Comparison(verdict, first, second, against)
