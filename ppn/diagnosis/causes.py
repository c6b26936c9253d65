"""The causes that evidence shows, the most basic first: `diagnose` is all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ppn.diagnosis.catalogue import CATALOGUE, RANK, kind_named, kind_of
from ppn.diagnosis.evidence import Evidence, Statement, statements
from ppn.diagnosis.kind import Kind
from ppn.diagnosis.reckoned import reckoned

LINES_KEPT = 8
# Told of what is only a consequence when a cause is known.
CONSEQUENCES = frozenset({"vm_unknown", "node_unknown"})
# Sources whose words are only searched; nobody says there that something failed.
SEARCHED = frozenset({"qemu", "console"})


@dataclass(frozen=True)
class Cause:
    """Something that is wrong.

    Args:
        code: stable; see docs/troubleshooting.md.
        grade: a `warning` keeps nothing from working.
        title: what is wrong, naming the node or VM.
        step: what to do next.
        evidence: what shows it, word for word.
    """

    code: str
    grade: str
    title: str
    step: str
    evidence: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The cause as plain data."""
        return {
            "code": self.code,
            "grade": self.grade,
            "cause": self.title,
            "next_step": self.step,
            "evidence": list(self.evidence),
        }


def diagnose(evidence: Evidence) -> tuple[Cause, ...]:
    """Every cause that the evidence shows, the likeliest first; none when nothing is wrong.

    Args:
        evidence: what was found out.
    """
    found: dict[tuple[str, str], Cause] = {}
    for code, node, line in reckoned(evidence):
        _add(found, kind_named(code), line, node, evidence)
    for statement in statements(evidence):
        if statement.code == "not_chosen":
            continue
        kind = kind_of(statement)
        if kind is not None:
            _add(found, kind, str(statement), statement.node or evidence.node_name, evidence)
        elif statement.source not in SEARCHED:
            _add_unknown(found, statement)
    causes = sorted(found.values(), key=_rank)
    known = [cause for cause in causes if cause.code not in CONSEQUENCES]
    if any(cause.grade == "error" for cause in known):
        return tuple(known)
    return tuple(causes)


def _add(
    found: dict[tuple[str, str], Cause], kind: Kind, line: str, node: str, evidence: Evidence
) -> None:
    """Note a cause, or one more line for it; one cause on many nodes is one."""
    key = (kind.code, "")
    if key in found:
        before = found[key]
        lines = before.evidence if line in before.evidence else (*before.evidence, line)
        found[key] = replace(before, evidence=lines[:LINES_KEPT])
        return
    names = {"node": node or "the node", "subject": evidence.subject or "it"}
    found[key] = Cause(
        kind.code, kind.grade, kind.title.format(**names), kind.step.format(**names), (line,)
    )


def _add_unknown(found: dict[tuple[str, str], Cause], statement: Statement) -> None:
    """What has no name here is told as it was said."""
    found.setdefault(
        (statement.code, statement.text),
        Cause(
            statement.code or "unknown",
            "error",
            statement.text or f"{statement.who} failed",
            statement.hint or "look into the service's log for the correlation id",
            (str(statement),),
        ),
    )


def _rank(cause: Cause) -> tuple[bool, int]:
    return (cause.grade == "warning", RANK.get(cause.code, len(CATALOGUE)))


def document() -> Iterator[str]:
    """The table of docs/troubleshooting.md, line by line."""
    yield "| code | what is wrong | next step |"
    yield "|---|---|---|"
    names = {"node": "NODE", "subject": "ID"}
    for kind in CATALOGUE:
        grade = " (warning)" if kind.grade == "warning" else ""
        title, step = (text.format(**names) for text in (kind.title, kind.step))
        yield f"| `{kind.code}`{grade} | {title} | {step} |"
