"""Builds file trees from the lock, each once, under a name that is a hash of all that shapes it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from iso.cache import Cache
from iso.enter import ENVIRONMENT, inside
from iso.fetch import fetch
from iso.lock import Lock, Package
from iso.recipe import Recipe
from iso.repository import lay_out
from iso.settle import installed, settle
from lab.steps import Step, step
from ppn.durable import write_atomic
from ppn.errors import PpnError, Refusal
from ppn.run import run, stream

BUILT = "built.json"
BUILD_SECONDS = 1800
COPY_SECONDS = 600
NEEDS_MIB = 3000
DPKG_EXCLUDED = (
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/doc/*",
    # What no node and no guest drives: cameras, television, sound (its core stays: laptops' buttons
    # need it), and emulators of machines that no VM is.
    "/usr/lib/modules/*/kernel/drivers/media/*",
    "/usr/lib/modules/*/kernel/sound/pci/*",
    "/usr/lib/modules/*/kernel/sound/soc/*",
    "/usr/lib/modules/*/kernel/sound/usb/*",
    "/usr/bin/qemu-system-i386",
    "/usr/bin/qemu-system-x86_64-microvm",
)
# The copyright, as its licences ask; and the archive's addresses as Debian gives them.
DPKG_INCLUDED = ("/usr/share/doc/*/copyright", "/usr/share/doc/apt/examples/debian.sources")


class TreeWrong(PpnError):
    """A tree was built, and is not what the lock says."""

    code = "tree_wrong"


def is_built(folder: Path) -> bool:
    """Whether a tree's folder is there, whole."""
    return (folder / BUILT).exists()


def place(recipe: Recipe, lock: Lock, cache: Cache) -> Path:
    """The folder that a finished tree has or will have: the tree itself is `root` in it.

    Raises:
        LockUnusable: the lock was not made for this recipe.
    """
    lock.check(recipe.name, recipe.packages)
    return cache.folder / f"{recipe.name}-{recipe.digest(lock)}"


def packages_place(recipe: Recipe, lock: Lock, cache: Cache) -> Path:
    """The folder of a recipe's packages alone, before anything of ours is laid over them.

    Raises:
        LockUnusable: the lock was not made for this recipe.
    """
    bare = replace(recipe, tree=None, disabled=(), python=None)
    folder = place(bare, lock, cache)
    return folder.with_name(f"packages-{folder.name}")


def ensure(
    recipe: Recipe, lock: Lock, cache: Cache, *, tools: Path | None = None, offline: bool = False
) -> Path:
    """The folder of a recipe's packages, installed now if it is not there yet.

    Args:
        recipe: which packages.
        lock: has them by hash.
        cache: has their files, or will; the tree is kept there too.
        tools: the tools tree that builds it; without one this machine's own tools do.
        offline: open no connection.

    Raises:
        Refusal: no right, or no room.
        CacheUnusable: a package's file is missing or wrong.
        FetchFailed: a package's file cannot be had.
        CommandFailed: the build failed; with the log's last lines.
        TreeWrong: other packages came than the lock names.
    """
    folder = packages_place(recipe, lock, cache)
    if not is_built(folder):
        with building(cache.folder, folder.name):
            if not is_built(folder):
                need_root(f"building {folder.name}")
                need_space(cache.folder, NEEDS_MIB, f"the {recipe.name} tree")
                packages = lock.of(recipe.name)
                with step(f"Fetch what {recipe.name} is made of") as shown:
                    fetch(lock, packages, cache, shown.detail, offline=offline)
                build(recipe, lock, cache, folder, tools=tools)
    return folder


def build(
    recipe: Recipe, lock: Lock, cache: Cache, folder: Path, *, tools: Path | None = None
) -> None:
    """Install a recipe's packages from files that the cache has.

    Args:
        recipe: which packages.
        lock: has them by hash.
        cache: has their files.
        folder: where the tree goes; it appears when it is whole, in place of what is there.
        tools: the tools tree that builds it; without one this machine's own tools do.

    Raises:
        CacheUnusable: a package's file is missing or wrong.
        CommandFailed: the build failed; with the log's last lines.
        TreeWrong: other packages came than the lock names.
    """
    packages = lock.of(recipe.name)
    title = f"Install the packages of {recipe.name} ({len(packages)})"
    with step(title) as shown, appearing(folder) as partial:
        (partial / "archive").mkdir()
        lay_out(partial / "archive", packages, cache)
        install(partial, packages, lock.epoch, folder.with_suffix(".log"), shown, tools)
        remove(partial / "archive")
        check(partial / "root", packages)
        shown.detail("settle")
        settle(partial / "root", packages, recipe.packages)


