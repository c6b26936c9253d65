"""Exit codes follow from what a service answers, and are the documented ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ppn.cli.exits import MEANING, OWN_STATUS, Exit, exit_of
from ppn.errors import PpnError, Refusal
from ppn.wire.problems import STATUS_OF_CODE

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PpnError("x", code="libvirt_failed"), Exit.FAILED),
        (PpnError("x", code="controller_unreachable"), Exit.UNREACHABLE),
        (PpnError("x", code="server_untrusted"), Exit.UNAUTHORISED),
        (PpnError("x", code="outcome_unknown"), Exit.UNREACHABLE),
        (PpnError("x", code="node_unknown"), Exit.NOT_FOUND),
        (Refusal("x", code="vm_unknown", constraint="c"), Exit.NOT_FOUND),
        (Refusal("x", code="memory_exhausted", constraint="c"), Exit.REFUSED),
        (Refusal("x", code="quota_exceeded", constraint="c"), Exit.REFUSED),
        (Refusal("x", code="spec_invalid", constraint="c"), Exit.REFUSED),
        (Refusal("x", code="source_wrong", constraint="c"), Exit.UNAUTHORISED),
        (Refusal("x", code="plain_http", constraint="c"), Exit.UNAUTHORISED),
        (Refusal("x", code="warming_up", constraint="c"), Exit.UNREACHABLE),
    ],
)
def test_exit_codes(error: PpnError, code: Exit) -> None:
    """CLI-01: a script can tell why, without reading words."""
    assert exit_of(error) == code


@pytest.mark.parametrize("code", [*STATUS_OF_CODE, *OWN_STATUS])
def test_no_error_ends_well(code: str) -> None:
    for error in (PpnError("x", code=code), Refusal("x", code=code, constraint="c")):
        assert exit_of(error) not in (Exit.DONE, Exit.USAGE, Exit.FINDINGS)


def test_the_documented_table_is_current() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(str(code.value), meaning) for code, meaning in MEANING.items()]
