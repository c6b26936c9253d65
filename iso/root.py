"""The recipe of a Debian root file system: what goes in, what is taken out, under which name.

The lab boots it as containers and machines; the installer image will carry the same root.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploys.wheelhouse import PYTHON_OF_DEBIAN, dependencies_digest, dependencies_layer
from iso.software import put_dependencies

HERE = Path(__file__).parent
# Raise it when `command` or `customise` changes what they make of the same inputs.
RECIPE_VERSION = 3
SUITE = "trixie"
RELEASE = "13"

DPKG_EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/doc/*",
)
# Born on each machine, or copied in from the machine that builds.
NEVER_IN_AN_IMAGE = (
    "etc/hostname",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*",
    "var/cache/apt/*.bin",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed",
    "var/log/**/*",
)


@dataclass(frozen=True)
class Recipe:
    """One kind of root file system.

    Args:
        name: what it is for, part of its cached name.
        packages: Debian packages beside the minimal set.
        tree: folder whose files are laid over the root at the end.
        disabled: patterns of units that Debian enables and this root does not.
        python: lays in the packages that ppn needs on this Python; None for a root without ppn.
    """

    name: str
    packages: tuple[str, ...]
    tree: Path | None = None
    disabled: tuple[str, ...] = ()
    python: str | None = None

    def digest(self) -> str:
        """A short hash of everything that shapes the result, the archive's state aside."""
        parts = [str(RECIPE_VERSION), SUITE, self.name, *self.packages, "", *self.disabled]
        if self.python is not None:
            parts.append(dependencies_digest(self.python))
        for path in files_below(self.tree):
            kind = os.readlink(path) if path.is_symlink() else hash_of(path)
            mode = "x" if not path.is_symlink() and path.stat().st_mode & 0o100 else "-"
            parts.append(f"{path.relative_to(self.tree or HERE)} {mode} {kind}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]

    def command(self, target: Path, mirror: str | None) -> list[str]:
        """The command that fills `target`, run as root; `mirror` replaces Debian's own."""
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in DPKG_EXCLUDED]
        return [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            f"--include={','.join(self.packages)}",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            '--aptopt=Acquire::Retries "3"',
            *options,
            "--dpkgopt=path-include=/usr/share/doc/*/copyright",
            SUITE,
            str(target),
            *([mirror] if mirror else []),
        ]


def node_recipe() -> Recipe:
    """The root of every node, hypervisor or not."""
    return Recipe(
        name="node",
        packages=read_packages(HERE / "node-packages.txt"),
        tree=HERE / "node",
        # Onboarding turns on what a node's role needs, so that a plain node runs nothing extra.
        disabled=(
            "libvirt*",
            "virtlog*",
            "apt-daily*",
            "fstrim*",
            "getty@tty1*",
            "e2scrub*",
            # The installer turns it on where a node finds its name servers by itself.
            "systemd-resolved*",
        ),
        python=PYTHON_OF_DEBIAN[RELEASE],
    )


def read_packages(path: Path) -> tuple[str, ...]:
    """Package names of a list, sorted, without comments."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return tuple(sorted({line for line in lines if line}))


def customise(root: Path, recipe: Recipe) -> None:
    """Turn a fresh root into an image: no identity, no caches, our files laid over it.

    Args:
        root: the root file system.
        recipe: whose files and units.

    Raises:
        OSError: the root cannot be changed.
        CommandFailed: a package ppn needs cannot be had, or not be laid in.
    """
    if recipe.python is not None:
        put_dependencies(root, dependencies_layer(recipe.python))
    for pattern in NEVER_IN_AN_IMAGE:
        for path in root.glob(pattern):
            if path.is_symlink() or path.is_file():
                path.unlink()
    for pattern in recipe.disabled:
        for path in root.glob(f"etc/systemd/system/*.wants/{pattern}"):
            path.unlink()
    lay_over(root, recipe.tree)
    # Caches are fresh: without these marks the first boot would make them all again.
    for mark in ("etc/.updated", "var/.updated"):
        (root / mark).touch()
    # Empty, not absent: systemd then makes an id at boot without asking first-boot questions.
    (root / "etc/machine-id").write_bytes(b"")


def lay_over(root: Path, tree: Path | None) -> None:
    """Copy a tree's files and links into a root, with modes that no umask has touched."""
    for path in files_below(tree):
        target = root / path.relative_to(tree or HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target, follow_symlinks=False)
        if not path.is_symlink():
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def files_below(folder: Path | None) -> Iterator[Path]:
    """Files and links below a folder, in a fixed order."""
    if folder is not None:
        yield from sorted(p for p in folder.rglob("*") if p.is_symlink() or p.is_file())


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
