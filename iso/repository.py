"""The locked packages as an archive in a folder, which mmdebstrap installs from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from iso.cache import Cache
from iso.fetch import described
from iso.lock import Package
from ppn.run import run

CONTROL_SECONDS = 60


def lay_out(folder: Path, packages: Sequence[Package], cache: Cache) -> None:
    """Make a flat archive: the packages and a list of them, the same for the same packages.

    Args:
        folder: an empty folder.
        packages: what goes in.
        cache: has their files.

    Raises:
        CacheUnusable: a file is not there, or damaged.
        CommandFailed: a file is no Debian package.
        OSError: the folder cannot be written.
    """
    cache.need([described(one) for one in packages])
    for one in packages:
        _put(cache.path(one.sha256), folder / one.file)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        listed = list(pool.map(lambda one: stanza(one, folder / one.file), sorted(packages)))
    (folder / "Packages").write_text("".join(listed), encoding="utf-8")


def stanza(package: Package, file: Path) -> str:
    """What the list says of a package: its own words, and where it is."""
    control = run(["dpkg-deb", "--field", file], timeout=CONTROL_SECONDS).stdout.strip()
    # fmt: off
    return (
        f"{control}\n"
        f"Filename: ./{package.file}\n"
        f"Size: {package.size}\n"
        f"SHA256: {package.sha256}\n\n"
    )
    # fmt: on


def _put(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        # Another file system, or one without hard links.
        shutil.copyfile(source, target)
