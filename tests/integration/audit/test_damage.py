"""Every way to damage a log is found and named (TEN-12)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ppn.audit.batches import read_batches
from ppn.audit.checkpoint import Checkpoint, signed
from ppn.audit.diagnosis import Finding
from ppn.audit.note import Signer
from ppn.audit.verify import Known, Report, verify
from tests.unit.audit.samples import (
    BATCHES,
    KEY,
    ORIGIN,
    OTHER_KEY,
    QUICK,
    SIGNER,
    TRUSTED,
    make_log,
)

ENTRIES = sum(BATCHES)


@pytest.fixture(scope="module")
def log() -> Iterator[Path]:
    """A sound log of fifty entries; whoever changes it puts it back."""
    with TemporaryDirectory(prefix="ppn-audit-", dir="/dev/shm") as root:
        folder = Path(root) / "log"
        make_log(folder)
        yield folder


@contextmanager
def put(path: Path, content: bytes) -> Iterator[None]:
    """Give a file another content for a while."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def report(folder: Path) -> Report:
    """What verifying says."""
    return verify(folder, QUICK)


def findings(folder: Path) -> list[str]:
    """The codes of what is wrong; fails when nothing is."""
    found = report(folder)
    assert found.findings, "taken for sound"
    assert not found.torn_bytes
    return [one.code for one in found.findings]


def files(folder: Path) -> list[Path]:
    """All files of a log."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def lines(folder: Path) -> list[bytes]:
    """The lines of a journal with their ends."""
    return (folder / "journal").read_bytes().splitlines(keepends=True)


def places(folder: Path) -> list[int]:
    """Which lines of a journal are entries."""
    return [i for i, line in enumerate(lines(folder)) if not line.startswith(b"= ")]


def test_a_sound_log_has_no_findings(log: Path) -> None:
    """TEN-12: no false alarm."""
    found = report(log)
    assert (found.size, found.published, found.findings) == (ENTRIES, ENTRIES, ())
    assert len(places(log)) == ENTRIES
    # Each publication left its partial tiles.
    assert len(files(log)) == 2 + 2 * len(BATCHES)


PARTS = ("journal", "checkpoint", "tile/0/000.p/50", "tile/entries/000.p/50")


@pytest.mark.parametrize("part", PARTS)
def test_every_single_byte_mutation_is_found(part: str, in_memory: Path) -> None:
    """TEN-12: every byte of every file of the log, one bit flipped."""
    folder = in_memory / "log"
    make_log(folder, first=len(BATCHES) - 1)
    assert files(folder) == sorted(folder / one for one in PARTS)
    sound = (folder / part).read_bytes()
    descriptor = os.open(folder / part, os.O_WRONLY)
    for place, byte in enumerate(sound):
        os.pwrite(descriptor, bytes([byte ^ 1]), place)
        found = report(folder)
        assert found.findings and not found.torn_bytes, place
        os.pwrite(descriptor, sound[place : place + 1], place)
    os.close(descriptor)
    assert report(folder).findings == ()


def test_every_altered_entry_is_named(log: Path) -> None:
    """TEN-12: the number of the entry, whatever byte of it was changed."""
    whole = lines(log)
    for index, place in enumerate(places(log)):
        line = whole[place]
        changed = [*whole]
        changed[place] = line.replace(b'"tenant":"', b'"tenant":"x')
        with put(log / "journal", b"".join(changed)):
            (found,) = report(log).findings
            assert (found.code, found.index) == ("audit_entry_altered", index)


def test_every_deleted_entry_is_named(log: Path) -> None:
    """TEN-12: each entry taken out, and each line that ends a batch."""
    whole = lines(log)
    entries = places(log)
    for place in range(len(whole)):
        kept = whole[:place] + whole[place + 1 :]
        with put(log / "journal", b"".join(kept)):
            (found,) = report(log).findings
        if place not in entries:
            assert found.code == "audit_commit_damaged"
        elif place == entries[-1]:
            assert (found.code, found.index) == ("audit_truncated", ENTRIES - 1)
        else:
            assert (found.code, found.index) == ("audit_entry_deleted", entries.index(place))


def test_every_swap_and_every_copy_is_named(log: Path) -> None:
    """TEN-12: any two entries exchanged; any entry a second time behind itself or at the end."""
    whole = lines(log)
    entries = places(log)
    for first in range(ENTRIES):
        for second in range(first + 1, ENTRIES):
            one, other = entries[first], entries[second]
            swapped = [*whole]
            swapped[one], swapped[other] = swapped[other], swapped[one]
            with put(log / "journal", b"".join(swapped)):
                (found,) = report(log).findings
            assert (found.code, found.index) == ("audit_entries_swapped", first)
        for place in (entries[first] + 1, entries[-1] + 1):
            copied = [*whole[:place], whole[entries[first]], *whole[place:]]
            with put(log / "journal", b"".join(copied)):
                (found,) = report(log).findings
            assert found.code == "audit_entry_duplicated", (first, place, found)


def test_every_truncation_of_what_was_published_is_found(in_memory: Path) -> None:
    """TEN-12: cut at every length, the journal is shorter than its checkpoint says."""
    folder = in_memory / "log"
    make_log(folder, first=len(BATCHES) - 1)
    for length in reversed(range((folder / "journal").stat().st_size)):
        os.truncate(folder / "journal", length)
        assert set(findings(folder)) <= {"audit_truncated", "audit_commit_damaged"}


def test_a_torn_tail_is_no_damage(tmp_path: Path) -> None:
    """TEN-12: cut at every byte of the last, unpublished batch: the batches before are sound."""
    make_log(tmp_path / "log", (20, 4, 2), published=2)
    journal = tmp_path / "log" / "journal"
    sound = journal.read_bytes()
    with open(journal, "rb") as file:
        *_, last = read_batches(file, 0)
    for length in range(last.start, len(sound)):
        journal.write_bytes(sound[:length])
        found = report(tmp_path / "log")
        assert (found.findings, found.size) == ((), 24)
        assert found.torn_bytes == length - last.start
    # One that is torn in its midst: a disk may write pages in any order.
    journal.write_bytes(sound[: last.start] + bytes(400) + sound[last.start + 400 :])
    assert report(tmp_path / "log").findings == ()


def test_a_broken_batch_with_others_behind_it_is_no_torn_tail(tmp_path: Path) -> None:
    """TEN-12: each batch was durable before the next was begun."""
    make_log(tmp_path / "log", published=2)
    journal = tmp_path / "log" / "journal"
    journal.write_bytes(
        journal.read_bytes().replace(b"vm-0000000000000002", b"vm-000000000000000X")
    )
    (found,) = report(tmp_path / "log").findings
    assert found.code == "audit_batch_broken"


def test_missing_and_foreign_files_are_found(log: Path) -> None:
    """TEN-12: each file taken away; one that is none of the log's."""
    newest = {str(ENTRIES), "journal", "checkpoint"}
    for path in files(log):
        content = path.read_bytes()
        path.unlink()
        found = report(log)
        path.write_bytes(content)
        # Partial tiles that wider ones have replaced need not be kept.
        assert bool(found.findings) == (path.name in newest), path
    (log / "tile/0/001").write_bytes(bytes(8192))
    try:
        assert findings(log) == ["audit_tile_unknown"]
    finally:
        (log / "tile/0/001").unlink()


