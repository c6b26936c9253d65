"""What ends a command that a file, a folder or a disk got in the way of."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ppn.cli import app as root
from ppn.cli.exits import Exit
from tests.unit.cli.test_help import whole_command

PPN = Path(sys.executable).with_name("ppn")
# No file system has such a name, whoever asks for it.
NAME = "x" * 300


@pytest.mark.parametrize(
    "words",
    [
        ("tenant", "list", "--settings", "none", "--store", f"sqlite:////{NAME}"),
        ("tenant", "list", "--settings", NAME, "--store", "sqlite:////none"),
    ],
)
def test_a_file_that_cannot_be_used_ends_in_words(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """CLI-04: whichever command meets it, and never with a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ppn", *words, "--json"])
    whole_command()
    # The groups are there.
    monkeypatch.setattr(root, "GROUPS", ())
    with pytest.raises(SystemExit) as ended:
        root.main()
    error = json.loads(capsys.readouterr().err)["error"]
    assert ended.value.code == Exit.FAILED and error["code"] == "file_failed"
    assert f"{NAME}: File name too long" in error["message"] and error["hint"]


def test_wrong_words_are_told_as_json_or_as_text() -> None:
    """By the program as it is installed."""
    wrong = [str(PPN), "vm", "list", "--nope"]
    text = subprocess.run(wrong, capture_output=True, text=True, timeout=60)
    assert text.returncode == Exit.USAGE and text.stderr.startswith("Usage: ppn vm list")
    done = subprocess.run([*wrong, "--json"], capture_output=True, text=True, timeout=60)
    error = json.loads(done.stderr)["error"]
    assert done.returncode == Exit.USAGE and not done.stdout
    assert (error["code"], error["hint"]) == ("usage", "see ppn vm list --help")
