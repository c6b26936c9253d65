"""Makes the lock anew: from what the archive has now, and from `uv.lock`."""

from __future__ import annotations

from collections.abc import Callable

from iso.archive import ArchiveUnusable, ask, mirrors
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


def need_no_older(known: Lock | None, now: Lock) -> None:
    """Refuse what an archive had before the lock was made: updates would be taken back.

    What it signed long ago is still signed, so that a mirror which lags, or lies, is not noticed
    otherwise.

    Args:
        known: the lock that there is.
        now: the one that would take its place.

    Raises:
        ArchiveUnusable: `archive_older`.
    """
    before = {one.name: one.date for one in known.archives} if known is not None else {}
    for one in now.archives:
        if one.date < before.get(one.name, ""):
            raise ArchiveUnusable(
                f"{one.name} is of {one.date} here, and the lock of {before[one.name]} is newer",
                code="archive_older",
                hint="take another mirror (PPN_MIRROR, PPN_SECURITY_MIRROR); to go back on "
                "purpose, remove iso/packages.lock first",
            )
