"""docs/audit.md names every code an auditor can meet."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]
CODE = re.compile(r'"((?:audit|witness)_[a-z_]+)"')


def test_every_code_is_in_the_document() -> None:
    document = (CHECKOUT / "docs" / "audit.md").read_text(encoding="utf-8")
    sources = [*(CHECKOUT / "ppn" / "audit").rglob("*.py")]
    codes = {code for path in sources for code in CODE.findall(path.read_text(encoding="utf-8"))}
    assert len(codes) > 20
    assert {code for code in codes if f"`{code}`" not in document} == set()
