"""The ledger as a file: extended, installed, killed at any point."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.pool import store
from ppn.pool.ledger import (
    EMPTY,
    Change,
    Grant,
    LedgerDamaged,
    NotAnExtension,
    Withdrawal,
    append,
)
from tests.unit.pool.samples import KEY, NOW, OTHER_KEY, TRUSTED, ledger


def test_extending_twice_appends_once(tmp_path: Path) -> None:
    """CPU-03: only what is pending is signed; the second time nothing is."""
    path = tmp_path / "ledger.jsonl"
    wanted: dict[str, Change] = {"a": Grant("a", 300, 64), "b": Grant("b", 100, 64)}
    assert store.load(path, TRUSTED) == EMPTY
    assert store.extend(path, KEY, wanted, NOW) == tuple(wanted.values())
    found, before = path.stat(), path.read_bytes()
    assert store.extend(path, KEY, wanted, NOW) == ()
    assert (path.read_bytes(), path.stat().st_ino) == (before, found.st_ino)
    wanted["a"] = Withdrawal("a")
    assert store.extend(path, KEY, wanted, NOW) == (Withdrawal("a"),)
    assert path.read_bytes().startswith(before)
    assert store.load(path, TRUSTED).latest("a") is None


def test_nothing_pending_makes_no_file(tmp_path: Path) -> None:
    """A pool without VMs has no ledger."""
    assert store.extend(tmp_path / "ledger.jsonl", KEY, {}, NOW) == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"x", ledger(3)[:-1], ledger(3, key=OTHER_KEY)])
def test_a_damaged_ledger_is_not_extended(tmp_path: Path, content: bytes) -> None:
    """LED-01: nothing is signed on top of what does not verify."""
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(content)
    with pytest.raises(LedgerDamaged):
        store.extend(path, KEY, {"a": Grant("a", 1, 0)}, NOW)
    with pytest.raises(LedgerDamaged):
        store.load(path, TRUSTED)
    assert path.read_bytes() == content


def test_installation_takes_extensions_only(tmp_path: Path) -> None:
    """LED-01: longer is taken, the same changes nothing, shorter and other are refused."""
    path = tmp_path / "var/lib/ppn/ledger.jsonl"
    assert store.install(path, ledger(3), TRUSTED).changed
    inode = path.stat().st_ino
    assert not store.install(path, ledger(3), TRUSTED).changed
    assert path.stat().st_ino == inode
    done = store.install(path, ledger(5), TRUSTED)
    assert (done.changed, len(done.ledger.entries), done.repaired) == (True, 5, None)
    for refused, code, entry in (
        (ledger(4), "ledger_rollback", 5),
        (fork(), "ledger_fork", 1),
    ):
        with pytest.raises(NotAnExtension) as error:
            store.install(path, refused, TRUSTED)
        assert (error.value.code, error.value.entry) == (code, entry)
        assert error.value.as_dict()["entry"] == entry
    for damaged in (b"", ledger(6)[:-1], ledger(6, key=OTHER_KEY), ledger(6) + b"x"):
        with pytest.raises(LedgerDamaged):
            store.install(path, damaged, TRUSTED)
    assert path.read_bytes() == ledger(5)
    assert [p.name for p in path.parent.iterdir()] == ["ledger.jsonl"]


def fork() -> bytes:
    """Six entries of the same key, the first already another."""
    return append(b"", KEY, tuple(Grant("fork", 1 + i, 0) for i in range(6)), NOW)


def test_a_hand_edited_copy_is_corrected(tmp_path: Path) -> None:
    """CPU-03: a node's copy that was edited is replaced, and the damage is told."""
    path = tmp_path / "ledger.jsonl"
    store.install(path, ledger(5), TRUSTED)
    path.write_bytes(ledger(5).replace(b'"weight":12}', b'"weight":99}'))
    with pytest.raises(LedgerDamaged) as damaged:
        store.load(path, TRUSTED)
    assert (damaged.value.code, damaged.value.entry) == ("ledger_bad_signature", 2)
    done = store.install(path, ledger(5), TRUSTED)
    assert done.changed and done.repaired is not None
    assert done.repaired.entry == 2
    assert store.load(path, TRUSTED).entries == done.ledger.entries


def test_paths_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    """A folder in the file's place and a missing folder are errors of ppn, with a next step."""
    with pytest.raises(store.LedgerUnavailable) as refused:
        store.load(tmp_path, TRUSTED)
    assert str(tmp_path) in refused.value.message and refused.value.hint
    with pytest.raises(store.LedgerUnavailable):
        store.extend(tmp_path / "none/ledger.jsonl", KEY, {"a": Grant("a", 1, 0)}, NOW)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(store.LedgerUnavailable):
        store.install(tmp_path / "file/ledger.jsonl", ledger(1), TRUSTED)


def test_more_bytes_than_any_ledger_are_refused(tmp_path: Path) -> None:
    """Memory is bounded whatever the file."""
    path = tmp_path / "ledger.jsonl"
    with path.open("wb") as file:
        file.truncate(store.MAX_LEDGER_BYTES + 1)
    with pytest.raises(store.LedgerUnavailable) as refused:
        store.load(path, TRUSTED)
    assert refused.value.code == "ledger_too_large"
