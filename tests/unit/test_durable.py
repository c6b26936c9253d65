"""What has its name is on the disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ppn.durable import put_in_place


def test_a_file_gets_its_name_when_its_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the name and before the bytes would leave an empty file of that name."""
    done = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    (tmp_path / "draft").write_text("new")
    (tmp_path / "file").write_text("old")
    put_in_place(tmp_path / "draft", tmp_path / "file")
    assert done == ["file", "name", "folder"]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "new"}
