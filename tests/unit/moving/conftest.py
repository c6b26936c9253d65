"""What the tests of moving share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ppn.fleet.moving import drive as drive_module
from tests.unit.moving.controller import Moving


@pytest.fixture
def moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moving]:
    """A controller that does not wait long."""
    monkeypatch.setattr(drive_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(drive_module, "MOST_PAUSE_SECONDS", 0.02)
    made = Moving(tmp_path)
    with made.parts.journal:
        yield made
