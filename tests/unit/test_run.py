"""Programs that are started: what they say, and what is said when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.run import CommandFailed, stream


def test_failed_program_shows_its_last_lines(tmp_path: Path) -> None:
    """Whoever reads the error need not open the log."""
    told: list[str] = []
    script = "echo first; echo E: no room; exit 3"
    with pytest.raises(CommandFailed, match=r"ended with 3[\s\S]*no room"):
        stream(["sh", "-c", script], log=tmp_path / "log", timeout=20, told=told.append, env={})
    assert told == ["first", "E: no room"]
    assert (tmp_path / "log").read_text() == "first\nE: no room\n"


def test_a_program_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with 124"):
        stream(["sleep", "60"], log=tmp_path / "log", timeout=0.1, told=print, env={})
