"""The published description is current, and says what the routes do."""

from __future__ import annotations

import json
from pathlib import Path

from ppn.host.proxy.openapi import document
from ppn.host.proxy.routes import OPENAPI_PATH, ROUTES
from ppn.host.spec import VmSpec

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "openapi" / "node-proxy.json"
RENEW = "run `python -m tests.unit.proxy.test_openapi` and commit what it writes"


def text() -> str:
    """The description as it is committed."""
    return json.dumps(document(), indent=2, sort_keys=True) + "\n"


def test_committed_copy_is_current() -> None:
    """NP-05."""
    assert COMMITTED.read_text(encoding="utf-8") == text(), RENEW


def test_every_route_is_described() -> None:
    """NP-05."""
    described = {
        (method.upper(), path)
        for path, methods in document()["paths"].items()
        for method in methods
    }
    assert described == {(one.method, one.path) for one in ROUTES} | {("GET", OPENAPI_PATH)}


def test_a_vm_is_described_as_it_is_judged() -> None:
    schema = document()["components"]["schemas"]["VmSpec"]
    assert set(schema["properties"]) == set(VmSpec.model_fields)
    assert schema["additionalProperties"] is False
    # The model fills it in from the name.
    assert "hostname" not in schema["required"]


if __name__ == "__main__":
    COMMITTED.write_text(text(), encoding="utf-8")
