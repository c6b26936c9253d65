"""The journal of intents: durable before, forgotten after, whole at every crash point."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from ppn.fleet.journal import Intent, Journal, JournalDamaged


def intent(name: str, batch: str = "") -> Intent:
    """An intent that differs by its id."""
    return Intent(id=name, owner="acme", digest="d" * 64, node="server", batch=batch)


def found(path: Path) -> set[str]:
    """The ids a controller finds when it starts."""
    with Journal(path) as journal:
        return set(journal.intents)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "intents.jsonl"


def test_intents_are_found_after_a_crash(path: Path) -> None:
    """FLEET-19."""
    with Journal(path) as journal:
        journal.intend(intent("vm-a"))
        journal.intend(intent("vm-b", "batch-1"), intent("vm-c", "batch-1"))
        journal.end("vm-a", "vm-unknown")
    with Journal(path) as journal:
        assert journal.intents == {
            "vm-b": intent("vm-b", "batch-1"),
            "vm-c": intent("vm-c", "batch-1"),
        }


@pytest.mark.exhaustive
def test_every_torn_tail_leaves_a_whole_batch_or_none(path: Path) -> None:
    """FLEET-12: begin and end of a batch are one line each."""
    with Journal(path) as journal:
        journal.intend(intent("vm-a", "batch-1"), intent("vm-b", "batch-1"))
        journal.end("vm-a", "vm-b")
        content = path.read_bytes()
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        assert found(path) in (set(), {"vm-a", "vm-b"})


def test_full_disk_leaves_what_was_there(path: Path) -> None:
    """A write that fails half-way is taken back, and later ones are read again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.intend(intent("vm-a"))
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, before[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                journal.intend(intent("vm-b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.stat().st_size == size and set(journal.intents) == {"vm-a"}
        journal.intend(intent("vm-c"))
    assert found(path) == {"vm-a", "vm-c"}


def test_it_does_not_grow_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppn.fleet.journal.COMPACT_LINES", 10)
    with Journal(path) as journal:
        journal.intend(intent("vm-kept"))
        for number in range(100):
            journal.intend(intent(f"vm-{number}"))
            journal.end(f"vm-{number}")
        assert path.read_bytes().count(b"\n") <= 12
    assert found(path) == {"vm-kept"}


def test_no_room_to_write_it_anew_is_made_good_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that is on disk is no failure, and what follows is kept once there is room."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ppn.fleet.journal.COMPACT_LINES", 1)
    with Journal(path) as journal:
        journal.intend(intent("vm-a"), intent("vm-b"))
        with monkeypatch.context() as patched:
            patched.setattr("ppn.fleet.journal.write_atomic", full)
            journal.end("vm-a")
            with pytest.raises(OSError, match="No space"):
                journal.intend(intent("vm-c"))
        journal.intend(intent("vm-d"))
        assert set(journal.intents) == {"vm-b", "vm-d"}
    assert found(path) == {"vm-b", "vm-d"}


def test_a_damaged_line_is_not_guessed_at(path: Path) -> None:
    with Journal(path) as journal:
        journal.intend(intent("vm-a"))
    path.write_bytes(b"{}x\n" + path.read_bytes())
    with pytest.raises(JournalDamaged):
        Journal(path)
