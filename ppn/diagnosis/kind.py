"""A kind of cause: how it is told, what to do, and by which signs it is known."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ppn.diagnosis.evidence import Source, Statement

WHEREVER: frozenset[Source] = frozenset({"answer", "placement", "operation", "alert"})
QEMU: frozenset[Source] = frozenset({"qemu", "operation"})
CONSOLE: frozenset[Source] = frozenset({"console"})


@dataclass(frozen=True)
class Kind:
    """A kind of cause.

    Args:
        code: stable.
        title: what is wrong.
        step: what to do; `{node}` and `{subject}` stand for names.
        codes: of errors and alerts that mean it, whatever the words.
        said: a pattern of words that mean it.
        among: codes that may stand with these words; empty for any, and none.
        sources: whose words count.
        grade: a `warning` is told and does not keep anything from working.
    """

    code: str
    title: str
    step: str
    codes: frozenset[str] = frozenset()
    said: str = ""
    among: frozenset[str] = frozenset()
    sources: frozenset[Source] = WHEREVER
    grade: Literal["error", "warning"] = "error"

    def explains(self, statement: Statement) -> bool:
        """Whether a statement is of this kind; a kind without signs is only ever reckoned."""
        if statement.source not in self.sources:
            return False
        if statement.code in self.codes:
            return True
        if not self.said or (self.among and statement.code not in self.among):
            return False
        return re.search(self.said, statement.text, re.IGNORECASE) is not None


def codes_of(*codes: str) -> frozenset[str]:
    """Codes as a kind takes them."""
    return frozenset(codes)
