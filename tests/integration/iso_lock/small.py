"""Builds a small tree from the committed lock: `python -m ... FOLDER [YEAR]`.

It holds the packages that all trees have, which are a system of their own: with Python, and with
users that are made while it is installed.
"""

from __future__ import annotations

import random
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from iso import enter, trees
from iso.cache import Cache
from iso.fetch import fetch
from iso.lock import Lock, Package
from iso.recipe import files_below
from iso.repository import lay_out
from iso.root import customise, node_recipe
from iso.tools import tools_tree
from lab.paths import cache_folder

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")


def small_lock() -> Lock:
    """The committed lock, with what is in all of its trees alone."""
    lock = Lock.read()
    names = {tree.name for tree in lock.trees}
    common = tuple(one for one in lock.packages if set(one.trees) == names)
    return replace(lock, packages=common)


def build(folder: Path, year: str) -> Path:
    """Build the tree into a folder, at the turn of a year if one is given."""
    lock, cache = small_lock(), Cache(cache_folder())
    tools = tools_tree(Lock.read(), cache)
    fetch(lock, lock.packages, cache, print)
    if year:
        bend_time(year)
    tree = shuffled(node_recipe().tree, folder / "shuffled")
    recipe = replace(node_recipe(), python=None, initrd=False, tree=tree)
    trees.build(recipe, lock, cache, folder / "packages", tools=tools)
    work = partial(customise, recipe=recipe, epoch=lock.epoch)
    trees.finish(recipe, folder / "packages", folder / "small", work)
    return folder / "small" / "root"


def shuffled(tree: Path | None, copy: Path) -> Path:
    """A copy of a folder whose files came in another order."""
    paths = list(files_below(tree))
    random.shuffle(paths)
    for path in paths:
        target = copy / path.relative_to(tree or copy)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target, follow_symlinks=False)
    return copy


def bend_time(year: str) -> None:
    """Let every program of the build believe in another time."""
    moved = {
        "LD_PRELOAD": "/work/faketime.so",
        "FAKETIME": f"@{year}-12-31 23:59:00",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
    }
    enter.ENVIRONMENT.update(moved)
    plain = trees.mmdebstrap

    def bent(folder: Path, packages: tuple[Package, ...]) -> list[str]:
        program, *options = plain(folder, packages)
        judged = f'[ "$(chroot "$1" date +%Y)" -ge {year} ]'
        before = 'mkdir -p "$1/work"; cp /work/faketime.so "$1/work/"'
        after = 'rm "$1/work/faketime.so"; rmdir "$1/work"'
        hooks = [f"--setup-hook={before}", f"--customize-hook={judged}; {after}"]
        return [program, *hooks, *options]

    def brought(folder: Path, packages: tuple[Package, ...], cache: Cache) -> None:
        shutil.copy(FAKETIME, folder.parent / "faketime.so")
        lay_out(folder, packages, cache)

    # By name, for a function of a module is no variable to the type checker.
    setattr(trees, "mmdebstrap", bent)  # noqa: B010
    setattr(trees, "lay_out", brought)  # noqa: B010


if __name__ == "__main__":
    print(build(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
