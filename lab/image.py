"""Root file systems as files: built once, kept under a name that is a hash of their inputs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from iso.root import Recipe, customise, node_recipe
from lab.errors import LabError
from lab.paths import cache_folder
from lab.process import stream
from lab.steps import Step, step
from ppn.durable import write_atomic
from ppn.run import run

BUILD_SECONDS = 1800
BUILD_NEEDS_MIB = 3000
DISK_NEEDS_MIB = 1200
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


def planned(recipe: Recipe) -> Image:
    """Where a recipe's image is or will be."""
    digest = recipe.digest()
    return Image(cache_folder() / f"{recipe.name}-{digest}", digest)


def ensure(recipe: Recipe) -> Image:
    """The image of a recipe, built when its inputs have no image yet.

    Args:
        recipe: what to build.

    Raises:
        LabError: no right, no room, or the build failed; with the log's last lines.
    """
    image = planned(recipe)
    if (image.folder / "built.json").exists():
        return image
    with building(image.folder.name):
        if not (image.folder / "built.json").exists():
            build(recipe, image)
    return image


def build(recipe: Recipe, image: Image) -> None:
    """Fill an image's folder; it appears under its name only when it is whole."""
    need_root()
    need_space(cache_folder(), BUILD_NEEDS_MIB, f"the {recipe.name} image")
    partial = image.folder.with_suffix(".partial")
    remove(partial)
    remove(image.folder)
    partial.mkdir(parents=True)
    start = time.monotonic()
    log = image.folder.with_suffix(".log")
    with step(f"Build the {recipe.name} image ({len(recipe.packages)} packages)") as shown:
        command = recipe.command(partial / "root", os.environ.get("PPN_MIRROR"))
        stream(
            command,
            log=log,
            timeout=BUILD_SECONDS,
            told=lambda line: tell(shown, line),
            # Our own initial RAM disks are small; Debian's would cost a quarter of the build.
            env={"INITRD": "No"},
        )
        shown.detail("customise")
        customise(partial / "root", recipe)
        facts = {"seconds": round(time.monotonic() - start, 1), "mib": used_mib(partial / "root")}
        write_atomic(partial / "built.json", json.dumps(facts).encode())
        run(["sync", "-f", str(partial)], timeout=300)
        os.replace(partial, image.folder)


def tell(shown: Step, line: str) -> None:
    """Pass the builder's own steps on, and leave the packages' chatter in the log."""
    if line.startswith(("I: ", "E: ")):
        shown.detail(line[3:])


def ensure_disk(image: Image) -> Path:
    """The image's root as a raw ext4 disk, made when it is not there yet.

    Raises:
        LabError: no room.
        CommandFailed: the file system could not be made.
    """
    if image.disk.exists():
        return image.disk
    with building(image.folder.name):
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


@contextmanager
def building(name: str) -> Iterator[None]:
    """Hold the lock of one cached thing, so that two labs do not build it at once."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need_root() -> None:
    """Refuse to go on as anyone but root."""
    if os.geteuid() != 0:
        raise LabError(
            "the lab makes namespaces, mounts and images: only root may",
            code="not_root",
            hint="run it with sudo",
        )


def need_space(folder: Path, mib: int, purpose: str) -> None:
    """Refuse to start what the disk has no room for."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free // 2**20
    if free < mib:
        raise LabError(
            f"{purpose} needs {mib} MiB in {folder}, free are {free} MiB",
            code="no_space",
            hint="make room, or move the cache and state with PPN_CACHE and PPN_LAB_HOME",
        )


def used_mib(folder: Path) -> int:
    """How much disk a folder takes, in MiB."""
    blocks = run(["du", "--summarize", "--block-size=1M", str(folder)], timeout=120).stdout
    return int(blocks.split()[0])


def remove(folder: Path) -> None:
    """Remove a folder tree, if it is there, without leaving its file system."""
    run(["rm", "--recursive", "--force", "--one-file-system", "--", str(folder)], timeout=300)
