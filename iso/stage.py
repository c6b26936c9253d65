"""Where a build's inputs come from: the lock, and the trees that are made of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from deploys.wheelhouse import dependencies_digest, release_layer
from iso import sbom, squash
from iso.build import Inputs
from iso.cache import Cache
from iso.errors import IsoError
from iso.lock import LOCK_FILE, Lock
from iso.root import node_root
from iso.software import put_release
from iso.source import Source, source_of
from iso.times import Times
from iso.tools import tools_tree
from iso.trees import building, need_root, remove
from iso.wheels import PYTHON
from lab.paths import cache_folder
from ppn.run import run

TREE = "node"
COPY_SECONDS = 300
# For a few checkouts that share the cache.
KEPT = 4


def inputs_from_lock(
    *,
    output: Path,
    keys: Path | None,
    site: Path | None,
    times: Times,
    offline: bool = False,
    fresh: bool = False,
) -> Inputs:
    """The inputs that this checkout's lock makes.

    Args:
        output: folder for the parts.
        keys: the operator's public keys.
        site: signed site settings.
        times: takes the time of each step.
        offline: open no connection.
        fresh: pack the root now, even if the cache has it.

    Raises:
        Refusal: only root may.
        IsoError: `checkout_changed` meanwhile.
        PpnError: a tree cannot be built.
    """
    need_root("building an image")
    lock, found, cache = Lock.read(), source_of(), Cache(cache_folder())
    with times.step("trees", "Make the tools tree and the node root"):
        tools = tools_tree(lock, cache, offline=offline)
        root = node_root(lock, cache, offline=offline)
    source = at_least(found, lock.epoch)
    with times.step("squash", "Pack the root"):
        packed = packed_root(root, source, cache, tools=tools, fresh=fresh)
    need_unchanged(lock, found)
    return Inputs(
        root=root,
        packed=packed,
        tools=tools,
        lock=LOCK_FILE,
        source=source,
        components=components(lock),
        output=output,
        keys=keys,
        site=site,
    )


def need_unchanged(lock: Lock, source: Source) -> None:
    """Refuse to let an image say that it is of another lock or commit than it was made of.

    Raises:
        IsoError: `checkout_changed`.
    """
    if (Lock.read(), source_of()) != (lock, source):
        raise IsoError(
            "the checkout was changed while its image was built",
            code="checkout_changed",
            hint="build again, and pull or commit afterwards",
        )


def at_least(source: Source, epoch: int) -> Source:
    """The source with a time at which all its packages were there."""
    return replace(source, epoch=max(source.epoch, epoch))


def packed_root(root: Path, source: Source, cache: Cache, *, tools: Path, fresh: bool) -> Path:
    """The node root with this checkout's ppn in it, packed; kept for the next build.

    Args:
        root: the node root.
        source: its time becomes that of every file.
        cache: keeps the file.
        tools: the tools tree.
        fresh: pack it even if it is there.

    Raises:
        CommandFailed: ppn could not be laid in, or the root not be packed.
        OSError: no room, or no right.
    """
    # The root has the packages' layer; its archive, which may have to be fetched, is not needed.
    release = release_layer(PYTHON)
    # The trees' folders are called by a hash of all that is in them, and so is ppn.
    trees = (root.parent.name, tools.parent.name)
    parts = (*trees, release.digest, *squash.command("", "", source.epoch))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    kept = cache.folder / f"packed-{digest}.squashfs"
    with building(cache.folder, "packed"):
        if fresh or not kept.exists():
            # Of a build that was killed; nobody else packs now.
            for left in cache.folder.glob(".packing-*"):
                remove(left)
            with TemporaryDirectory(prefix=".packing-", dir=cache.folder) as name:
                whole = Path(name) / "root"
                run(["cp", "--archive", root, whole], timeout=COPY_SECONDS)
                put_release(whole, dependencies_digest(PYTHON), release)
                squash.pack(whole, kept, tools=tools, epoch=source.epoch)
            for old in superseded(cache.folder.glob("packed-*.squashfs")):
                old.unlink()
        # In use, and so not the next to go.
        os.utime(kept)
    return kept


def superseded(packed: Iterable[Path]) -> list[Path]:
    """All but the newest packed roots: each commit makes another one, of some 200 MiB."""
    return sorted(packed, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]


def tools_from_lock() -> Path:
    """The tools tree that this checkout's lock makes.

    Raises:
        Refusal: whoever is not root cannot enter it.
        PpnError: it cannot be built.
    """
    need_root("running the builder's tools")
    return tools_tree(Lock.read(), Cache(cache_folder()))


def components(lock: Lock) -> list[sbom.Component]:
    """What the lock says that a node is made of."""
    debs = [
        sbom.Component("deb", one.name, one.version, one.sha256, one.file) for one in lock.of(TREE)
    ]
    wheels = [
        sbom.Component("pypi", one.name, one.version, one.sha256, one.file) for one in lock.wheels
    ]
    return debs + wheels
