"""The faults the tests make, as a table: `python -m tests.faults` writes docs/faults.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
DOCUMENT = CHECKOUT / "docs" / "faults.md"
MARK = "pytest.mark.fault"
HEAD = """# Faults

What is done to a pool by its tests, and what becomes of it. Each row is a test that makes the fault
and looks for the outcome; a full test run ends with the rows and whether they held. Written by
`python -m tests.faults` from the tests themselves.

| fault | outcome | test |
|---|---|---|
"""


@dataclass(frozen=True)
class Fault:
    """A fault, what becomes of it, and the test that shows it."""

    what: str
    outcome: str
    test: str


def faults() -> Iterator[Fault]:
    """Every test that is marked as one of a fault, by file and line."""
    for path in sorted((CHECKOUT / "tests").rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        # Most have none, and reading them all as Python takes a second.
        if MARK not in text:
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                for what, outcome in _marks(node):
                    where = f"{path.relative_to(CHECKOUT).as_posix()}::{node.name}"
                    yield Fault(what, outcome, where)


def document() -> str:
    """docs/faults.md as it shall be."""
    rows = (f"| {one.what} | {one.outcome} | `{one.test}` |\n" for one in faults())
    return HEAD + "".join(rows)


def _marks(function: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == MARK:
            what, outcome = (ast.literal_eval(word) for word in mark.args)
            yield what, outcome


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
