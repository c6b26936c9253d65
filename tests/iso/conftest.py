"""One image for all tests of this folder, and firmware that knows its keys or enforces them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.medium import Medium, firmware_memory, throwaway_medium


@pytest.fixture(scope="package")
def medium() -> Medium:
    """The image, signed with throwaway keys, and the key that may sign its site settings."""
    return throwaway_medium()


@pytest.fixture
def enforcing(medium: Medium, tmp_path: Path) -> Path:
    """The memory of a firmware with our keys, Secure Boot on."""
    return memory(medium, tmp_path, enforced=True)


def memory(medium: Medium, folder: Path, *, enforced: bool) -> Path:
    """A firmware's memory as a file."""
    path = folder / "firmware.fd"
    path.write_bytes(firmware_memory(medium.image, enforced=enforced))
    return path
