"""ppn in the node root: the layer of packages is in the image, and comes out the same each time."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploys.wheelhouse import PYTHON_OF_DEBIAN, Wheelhouse, wheelhouse
from iso.archive import RELEASE
from iso.software import put_dependencies, put_release
from lab.image import node_image
from ppn import __version__
from ppn.run import CommandFailed, run


@pytest.fixture(scope="module")
def software() -> Wheelhouse:
    """What this checkout would put on a node."""
    return wheelhouse(PYTHON_OF_DEBIAN[RELEASE])


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """The node root, to be changed without changing the image."""
    for name in ("upper", "work", "root"):
        (tmp_path / name).mkdir()
    lower = node_image().root
    layers = f"lowerdir={lower},upperdir={tmp_path / 'upper'},workdir={tmp_path / 'work'}"
    run(["mount", "-t", "overlay", "overlay", "-o", layers, tmp_path / "root"], timeout=30)
    try:
        yield tmp_path / "root"
    finally:
        run(["umount", tmp_path / "root"], timeout=30)


def content(folder: Path) -> str:
    """A hash of every name, kind, mode, owner and content below a folder; times are not in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"\0{path.relative_to(folder)} {status.st_mode} {status.st_uid}".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def test_the_image_has_the_packages_and_makes_them_again_the_same(
    root: Path, software: Wheelhouse
) -> None:
    """ISO-02: a layer compiled a second time, at another time, is the image's own."""
    layer = root / "opt/ppn" / f"dependencies-{software.dependencies.digest}"
    assert (layer / "INSTALLED").read_text() == f"{software.dependencies.digest}\n"
    first = content(root / "opt")
    shutil.rmtree(root / "opt/ppn")
    put_dependencies(root, software.dependencies)
    assert content(root / "opt") == first


def test_the_release_is_there_as_a_deploy_leaves_it(root: Path, software: Wheelhouse) -> None:
    """ISO-03: so that onboarding from the same commit has nothing to install."""
    put_release(root, software.dependencies.digest, software.release)
    folder = root / "opt/ppn"
    assert (folder / "venv/INSTALLED").read_text() == f"{software.release.digest}\n"
    assert {path.name for path in folder.iterdir()} == {
        f"dependencies-{software.dependencies.digest}",
        f"venv-{software.release.digest}",
        "venv",
    }
    said = run(["chroot", root, "/usr/local/bin/ppn", "--version"], timeout=60).stdout
    assert said == f"ppn {__version__}\n"
    first = content(root)
    shutil.rmtree(folder / f"venv-{software.release.digest}")
    put_release(root, software.dependencies.digest, software.release)
    assert content(root) == first


def test_a_release_without_its_packages_is_refused(root: Path, software: Wheelhouse) -> None:
    shutil.rmtree(root / "opt/ppn" / f"dependencies-{software.dependencies.digest}")
    with pytest.raises(CommandFailed, match="neither a whole dependencies-"):
        put_release(root, software.dependencies.digest, software.release)
    assert not (root / "usr/local/bin/ppn").is_symlink()
