"""Root file systems as files: built once, kept under a name that is a hash of their inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from iso.cache import Cache
from iso.lock import Lock
from iso.recipe import Recipe
from iso.root import node_recipe, root_of
from iso.trees import building, need_space
from lab.errors import LabError
from lab.paths import cache_folder
from lab.steps import step
from ppn.run import run

DISK_NEEDS_MIB = 1500
# Sparse: a node's machine disk takes what is written.
NODE_DISK = "16G"


@dataclass(frozen=True)
class Image:
    """A root file system on this machine.

    Args:
        folder: where it is kept.
        digest: hash of what it was made from.
    """

    folder: Path
    digest: str

    @property
    def root(self) -> Path:
        """The root folder; never written to after the build."""
        return self.folder / "root"

    @property
    def disk(self) -> Path:
        """The same root as a raw ext4 file system."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel's boot image."""
        return self.one("boot/vmlinuz-*")

    @property
    def modules(self) -> Path:
        """The kernel's module folder."""
        return self.one("usr/lib/modules/*")

    @property
    def busybox(self) -> Path:
        """The static busybox."""
        return self.root / "usr/bin/busybox"

    def one(self, pattern: str) -> Path:
        """The one path of the root that matches; LabError when there is not exactly one."""
        found = sorted(self.root.glob(pattern))
        if len(found) != 1:
            raise LabError(
                f"image {self.folder.name} has {len(found)} of {pattern}, not 1",
                hint=f"remove {self.folder} and build again",
            )
        return found[0]


def node_image() -> Image:
    """The image of every lab node, built now if it is not there yet."""
    return ensure(node_recipe())


def ensure(recipe: Recipe) -> Image:
    """The image of a recipe, built when its inputs have no image yet.

    Args:
        recipe: what to build.

    Raises:
        PpnError: no right, no room, or the build failed; with the log's last lines.
    """
    lock = Lock.read()
    root = root_of(recipe, lock, Cache(cache_folder()))
    return Image(root.parent, recipe.digest(lock))


def ensure_disk(image: Image) -> Path:
    """The image's root as a raw ext4 disk, made when it is not there yet.

    Raises:
        LabError: no room.
        CommandFailed: the file system could not be made.
    """
    if image.disk.exists():
        return image.disk
    with building(cache_folder(), image.folder.name):
        if not image.disk.exists():
            need_space(image.folder, DISK_NEEDS_MIB, "the machines' disk image")
            with step("Make the machines' disk image"):
                make_disk(image.root, image.disk, NODE_DISK)
    return image.disk


def make_disk(root: Path, disk: Path, size: str) -> None:
    """Write a folder into a new ext4 file system of a size such as `16G`, all or nothing."""
    partial = disk.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    options = "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    made = ["-q", "-t", "ext4", "-L", "root", "-E", options]
    run(["mke2fs", *made, "-d", str(root), str(partial), size], timeout=600)
    os.replace(partial, disk)
