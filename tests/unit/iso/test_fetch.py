"""Fetching ends when nobody wants it any more."""

from __future__ import annotations

import errno
import shutil
import threading
import time
from pathlib import Path

import pytest

from iso import fetch
from iso.cache import Cache, File
from tests.unit.iso.locks import LOCK, sha256

FILES = [File(name, sha256(name)) for name in "abcdef"]


def test_an_interrupt_ends_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    noticed = threading.Event()

    def download(_: object, file: File, *__: object, **___: object) -> None:
        begun.append(file)
        # The second goes on until the first one's end is noticed, and a bit.
        if len(begun) > 1:
            noticed.wait(30)
            time.sleep(0.5)

    def interrupted(_: str) -> None:
        noticed.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "AT_ONCE", 1)
    monkeypatch.setattr(fetch, "_download_one", download)
    with pytest.raises(KeyboardInterrupt):
        fetch.download(FILES, Cache(tmp_path), interrupted, snapshot=False)
    assert len(begun) <= 2


@pytest.mark.fault("the cache's disk is full", "nothing of a file stays there")
def test_a_file_that_does_not_fit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        Cache(tmp_path).take(tmp_path / "from", FILES[0])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_snapshot_is_asked_for_the_state_of_the_lock_and_a_day_later() -> None:
    """ISO-02: the newest package of a state is not in a snapshot of the moment it was published."""
    (bash,) = (one for one in LOCK.packages if one.name == "bash")
    places = {"debian": "http://mirror.test/debian"}
    assert fetch.addresses(bash, LOCK, places, "http://old.test/archive/") == (
        f"http://mirror.test/debian/{bash.path}",
        f"http://old.test/archive/debian/20261121T081500Z/{bash.path}",
        f"http://old.test/archive/debian/20261122T081500Z/{bash.path}",
    )
    assert len(fetch.addresses(bash, LOCK, places, "")) == 1
