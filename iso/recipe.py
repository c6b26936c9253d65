"""What a file tree is made of: Debian packages, our files, and what is turned off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploys.wheelhouse import dependencies_digest
from iso.archive import SUITE
from iso.cache import hash_of
from iso.lock import Lock

HERE = Path(__file__).parent
# Raise it when another tree is made of the same inputs.
RECIPE_VERSION = 6


@dataclass(frozen=True)
class Recipe:
    """One kind of root file system.

    Args:
        name: what it is for, part of its cached name and the tree's name in the lock.
        packages: Debian packages that are asked for; what they need comes with them.
        tree: folder whose files are laid over the root at the end.
        disabled: patterns of units that Debian enables and this root does not.
        python: lays in the packages that ppn needs on this Python; None for a root without ppn.
        initrd: whether it has the initial RAM disk of a system that starts from a disk of its own.
    """

    name: str
    packages: tuple[str, ...]
    tree: Path | None = None
    disabled: tuple[str, ...] = ()
    python: str | None = None
    initrd: bool = False

    def digest(self, lock: Lock) -> str:
        """A short hash of everything that shapes the result.

        Args:
            lock: has the packages, by hash.
        """
        parts = [str(RECIPE_VERSION), SUITE, self.name, str(lock.epoch), str(self.initrd)]
        parts += [*self.packages, "", *self.disabled, ""]
        parts += [one.sha256 for one in lock.of(self.name)]
        if self.python is not None:
            parts.append(dependencies_digest(self.python))
        for path in files_below(self.tree):
            kind = os.readlink(path) if path.is_symlink() else hash_of(path)
            mode = "x" if not path.is_symlink() and path.stat().st_mode & 0o100 else "-"
            parts.append(f"{path.relative_to(self.tree or HERE)} {mode} {kind}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def read_packages(path: Path) -> tuple[str, ...]:
    """Package names of a list, sorted, without comments."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return tuple(sorted({line for line in lines if line}))


def files_below(folder: Path | None) -> Iterator[Path]:
    """Files and links below a folder, in a fixed order."""
    if folder is not None:
        yield from sorted(p for p in folder.rglob("*") if p.is_symlink() or p.is_file())
