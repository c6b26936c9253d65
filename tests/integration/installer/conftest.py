"""Loop devices that stand in for disks and sticks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Attach = Callable[..., Path]


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    """Makes loop devices: `attach(mib)`, and words for losetup after it."""
    devices: list[Path] = []

    def made(mib: int, *words: str) -> Path:
        file = tmp_path / f"disk{len(devices)}"
        with file.open("wb") as opened:
            opened.truncate(mib * 1024**2)
        argv = ["losetup", "--find", "--show", *words, str(file)]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30)
        devices.append(Path(said.stdout.strip()))
        return devices[-1]

    yield made
    for device in devices:
        subprocess.run(["losetup", "--detach", str(device)], check=True, timeout=30)
