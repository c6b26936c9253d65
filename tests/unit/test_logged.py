"""The log of a process that is still writing."""

from __future__ import annotations

from pathlib import Path

from tests.logged import logged

HALF = b'{"event": "stopped", "reason": "s\xc3'


def test_a_line_counts_once_it_is_whole(tmp_path: Path) -> None:
    """A reader has met one half written, as far as a page of the file went."""
    log = tmp_path / "log"
    assert logged(log) == []
    log.write_bytes(b'{"event": "started"}\nno JSON\n' + HALF)
    assert logged(log) == [{"event": "started"}]
    with log.open("ab") as more:
        more.write(b'\xa9"}\n')
    assert logged(log, event="stopped") == [{"event": "stopped", "reason": "sé"}]
