"""Fetching ends when nobody wants it any more."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from iso import fetch
from iso.cache import Cache, File
from tests.unit.iso.locks import sha256

FILES = [File(name, sha256(name)) for name in "abcdef"]


def test_an_interrupt_ends_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    def download(_: object, file: File, *__: object, **___: object) -> None:
        begun.append(file)
        time.sleep(0.2)

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "AT_ONCE", 1)
    monkeypatch.setattr(fetch, "_download_one", download)
    with pytest.raises(KeyboardInterrupt):
        fetch.download(FILES, Cache(tmp_path), interrupted, snapshot=False)
    assert len(begun) <= 2
