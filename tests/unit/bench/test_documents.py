"""What the operators' documents say is what the code does."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.host.images import Manifest
from ppn.host.spec import VmSpec

CHECKOUT = Path(__file__).resolve().parents[3]
VMS = (CHECKOUT / "docs" / "vms.md").read_text(encoding="utf-8")
IMAGES = (CHECKOUT / "docs" / "images.md").read_text(encoding="utf-8")
FIRST_CELL = re.compile(r"^\| (.*?) \|", re.MULTILINE)
WORD = re.compile(r"`([a-z0-9_]+)`")


def first_cells(document: str) -> set[str]:
    """Every name in the first column of the document's tables."""
    return {word for cell in FIRST_CELL.findall(document) for word in WORD.findall(cell)}


def refusal_codes() -> Iterator[re.Pattern[str]]:
    """The codes of the refusals that judge a VM, as the source gives them."""
    for name in ("addresses.py", "policy.py", "spec.py", "detach.py", "network.py", "ports.py"):
        tree = ast.parse((CHECKOUT / "ppn" / "host" / name).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "code" and not is_passed_on(node):
                yield re.compile(pattern(node.value))


def is_passed_on(keyword: ast.keyword) -> bool:
    """Whether a code is only handed from a function's own parameter to the refusal."""
    return isinstance(keyword.value, ast.Name) and keyword.value.id == "code"


def pattern(value: ast.expr) -> str:
    """A code as a pattern; what a formatted code puts in is any word."""
    if isinstance(value, ast.Constant):
        return re.escape(str(value.value))
    if isinstance(value, ast.JoinedStr):
        return "".join(
            re.escape(str(part.value)) if isinstance(part, ast.Constant) else "[a-z]+"
            for part in value.values
        )
    raise AssertionError(f"a code that is no text: {ast.dump(value)}")


def test_every_refusal_is_in_the_table() -> None:
    """HOST-11: what is refused is documented."""
    documented = first_cells(VMS)
    codes = list(refusal_codes())
    assert len(codes) > 15
    assert [one.pattern for one in codes if not any(map(one.fullmatch, documented))] == []


def test_no_refusal_is_invented() -> None:
    sources = "".join(path.read_text("utf-8") for path in (CHECKOUT / "deploys").glob("*.py"))
    section = VMS.partition("## Refusals")[2].partition("## Network")[0]
    codes = list(refusal_codes())
    for code in first_cells(section):
        assert any(one.fullmatch(code) for one in codes) or f"({code})" in sources, code


def test_every_key_of_a_vm_is_described() -> None:
    section = VMS.partition("## What can be declared")[2].partition("## States")[0]
    assert first_cells(section) == {*VmSpec.model_fields, "weight", "minimum_mib"}


def test_every_key_of_a_manifest_is_described() -> None:
    assert first_cells(IMAGES) == set(Manifest.model_fields)


@pytest.mark.parametrize("document", ["vms.md", "images.md", "certificates.md"])
def test_links_lead_somewhere(document: str) -> None:
    text = (CHECKOUT / "docs" / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (CHECKOUT / "docs" / target).exists()


def test_manifest_in_the_document_is_one() -> None:
    block = IMAGES.partition("```json\n")[2].partition("```")[0]
    assert json.loads(block).keys() == Manifest.model_fields.keys()
    Manifest.model_validate_json(block)
