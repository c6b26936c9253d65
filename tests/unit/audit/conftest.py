"""A place for a log, and a folder in memory for logs that are written and read many times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.unit.audit.places import Place


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with TemporaryDirectory(prefix="ppn-audit-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)
