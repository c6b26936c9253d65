"""docs/troubleshooting.md is written from the catalogue, and is current."""

from __future__ import annotations

from pathlib import Path

from ppn.diagnosis.catalogue import CATALOGUE
from ppn.diagnosis.causes import document

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "troubleshooting.md"
RENEW = "run `python -m tests.unit.diagnosis.test_document` and commit what it writes"
HEAD = """# Troubleshooting

One command names the cause and the next step:

    ppn debug vm ID        # why a VM was not made, does not run, or is where it is
    ppn debug node NAME    # why a node cannot be used; without NAME, as root, the node you are on
    ppn debug mesh         # why nodes do not reach each other

The causes come first, the most basic one at the top, each with what shows it; then everything that
was found out. A failed `ppn vm create` ends with the `ppn debug` that explains it. With `--json`
there are `causes` and `evidence`. The exit code is 0 when nothing is wrong, 7 when a cause was
found; a warning alone is 0. Nothing of a guest's memory, disks or seed is shown but its serial
console.

`ppn debug vm` shows the placement decision of the controller it asks, which keeps its last 1,024
until it restarts; with several controllers, ask the one that took the order. `ppn debug node`
without a name and `ppn debug mesh` also work when no service answers any more.

## Causes

In the order in which they explain each other. What has no name here is told in the words it was
reported with.

"""


def text() -> str:
    """The page as it shall be."""
    return HEAD + "\n".join(document()) + "\n"


def test_the_committed_page_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == text(), RENEW


def test_codes_are_named_once() -> None:
    codes = [kind.code for kind in CATALOGUE]
    assert len(codes) == len(set(codes)) and len(codes) > 40


if __name__ == "__main__":
    COMMITTED.write_text(text(), encoding="utf-8")
