"""A folder in memory, for logs that are written and read thousands of times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with TemporaryDirectory(prefix="ppn-audit-", dir="/dev/shm") as folder:
        yield Path(folder)