def finish(recipe: Recipe, packages: Path, folder: Path, work: Callable[[Path], None]) -> None:
    """Make a finished tree of its packages.

    Args:
        recipe: whose tree.
        packages: the folder of its packages; not changed.
        folder: where the tree goes; it appears when it is whole, in place of what is there.
        work: what is done to the tree.

    Raises:
        PpnError: the work failed.
        OSError: the tree cannot be changed.
    """
    with step(f"Finish the {recipe.name} tree"), appearing(folder) as partial:
        source, target = packages / "root", partial / "root"
        run(["cp", "--archive", "--reflink=auto", source, target], timeout=COPY_SECONDS)
        work(partial / "root")


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name when the block has ended well.

    Args:
        folder: its name; what is there is replaced.
    """
    partial = folder.with_suffix(".partial")
    for old in (partial, folder):
        remove(old)
    start = time.monotonic()
    with plain_modes():
        partial.mkdir(parents=True)
        yield partial
        facts = {"seconds": round(time.monotonic() - start, 1), "mib": used_mib(partial / "root")}
        write_atomic(partial / BUILT, json.dumps(facts).encode())
        run(["sync", "-f", partial], timeout=300)
        os.replace(partial, folder)


@contextmanager
def plain_modes() -> Iterator[None]:
    """Make files that everybody may read, whatever this process was started with."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def install(
    partial: Path,
    packages: Sequence[Package],
    epoch: int,
    log: Path,
    shown: Step,
    tools: Path | None,
) -> None:
    """Install packages of `partial/archive` into `partial/root`.

    Raises:
        CommandFailed: it failed; with the log's last lines.
    """
    # The initial RAM disk is made at the end, with our settings for it (iso/root.py).
    env = {"INITRD": "No", "SOURCE_DATE_EPOCH": str(epoch), "PYTHONHASHSEED": "0"}
    if tools is None:
        command = mmdebstrap(partial, packages)
        env |= {"LC_ALL": ENVIRONMENT["LC_ALL"], "TZ": ENVIRONMENT["TZ"]}
    else:
        command = inside(tools, mmdebstrap(Path("/work"), packages), {partial: "/work"}, env)
    stream(command, log=log, timeout=BUILD_SECONDS, told=lambda line: tell(shown, line), env=env)


def mmdebstrap(folder: Path, packages: Sequence[Package]) -> list[str]:
    """The command that installs all packages of `folder/archive` into `folder/root`.

    The archive is trusted: every file of it was compared with the lock.
    """
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=apt",
        "--format=directory",
        f"--include={','.join(sorted(one.name for one in packages))}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in DPKG_EXCLUDED),
        *(f"--dpkgopt=path-include={pattern}" for pattern in DPKG_INCLUDED),
        # Any suite: the archive in the folder does not say that it is one.
        "",
        str(folder / "root"),
        f"deb [trusted=yes] copy:{folder / 'archive'} ./",
    ]


def check(root: Path, packages: Sequence[Package]) -> None:
    """Compare what is installed with the lock.

    Raises:
        TreeWrong: they differ; the message says in what.
    """
    wanted = {f"{one.name} {one.version}" for one in packages}
    differs = sorted(wanted ^ installed(root))
    if differs:
        raise TreeWrong(
            f"{len(differs)} packages are not as the lock says: {', '.join(differs[:5])}",
            hint="refresh the lock with `scripts/iso lock`",
        )


def tell(shown: Step, line: str) -> None:
    """Pass the builder's own steps on, and leave the packages' chatter in the log."""
    if line.startswith(("I: ", "E: ")):
        shown.detail(line[3:])


@contextmanager
def building(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of one kept thing, so that it is not built twice at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need_root(what: str) -> None:
    """Refuse to go on as anyone but root.

    Args:
        what: the work, for the message.
    """
    if os.geteuid() != 0:
        raise Refusal(
            f"{what} takes namespaces, mounts and files of other owners: only root may",
            code="not_root",
            constraint="user",
            hint="run it with sudo",
        )


def need_space(folder: Path, mib: int, purpose: str) -> None:
    """Refuse to start what the disk has no room for."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free // 2**20
    if free < mib:
        raise Refusal(
            f"{purpose} needs more room in {folder}",
            code="no_space",
            constraint="disk",
            wanted=mib,
            free=free,
            unit="MiB",
            hint="make room, or move the cache and state with PPN_CACHE and PPN_LAB_HOME",
        )


def used_mib(folder: Path) -> int:
    """How much disk a folder takes, in MiB."""
    blocks = run(["du", "--summarize", "--block-size=1M", folder], timeout=120).stdout
    return int(blocks.split()[0])


def remove(folder: Path) -> None:
    """Remove a folder tree, if it is there, without leaving its file system."""
    run(["rm", "--recursive", "--force", "--one-file-system", "--", folder], timeout=300)
