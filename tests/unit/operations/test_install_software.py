"""The program that installs ppn on nodes and in images, run here for real in its own folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.installing import Target


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """A folder with the first build in use."""
    made = Target(tmp_path / "ppn")
    made.send("d1", "r1")
    done = made.install("d1", "r1")
    assert done.returncode == 0, done.stderr
    return made


def test_the_command_sees_the_layer_of_packages(target: Target) -> None:
    assert target.says() == "d1 r1"
    assert (target.folder / "venv/INSTALLED").read_text() == "r1\n"
    assert (target.folder / "dependencies-d1/INSTALLED").read_text() == "d1\n"
    left = {path.name for path in target.folder.iterdir()}
    assert left == {"dependencies-d1", "venv", "venv-r1"}


def test_a_new_build_keeps_the_layer_of_packages(target: Target) -> None:
    """Only ppn's own small archive is sent and compiled."""
    mark = target.folder / "dependencies-d1/INSTALLED"
    before = mark.stat()
    target.send(release="r2")
    done = target.install("d1", "r2")
    assert done.returncode == 0, done.stderr
    assert target.says() == "d1 r2"
    assert (mark.stat().st_ino, mark.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not (target.folder / "venv-r1").exists()


def test_the_layer_of_an_old_build_goes_with_it(target: Target) -> None:
    target.send("d2", "r2")
    assert target.install("d2", "r2").returncode == 0
    assert target.says() == "d2 r2"
    left = {path.name for path in target.folder.iterdir()}
    assert left == {"dependencies-d2", "venv", "venv-r2"}


def test_a_layer_comes_alone_as_in_an_image(tmp_path: Path) -> None:
    """The image has the packages; the deploy later sends ppn's own code alone."""
    target = Target(tmp_path / "ppn")
    target.send("d1")
    assert target.install("d1").returncode == 0
    assert {path.name for path in target.folder.iterdir()} == {"dependencies-d1"}
    target.send(release="r1")
    assert target.install("d1", "r1").returncode == 0
    assert target.says() == "d1 r1"


@pytest.mark.parametrize("mark", [None, "", "d9\n"], ids=["no mark", "empty mark", "wrong mark"])
def test_a_layer_that_is_half_there_is_made_anew(tmp_path: Path, mark: str | None) -> None:
    target = Target(tmp_path / "ppn")
    half = target.folder / "dependencies-d1"
    (half / "site" / "needed").mkdir(parents=True)
    (half / "site" / "needed" / "__init__.py").write_text('VERSION = "half"\n')
    (half / "site" / "needed" / "rest.py").write_text("")
    if mark is not None:
        (half / "INSTALLED").write_text(mark)
    target.send("d1", "r1")
    assert target.install("d1", "r1").returncode == 0
    assert target.says() == "d1 r1"
    assert not (half / "site" / "needed" / "rest.py").exists()


def test_a_half_layer_without_its_archive_is_not_used(target: Target) -> None:
    (target.folder / "dependencies-d2" / "site").mkdir(parents=True)
    target.send(release="r2")
    done = target.install("d2", "r2")
    assert done.returncode != 0
    assert "neither a whole dependencies-d2 nor its archive" in done.stderr
    assert "what was in use stays in use" in done.stderr
    assert target.says() == "d1 r1"


@pytest.mark.parametrize("broken", ["dependencies-d2", "venv-r2"])
def test_a_damaged_archive_leaves_the_old_build_in_use(target: Target, broken: str) -> None:
    target.send("d2", "r2")
    archive = target.folder / f"{broken}.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-40])
    done = target.install("d2", "r2")
    assert done.returncode != 0
    assert "what was in use stays in use" in done.stderr
    assert not (target.folder / broken).exists()
    assert target.says() == "d1 r1"


def test_the_same_archives_make_the_same_bytes(target: Target) -> None:
    """ISO-02: time, time zone, locale and hash seed of the build leave no trace."""
    first = target.content()
    shutil.rmtree(target.folder)
    target.send("d1", "r1")
    other = {"TZ": "Pacific/Apia", "LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"}
    assert target.install("d1", "r1", other).returncode == 0
    assert target.content() == first
    compiled = [name for name in first if name.endswith(".pyc")]
    assert any("needed/__pycache__/__init__" in name for name in compiled)
    assert not any("lexers" in name for name in compiled)
    # The flags of a file that is never checked against its source, so that it holds no time.
    assert {first[name][4:8] for name in compiled} == {b"\x01\x00\x00\x00"}
