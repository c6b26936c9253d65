"""The log on disk: nothing acknowledged is lost, who cannot be served is told (TEN-10)."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from ppn.audit import journal as journal_module
from ppn.audit import log as log_module
from ppn.audit.batches import read_batches
from ppn.audit.entry import EntryInvalid, parse
from ppn.audit.journal import AuditUnavailable, Journal
from ppn.audit.metrics import LogCollector
from ppn.pool.keys import KeyUnusable
from ppn.wire.problems import status_of
from tests.unit.audit.places import Place, wait_until
from tests.unit.audit.samples import entry


def entries_of(path: Path) -> list[bytes]:
    """The entries of a journal's whole batches."""
    with open(path, "rb") as file:
        return [one for batch in read_batches(file, 0) for one in batch.entries]


def test_entries_are_there_once_append_returns(place: Place) -> None:
    """TEN-10: with a checkpoint that covers them, each; and after the next start they go on."""
    with place.open() as log:
        for number in range(5):
            assert log.append(entry(number)) == number
            assert [parse(one) for one in entries_of(place.journal)][number] == entry(number)
            assert log.checkpoint().size == log.size == number + 1
    assert place.verified().published == 5
    with place.open() as log:
        assert log.append(entry(5)) == 5
        before = log.checkpoint()
    found = place.verified()
    assert (found.size, found.root) == (before.size, before.root)
    assert log.status().published == 6


