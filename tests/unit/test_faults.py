"""The table of faults is that of the tests."""

from __future__ import annotations

from tests.faults import DOCUMENT, document, faults


def test_the_committed_table_is_current() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == document(), "run `python -m tests.faults` and commit what it writes"


def test_there_are_faults_of_every_kind() -> None:
    words = " ".join(fault.what for fault in faults())
    for kind in ("kill -9", "disk", "clock", "cut", "libvirtd", "race", "heartbeat"):
        assert kind in words
