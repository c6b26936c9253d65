"""The commit that an image names has every file that went in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from iso.errors import IsoError
from iso.source import CHECKOUT, PARTS, source_of

GIT = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@ppn.test"]


def git(folder: Path, *words: str, date: int = 0) -> str:
    """What git says."""
    dates = {name: f"@{date} +0000" for name in ("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE")}
    return subprocess.run(
        [*GIT, "-C", str(folder), *words],
        env=os.environ | dates,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository whose second commit touches nothing of the image."""
    folder = tmp_path / "checkout"
    (folder / "ppn").mkdir(parents=True)
    git(folder, "init", "-q")
    (folder / ".gitignore").write_text("*.log\n__pycache__/\n")
    (folder / "ppn/one.py").write_text("1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "One", date=1_000_000_000)
    (folder / "README").write_text("2\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "Two", date=1_100_000_000)
    return folder


def test_a_commit_that_touches_nothing_of_an_image_makes_the_same_one(checkout: Path) -> None:
    """ISO-02."""
    found = source_of(checkout)
    assert found.commit == git(checkout, "rev-parse", "HEAD~1")
    assert found.epoch == 1_000_000_000


@pytest.mark.parametrize(
    ("name", "marked"),
    [
        ("ppn/one.py", True),
        ("ppn/new.py", True),
        # Ignored by git, and in the image all the same.
        ("ppn/notes.log", True),
        ("ppn/__pycache__/one.pyc", False),
        ("README", False),
    ],
)
def test_what_no_commit_has_is_told(checkout: Path, name: str, marked: bool) -> None:
    """ISO-02: whoever builds that commit gets other bytes. A setting of git's hides nothing."""
    git(checkout, "config", "status.showUntrackedFiles", "no")
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("other\n")
    assert source_of(checkout).commit.endswith("+changes") is marked


def test_a_history_that_was_cut_is_told(checkout: Path, tmp_path: Path) -> None:
    """ISO-02: its first commit seems to have touched every file."""

    def cloned(depth: int) -> str:
        clone = tmp_path / f"clone{depth}"
        git(tmp_path, "clone", "-q", f"--depth={depth}", f"file://{checkout}", str(clone))
        return source_of(clone).commit

    assert cloned(1) == git(checkout, "rev-parse", "HEAD") + "+shallow"
    (checkout / "ppn/one.py").write_text("3\n")
    git(checkout, "commit", "-qam", "Three", date=1_200_000_000)
    assert cloned(2) == git(checkout, "rev-parse", "HEAD")


def test_what_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsoError) as refused:
        source_of(tmp_path)
    assert refused.value.code == "checkout_needed"


def test_every_part_is_there_and_names_the_modules_that_decide_bytes() -> None:
    """ISO-02: of other folders the builder takes what shows steps and finds paths."""
    assert all((CHECKOUT / part).exists() for part in PARTS)
    imported = {
        line.split()[1].replace(".", "/") + ".py"
        for path in (CHECKOUT / "iso").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(("from lab.", "from deploys.", "from operations."))
    }
    assert imported - set(PARTS) == {"lab/paths.py", "lab/steps.py"}
