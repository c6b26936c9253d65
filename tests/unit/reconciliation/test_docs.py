"""The user's page names every class: `python -m tests.unit.reconciliation.test_docs` renews it."""

from __future__ import annotations

import re
from pathlib import Path

from ppn.fleet.reconciliation.classes import CLASSES
from ppn.host.agent import alerts

PAGE = Path(__file__).parents[3] / "docs" / "reconciliation.md"
AGENT = PAGE.with_name("agent.md")
ROWS = "".join(f"| `{one.code}` | {one.meaning} | {one.hint} |\n" for one in CLASSES)
HEAD = "| class | what it means | what to do |\n|---|---|---|\n"


def document() -> str:
    """The page with the table as the code has it."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(HEAD)
    return before + HEAD + ROWS + re.sub(r"\A(\|.*\n|CLASSES\n)*", "", rest)


def test_the_page_has_every_class() -> None:
    renew = "run `python -m tests.unit.reconciliation.test_docs`"
    assert PAGE.read_text(encoding="utf-8") == document(), renew


def test_the_agents_page_has_every_alert() -> None:
    source = Path(alerts.__file__).read_text(encoding="utf-8")
    codes = set(re.findall(r'(?:code=|^        )"([a-z]+(?:_[a-z]+)+)"', source, re.MULTILINE))
    assert len(codes) >= 12
    page = AGENT.read_text(encoding="utf-8")
    assert {code for code in codes if f"`{code}`" not in page} == set()


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
