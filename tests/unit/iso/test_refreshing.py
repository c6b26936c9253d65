"""`ppn iso lock`: what it writes, what it shows, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer

from iso.archive import ArchiveUnusable
from iso.commands import lock as command
from iso.lock import Archive, Lock
from tests.unit.iso.locks import LOCK, package

NEWER = replace(LOCK, packages=(package("bash", "2"), *LOCK.packages[1:]))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lock, and an archive that has newer things."""
    path = tmp_path / "packages.lock"
    LOCK.write(path)
    monkeypatch.setattr(command, "LOCK_FILE", path)
    answers(monkeypatch, NEWER)
    return path


def answers(monkeypatch: pytest.MonkeyPatch, lock: Lock) -> None:
    """Let the archive be in the state of a lock."""

    def refreshed(told: Callable[[str], None]) -> Lock:
        told("ask")
        return lock

    monkeypatch.setattr(command, "refreshed", refreshed)


def test_a_refresh_writes_and_shows_what_changed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """ISO-02: from which version to which, in which tree."""
    command.lock()
    assert Lock.read(file) == NEWER
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["bash", "version", "1", "2", "node"]
    assert lines[-1].startswith("changed: 3 packages")


def test_a_check_writes_nothing_and_ends_with_a_code(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as ended:
        command.lock(check=True, as_json=True)
    assert ended.value.exit_code == 7
    assert Lock.read(file) == LOCK
    said = json.loads(capsys.readouterr().out)
    assert (said["changed"], said["written"]) == (True, False)
    assert said["changes"] == [
        {"kind": "version", "name": "bash", "before": "1", "after": "2", "trees": ["node"]}
    ]


def test_nothing_new_leaves_the_file_as_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the archive's newer date is written."""
    dates = tuple(Archive(one.name, one.suites, "20270101T000000Z") for one in LOCK.archives)
    answers(monkeypatch, replace(LOCK, archives=dates))
    command.lock(check=True)
    command.lock()
    assert Lock.read(file) == LOCK


@pytest.mark.fault("a mirror serves an old state of the archive, signed", "refused, the lock stays")
def test_updates_are_not_taken_back(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ISO-01: a mirror that lags, or lies."""
    dates = tuple(Archive(one.name, one.suites, "20200101T000000Z") for one in LOCK.archives)
    answers(monkeypatch, replace(NEWER, archives=dates))
    with pytest.raises(ArchiveUnusable):
        command.lock()
    assert Lock.read(file) == LOCK


def test_a_damaged_lock_is_made_anew(file: Path) -> None:
    file.write_text("<<<<<<< ours\n")
    command.lock()
    assert Lock.read(file) == NEWER