def test_the_key_is_born_with_the_log(place: Place) -> None:
    """Its mode is 0600; a log that lost its key gets no other one."""
    with place.open() as log:
        log.append(entry(0))
    assert stat.S_IMODE(place.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    place.key.unlink()
    with pytest.raises(KeyUnusable, match="key_missing"):
        place.open()


def test_outcomes_follow_their_intents(place: Place) -> None:
    """TEN-10: an outcome that refers to what is not there yet is refused."""
    with place.open() as log:
        intent = log.append(entry(0))
        assert log.append(entry(1)) == intent + 1
        with pytest.raises(EntryInvalid):
            log.append(entry(7))
        assert log.size == 2


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_refuses_and_is_forgotten_once_there_is_room(place: Place) -> None:
    """TEN-10: a part that was written is taken back."""
    with place.open() as log:
        log.append(entry(0))
        before = place.journal.read_bytes()
        with full_after(len(before) + 100), pytest.raises(AuditUnavailable) as found:
            log.append(entry(2))
        assert (found.value.code, status_of(found.value)) == ("audit_unavailable", 503)
        assert place.journal.read_bytes() == before
        assert log.append(entry(2)) == 1
    assert place.verified().size == 2


def test_an_entry_whose_sync_fails_is_not_acknowledged(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-10: the kernel has dropped what it could not write, so the batch is taken back whole."""
    with place.open() as log:
        log.append(entry(0))
        before = place.journal.read_bytes()

        def broken(_: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            with pytest.raises(AuditUnavailable, match="Input/output error"):
                log.append(entry(2))
        assert place.journal.read_bytes() == before
        assert log.append(entry(2)) == 1
    assert place.verified().size == 2


def test_a_lock_that_is_held_refuses_in_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """TEN-10: and later appends work again."""
    monkeypatch.setattr(journal_module, "LOCK_SECONDS", 0.2)
    with place.open() as log:
        with open(place.journal, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(AuditUnavailable, match="another process held its lock"):
                log.append(entry(0))
        assert log.append(entry(0)) == 0


def test_a_disk_that_hangs_refuses_in_time(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """TEN-10: who waits is told; who comes while too many wait is told at once."""
    monkeypatch.setattr(log_module, "APPEND_SECONDS", 0.2)
    monkeypatch.setattr(log_module, "MOST_WAITING", 3)
    sync, goes_on = os.fdatasync, threading.Event()

    def slow(descriptor: int) -> None:
        goes_on.wait(30)
        sync(descriptor)

    with place.open() as log:
        monkeypatch.setattr(os, "fdatasync", slow)
        with pytest.raises(AuditUnavailable, match="did not take the entry"):
            log.append(entry(0))
        # These three wait behind it; one gives up and is never written.
        waiting = [log.submit(entry(number)) for number in (2, 5, 8)]
        with pytest.raises(AuditUnavailable, match="wait for the disk"):
            log.submit(entry(2))
        assert waiting[1].cancel()
        goes_on.set()
        assert [waiting[0].result(60), waiting[2].result(60)] == [1, 2]
    # One wait for the disk for both.
    with open(place.journal, "rb") as file:
        assert [len(batch.entries) for batch in read_batches(file, 0)] == [1, 2]
    assert [parse(one) for one in entries_of(place.journal)] == [entry(0), entry(2), entry(8)]


def test_many_threads_and_two_processes_share_one_log(place: Place) -> None:
    """TEN-10: two logs open on one folder, as two processes have it; every index is given once."""
    with place.open() as one, place.open() as other, ThreadPoolExecutor(16) as pool:
        logs = (one, other)
        found = list(pool.map(lambda n: logs[n % 2].append(entry(3 * n)), range(200)))
        assert sorted(found) == list(range(200))
        written = [parse(data) for data in entries_of(place.journal)]
        assert all(written[index] == entry(3 * n) for n, index in enumerate(found))
    report = place.verified()
    assert (report.size, report.published) == (200, 200)


def test_publishing_that_fails_stops_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """TEN-10: entries are durable without tiles; the trouble is told and passes."""
    monkeypatch.setattr(log_module, "PUBLISH_SECONDS", 0.02)
    figures = CollectorRegistry()
    with place.open() as log:
        figures.register(LogCollector(log.status))
        assert figures.get_sample_value("ppn_audit_trouble") == 0
        (place.folder / "tile").write_text("in the way")
        assert log.append(entry(0)) == 0
        wait_until(lambda: log.status().trouble != "")
        assert log.status().published == 0
        assert figures.get_sample_value("ppn_audit_trouble") == 1
        (place.folder / "tile").unlink()
        wait_until(lambda: log.status().trouble == "")
        assert log.status().published == 1
        assert figures.get_sample_value("ppn_audit_trouble") == 0
    assert place.verified().published == 1


def test_a_disk_that_gets_full_is_told_before_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TEN-10: once, so that there is time to make room before changes are refused."""
    monkeypatch.setattr(log_module, "PUBLISH_SECONDS", 0.01)
    free = [log_module.LOW_BYTES]
    looks: list[int] = []

    def look(journal: Journal) -> int:
        looks.append(free[0])
        return free[0]

    monkeypatch.setattr(Journal, "free_bytes", look)
    with capture_logs() as said, place.open() as log:
        for free_bytes in (log_module.LOW_BYTES, 5, log_module.LOW_BYTES, 4):
            free[0] = free_bytes
            looks.clear()
            wait_until(lambda: len(looks) > 3)
        assert log.status().free_bytes == 4
    assert [line["free_bytes"] for line in said if "full" in line["event"]] == [5, 4]


def test_the_room_is_that_of_its_disk(place: Place) -> None:
    figures = CollectorRegistry()
    with place.open() as log:
        figures.register(LogCollector(log.status))
        disk = os.statvfs(place.folder)
        free = figures.get_sample_value("ppn_audit_free_bytes")
        assert free is not None and 0 < free <= disk.f_blocks * disk.f_frsize


def test_a_closed_log_refuses(place: Place) -> None:
    log = place.open()
    log.close()
    with pytest.raises(AuditUnavailable, match="closed"):
        log.append(entry(0))


def test_a_new_log_that_was_killed_at_birth_is_begun_again(place: Place) -> None:
    """Its key and its empty checkpoint come before its journal."""
    place.open().close()
    assert place.verified().size == 0
    place.journal.unlink()
    with place.open() as log:
        assert log.append(entry(0)) == 0
    assert place.verified().size == 1


@pytest.mark.parametrize("make", ["file", "missing parent's key"])
def test_a_place_that_cannot_be_used_is_refused(tmp_path: Path, make: str) -> None:
    """TEN-10: where there is a file, or no folder for the key."""
    place = Place(tmp_path)
    if make == "file":
        place.folder.write_text("")
        with pytest.raises(AuditUnavailable):
            place.open()
    else:
        place.key = tmp_path / "none" / "audit.key"
        with pytest.raises(KeyUnusable):
            place.open()
