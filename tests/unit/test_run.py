"""The one place where ppn starts other programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppn.errors import PpnError
from ppn.run import CommandFailed, run, stream


class CalledBack(PpnError):
    """What a caller raises who wants it no more."""


def gone(file: Path) -> bool:
    """Whether the process that wrote its id there has ended."""
    return not Path("/proc", file.read_text().strip()).exists()


def test_a_program_that_nobody_wants_any_more_is_killed(tmp_path: Path) -> None:
    """MIG-01: a disk is copied for hours, and a move is called back meanwhile."""
    file = tmp_path / "pid"

    def check() -> None:
        if file.exists() and file.read_text():
            raise CalledBack("no more")

    with pytest.raises(CalledBack):
        run(["sh", "-c", 'echo $$ > "$0"; exec sleep 600', file], timeout=30, check=check)
    assert gone(file)


def test_a_program_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    # Longer each time, until it has begun: a busy machine takes its time to start it.
    for seconds in (0.5, 5, 50):
        with pytest.raises(CommandFailed, match=f"did not end within {seconds:g} s"):
            run(["sh", "-c", 'echo $$ > "$0"; exec sleep 60', file], timeout=seconds)
        if file.exists() and file.read_text():
            break
    assert gone(file)


def test_what_is_asked_meanwhile_changes_nothing(tmp_path: Path) -> None:
    """Its input is given once, and all it says is there."""
    asked = tmp_path / "asked"
    script = 'until [ -e "$0" ]; do sleep 0.1; done; cat; echo late >&2; exit 3'
    done = run(["sh", "-c", script, asked], timeout=60, input="in", accept=(3,), check=asked.touch)
    assert (done.returncode, done.stdout, done.stderr) == (3, "in", "late\n")


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


def test_nothing_runs_on_when_the_reader_is_interrupted(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def told(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # Not before `timeout` waits: told to end before it knows of its child, it ends alone.
        waits = 'until grep -q "^State:.S" "/proc/$PPID/status"; do :; done'
        script = f'echo $$ > "$0"; {waits}; echo said; exec sleep 60'
        stream(["sh", "-c", script, file], log=tmp_path / "log", timeout=60, told=told, env={})
    assert gone(file)
