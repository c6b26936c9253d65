"""The one place where ppn starts other programs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ppn.errors import PpnError
from ppn.run import CommandFailed, run


class CalledBack(PpnError):
    """What a caller raises who wants it no more."""


def gone(file: Path) -> bool:
    """Whether the process that wrote its id there has ended."""
    return not Path("/proc", file.read_text().strip()).exists()


def test_a_program_that_nobody_wants_any_more_is_killed(tmp_path: Path) -> None:
    """MIG-01: a disk is copied for hours, and a move is called back meanwhile."""
    file, began = tmp_path / "pid", time.monotonic()

    def check() -> None:
        if file.exists() and file.read_text():
            raise CalledBack("no more")

    with pytest.raises(CalledBack):
        run(["sh", "-c", 'echo $$ > "$0"; exec sleep 60', file], timeout=120, check=check)
    assert gone(file) and time.monotonic() - began < 30


def test_a_program_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    with pytest.raises(CommandFailed, match="did not end within 1 s"):
        run(["sh", "-c", 'echo $$ > "$0"; exec sleep 60', file], timeout=1)
    assert gone(file)


def test_what_is_asked_meanwhile_changes_nothing() -> None:
    """Its input is given once, and all it says is there."""
    script = "sleep 0.7; cat; echo late >&2; exit 3"
    asked: list[int] = []
    done = run(
        ["sh", "-c", script], timeout=30, input="in", accept=(3,), check=lambda: asked.append(1)
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "late\n")
    assert asked
