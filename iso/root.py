"""The recipe of a Debian root file system: what goes in, what is taken out, under which name.

The lab boots it as containers and machines; the image carries the same root.
"""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from deploys.wheelhouse import dependencies_layer
from iso.cache import Cache
from iso.enter import run_in
from iso.fetch import lay_wheels
from iso.initrd import kernel_of
from iso.lock import Lock
from iso.recipe import HERE, Recipe, files_below, read_packages
from iso.software import put_dependencies
from iso.tools import tools_recipe, tools_tree
from iso.trees import building, ensure, finish, is_built, place
from iso.wheels import PYTHON

LAB = HERE.parent / "lab"
INITRD_SECONDS = 600
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
        python=PYTHON,
        initrd=True,
    )


def guest_recipe() -> Recipe:
    """The root of the lab's Debian guests, with cloud-init."""
    return Recipe(
        name="debian-guest",
        packages=read_packages(LAB / "debian-guest-packages.txt"),
        tree=LAB / "debian-guest",
        disabled=("apt-daily*", "fstrim*", "e2scrub*"),
    )


def recipes() -> tuple[Recipe, ...]:
    """All trees that the lock is about."""
    return guest_recipe(), node_recipe(), tools_recipe()


def node_root(lock: Lock, cache: Cache, *, offline: bool = False) -> Path:
    """The folder of a node's root, built in the tools tree if it is not there yet.

    Args:
        lock: its packages.
        cache: has them, or will; the root is kept there too, and never written to again.
        offline: open no connection.

    Raises:
        PpnError: it cannot be built.
    """
    return root_of(node_recipe(), lock, cache, offline=offline)


def root_of(recipe: Recipe, lock: Lock, cache: Cache, *, offline: bool = False) -> Path:
    """The folder of a recipe's root, built in the tools tree if it is not there yet.

    Args:
        recipe: what is built.
        lock: its packages.
        cache: has them, or will; the root is kept there too, and never written to again.
        offline: open no connection.

    Raises:
        PpnError: it cannot be built.
    """
    folder = place(recipe, lock, cache)
    if not is_built(folder):
        tools = tools_tree(lock, cache, offline=offline)
        packages = ensure(recipe, lock, cache, tools=tools, offline=offline)
        with building(cache.folder, folder.name), TemporaryDirectory(prefix="ppn-wheels-") as name:
            if not is_built(folder):
                if recipe.python is not None:
                    lay_wheels(lock, cache, Path(name), offline=offline)
                work = partial(customise, recipe=recipe, epoch=lock.epoch, wheels=Path(name))
                finish(recipe, packages, folder, work)
    return folder / "root"


def customise(root: Path, recipe: Recipe, epoch: int, wheels: Path | None = None) -> None:
    """Turn a fresh root into an image: no identity, no caches, our files laid over it.

    Args:
        root: the root file system.
        recipe: whose files and units.
        epoch: in seconds since 1970, the time that is given to what is packed in it.
        wheels: a folder with the locked wheels, for a root with ppn.

    Raises:
        OSError: the root cannot be changed.
        CommandFailed: a package ppn needs cannot be had, or not be laid in; or it has no initial
            RAM disk.
        IsoError: the root has no kernel, or several.
    """
    if recipe.python is not None:
        put_dependencies(root, dependencies_layer(recipe.python, wheels))
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
    if recipe.initrd:
        kernel_of(root).initrd.write_bytes(debian_initrd(root, epoch))


def debian_initrd(root: Path, epoch: int) -> bytes:
    """A root's own initial RAM disk, made by Debian's program, as updates will do on a node.

    Args:
        root: the root file system, with the settings for it.
        epoch: in seconds since 1970, the time of every file in it.

    Raises:
        IsoError: the root has no kernel, or several.
        CommandFailed: it could not be made.
    """
    with TemporaryDirectory(prefix="ppn-initrd-") as name:
        argv = ["mkinitramfs", "-o", "/mnt/made/initrd", kernel_of(root).version]
        env = {"SOURCE_DATE_EPOCH": str(epoch)}
        run_in(root, argv, timeout=INITRD_SECONDS, binds={Path(name): "/mnt/made"}, env=env)
        return (Path(name) / "initrd").read_bytes()


def lay_over(root: Path, tree: Path | None) -> None:
    """Copy a tree's files and links into a root, with modes that no umask has touched."""
    for path in files_below(tree):
        target = root / path.relative_to(tree or HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copyfile(path, target, follow_symlinks=False)
        if not path.is_symlink():
            target.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
