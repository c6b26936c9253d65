"""ppn in a root file system, put there by the program that also puts it on nodes."""

from __future__ import annotations

import shutil
from pathlib import Path

from deploys.wheelhouse import CHECKOUT, Layer
from iso.enter import ENVIRONMENT
from ppn.run import run

# What operations/software.py declares of a node.
FOLDER = "/opt/ppn"
COMMAND = "/usr/local/bin/ppn"
INSTALLER = CHECKOUT / "operations" / "install_software.sh"
INSTALL_SECONDS = 600


def put_dependencies(root: Path, dependencies: Layer) -> None:
    """Lay the packages that ppn needs into a root; a deploy then finds them there.

    Args:
        root: the root file system, whose own Python compiles them.
        dependencies: the layer for that Python.

    Raises:
        OSError: the root cannot be changed.
        CommandFailed: the root has no Python, or no room.
    """
    copy_in(root, f"dependencies-{dependencies.digest}", dependencies)
    install(root, dependencies.digest)


def put_release(root: Path, dependencies: str, release: Layer) -> None:
    """Lay ppn into a root as a deploy from this very checkout would leave it.

    Args:
        root: the root file system, with the layer of packages in it.
        dependencies: that layer's digest.
        release: ppn's own code.

    Raises:
        OSError: the root cannot be changed.
        CommandFailed: the root has no such layer, no Python, or no room.
    """
    copy_in(root, f"venv-{release.digest}", release)
    install(root, dependencies, release.digest, COMMAND)


def copy_in(root: Path, name: str, layer: Layer) -> None:
    """Put a layer's archive where the installer takes it from."""
    folder = root / FOLDER.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    shutil.copyfile(layer.archive, folder / f"{name}.tar.gz")


def install(root: Path, *words: str) -> None:
    """Run the installer inside the root."""
    program = INSTALLER.read_text(encoding="utf-8")
    argv = ["chroot", str(root), "/bin/sh", "-c", program, "ppn-install", FOLDER, *words]
    # Nothing of this machine's environment, of which tar and Python would take some.
    run(argv, timeout=INSTALL_SECONDS, env=ENVIRONMENT)
