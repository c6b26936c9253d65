"""Makes the lock anew: from what the archive has now, and from `uv.lock`."""

from __future__ import annotations

from collections.abc import Callable

from iso.archive import ask, mirrors
from iso.lock import Lock, Tree, changes
from iso.root import recipes
from iso.wheels import node_wheels


def refreshed(told: Callable[[str], None]) -> Lock:
    """The lock of all trees as of now.

    Args:
        told: called with what is being done.

    Raises:
        ArchiveUnusable: the archive does not answer, or lacks a package.
        LockUnusable: a Python package has no wheel for a node.
        CommandFailed: apt or uv cannot be started.
    """
    asked = {recipe.name: recipe.packages for recipe in recipes()}
    state = ask(mirrors(), asked, told)
    told("choose the wheels")
    trees = tuple(sorted(Tree(name, packages) for name, packages in asked.items()))
    return Lock(state.archives, trees, state.packages, node_wheels())


def differs(known: Lock | None, now: Lock) -> bool:
    """Whether a lock must be written: newer dates of the same packages are no reason."""
    return known is None or known.trees != now.trees or bool(changes(known, now))
