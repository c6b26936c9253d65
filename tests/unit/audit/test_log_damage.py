"""A log that was damaged: no torn tail is damage, and what is damage is not written (TEN-12)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ppn.audit import log as log_module
from ppn.audit.batches import read_batches
from ppn.audit.journal import NAME, AuditDamaged, Journal
from ppn.audit.publish import Publisher
from ppn.audit.verify import verify
from ppn.wire.problems import status_of
from tests.unit.audit.places import Place, wait_until
from tests.unit.audit.samples import SIGNER, TRUSTED, encoded, entry, make_log


@pytest.mark.fault(
    "power is lost while the audit log writes, at every byte of a batch",
    "the next start cuts the torn tail off; every acknowledged entry is there, without an alarm",
)
@pytest.mark.exhaustive
def test_torn_tails_are_cut_off_and_nothing_else(in_memory: Path) -> None:
    """TEN-12: torn at each byte, or with pages that were never written."""
    folder = in_memory / "log"
    make_log(folder, (3, 4, 1), published=2)
    path = folder / NAME
    sound = path.read_bytes()
    with open(path, "rb") as file:
        *_, last = read_batches(file, 0)
    length = len(sound) - last.start
    tails = [sound[last.start :][:count] for count in range(length)]
    tails += [bytes(length), sound[last.start :][:100] + bytes(length - 100)]
    tails += [bytes(100) + sound[last.start :][100:], b"\n" * length, b"= " * 50]
    for tail in tails:
        path.write_bytes(sound[: last.start] + tail)
        assert verify(folder, TRUSTED).findings == ()
        at = Publisher(folder, SIGNER).resume()
        journal = Journal(path, SIGNER, at, published=at.size)
        journal.open()
        assert path.read_bytes() == sound[: last.start]
        assert journal.append([encoded(1)[0]]) == 7
        journal.close()
        report = verify(folder, TRUSTED)
        assert (report.findings, report.torn_bytes, report.size) == ((), 0, 8)


def test_a_batch_that_was_whole_but_not_acknowledged_stays(tmp_path: Path) -> None:
    make_log(tmp_path / "log", (3, 4), published=1)
    at = Publisher(tmp_path / "log", SIGNER).resume()
    journal = Journal(tmp_path / "log" / NAME, SIGNER, at)
    journal.open()
    assert (at.size, journal.at.size) == (3, 7)
    journal.close()


def cut(path: Path) -> None:
    """Take away the last line."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def alter(path: Path) -> None:
    """Change the first entry."""
    path.write_bytes(path.read_bytes().replace(b"acme", b"evil", 1))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        alter,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: (path.parent / "checkpoint").write_bytes(b"x"),
        lambda path: (path.parent / "checkpoint").unlink(),
        lambda path: (path.parent / "tile/0/000.p/7").unlink(),
        lambda path: (path.parent / "tile/0/000.p/7").write_bytes(bytes(224)),
    ],
)
def test_a_log_that_contradicts_itself_is_not_written(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """TEN-12: what was published is compared at the start, and nothing is cut off or appended."""
    make_log(tmp_path / "log", (3, 4))
    path = tmp_path / "log" / NAME
    before = path.read_bytes()
    damage(path)
    after = path.read_bytes() if path.exists() else b""
    assert after == before or damage in (cut, alter) or len(after) == 0
    with pytest.raises(AuditDamaged) as found:
        publisher = Publisher(tmp_path / "log", SIGNER)
        at = publisher.resume()
        Journal(path, SIGNER, at, published=at.size).open()
        # What is published is not read again at the start; the auditor does that.
        assert damage is alter
        raise AuditDamaged("altered")
    assert status_of(found.value) == 503
    assert (path.read_bytes() if path.exists() else b"") == after


def test_a_broken_batch_with_others_behind_it_is_not_cut_off(tmp_path: Path) -> None:
    """TEN-12: each batch was durable before the next was begun, so this is no torn tail."""
    make_log(tmp_path / "log", (2, 3, 4, 5), published=1)
    path = tmp_path / "log" / NAME
    path.write_bytes(path.read_bytes().replace(b"vm-0000000000000001", b"vm-000000000000000X", 1))
    damaged = path.read_bytes()
    at = Publisher(tmp_path / "log", SIGNER).resume()
    with pytest.raises(AuditDamaged, match="what follows entry 2 is broken"):
        Journal(path, SIGNER, at, published=at.size).open()
    assert path.read_bytes() == damaged


def test_a_journal_that_changes_under_an_open_log_is_noticed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-12: cut short, and found so by this process and by the next one."""
    monkeypatch.setattr(log_module, "PUBLISH_SECONDS", 0.02)
    with place.open() as log:
        log.append(entry(0))
        wait_until(lambda: log.status().published == 1)
        os.truncate(place.journal, place.journal.stat().st_size - 1)
        with pytest.raises(AuditDamaged, match="was cut"):
            log.append(entry(2))
    with pytest.raises(AuditDamaged, match="was cut"):
        place.open()


def test_a_journal_that_is_replaced_under_an_open_log_is_noticed(place: Place) -> None:
    """TEN-12: the lock and the entries would be another file's."""
    with place.open() as log:
        log.append(entry(0))
        copy = place.folder / "copy"
        copy.write_bytes(place.journal.read_bytes())
        copy.replace(place.journal)
        with pytest.raises(AuditDamaged, match="replaced"):
            log.append(entry(2))
