"""The tools tree: Debian 13's own builders, from the lock, so that the host's do not matter."""

from __future__ import annotations

from pathlib import Path

from iso.cache import Cache
from iso.lock import Lock
from iso.recipe import HERE, Recipe, read_packages
from iso.trees import ensure


def tools_recipe() -> Recipe:
    """What the tools tree holds."""
    return Recipe("tools", read_packages(HERE / "tools-packages.txt"))


def tools_tree(lock: Lock, cache: Cache, *, offline: bool = False) -> Path:
    """The folder of the tools tree, built with the host's mmdebstrap if it is not there yet.

    Args:
        lock: its packages.
        cache: has them, or will; the tree is kept there too.
        offline: open no connection.

    Raises:
        PpnError: it cannot be built.
    """
    return ensure(tools_recipe(), lock, cache, offline=offline) / "root"