def test_keys_and_origins_are_told_apart(log: Path) -> None:
    """TEN-12: another key, another log."""
    other = Signer(ORIGIN, OTHER_KEY).verifier(1)
    assert [one.code for one in verify(log, other).findings] == ["audit_key_wrong"] * 2
    elsewhere = Signer("ppn/audit/other", KEY).verifier(1)
    assert verify(log, elsewhere).findings[0].code == "audit_origin_wrong"


def test_forks_and_rollbacks_are_found_by_who_remembers(log: Path, tmp_path: Path) -> None:
    """TEN-12: a witness's checkpoint tells a rewritten log and a cut one from the real one."""
    short, other = tmp_path / "short", tmp_path / "other"
    make_log(short, BATCHES[:-1])
    make_log(other, (3, 3, 4), signer=SIGNER)
    real = report(log)
    kept = Known("kept", Checkpoint(ORIGIN, real.size, real.root))

    def codes(folder: Path, known: Known) -> list[Finding]:
        return list(verify(folder, TRUSTED, [known]).findings)

    assert codes(log, kept) == []
    assert [one.code for one in codes(short, kept)] == ["audit_rollback"]
    forked = Known("forked", Checkpoint(ORIGIN, 7, bytes(32)))
    assert [one.code for one in codes(log, forked)] == ["audit_fork"]
    earlier = report(short)
    assert codes(log, Known("earlier", Checkpoint(ORIGIN, earlier.size, earlier.root))) == []


def test_a_rewritten_journal_contradicts_its_checkpoint(log: Path, tmp_path: Path) -> None:
    """TEN-12: a journal made anew with the right key does not fit what was published."""
    forged = tmp_path / "forged"
    shutil.copytree(log, forged)
    make_log(tmp_path / "anew", (25, 26))
    shutil.copy(tmp_path / "anew" / "journal", forged / "journal")
    note = signed(Checkpoint(ORIGIN, 49, bytes(32)), SIGNER)
    (forged / "checkpoint").write_bytes(note.encode())
    assert "audit_fork" in findings(forged)


@pytest.mark.parametrize("instead", ["a link to it", "a file"])
def test_what_stands_in_a_folders_place_is_named(in_memory: Path, instead: str) -> None:
    """TEN-12: tiles are looked for in folders of the log alone."""
    folder = in_memory / "log"
    make_log(folder)
    tiles, away = folder / "tile/0", in_memory / "away"
    tiles.rename(away)
    if instead == "a file":
        tiles.write_text("")
    else:
        tiles.symlink_to(away)
    assert {"audit_tile_missing", "audit_tile_unknown"} <= set(findings(folder))


def test_a_folder_that_cannot_be_read_is_an_error(in_memory: Path) -> None:
    """TEN-12: what was not looked at is not judged."""
    folder = in_memory / "log"
    make_log(folder)
    for path in (in_memory, *folder.rglob("*"), folder):
        path.chmod(0o755)
    (folder / "tile/0").chmod(0)
    os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match="tile/0"):
            report(folder)
    finally:
        os.seteuid(0)
