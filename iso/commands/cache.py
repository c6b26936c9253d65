"""`ppn iso cache`: have all that the lock names, and carry it to another machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from iso.cache import Cache, CacheUnusable, File
from iso.fetch import described, fetch, fetch_wheels
from iso.lock import Lock
from lab.paths import cache_folder
from lab.steps import step
from ppn.cli.output import AsJson, print_json


class Work(StrEnum):
    """What is done with the cache."""

    FETCH = "fetch"
    EXPORT = "export"
    IMPORT = "import"


def cache(
    work: Annotated[Work, typer.Argument(help="What to do.")],
    folder: Annotated[
        Path | None, typer.Argument(help="Where to export to, or to import from.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have every file that the lock names, and carry them to where there is no network.

    `fetch` gets what is missing; `export FOLDER` copies all of it; `import FOLDER` takes it in on
    another machine. Each file is compared with the lock wherever it arrives. PPN_CACHE says where
    the cache is, PPN_SNAPSHOT where files are that the archive no longer has.

    Exit codes: 0 all is there; 1 a file is missing, gone from the archive or wrong; 5 a mirror does
    not answer.

    Example: ppn iso cache export /media/stick/ppn
    """
    if (folder is None) != (work is Work.FETCH):
        raise typer.BadParameter("export and import take a folder, fetch takes none")
    lock, here = Lock.read(), Cache(cache_folder())
    files = named(lock)
    copied = 0
    with step(f"{work.capitalize()} {len(files)} files") as shown:
        if folder is None:
            fetch(lock, lock.packages, here, shown.detail)
            fetch_wheels(lock.wheels, here, shown.detail)
        elif work is Work.EXPORT:
            copied = here.copy_to(Cache(folder), files, shown.detail)
        else:
            copied = source(folder).copy_to(here, files, shown.detail)
    where = folder if work is Work.EXPORT and folder is not None else here.folder
    if as_json:
        print_json({"files": len(files), "copied": copied, "folder": str(where)})
    else:
        typer.echo(f"{where} has all {len(files)} files that the lock names")


def named(lock: Lock) -> list[File]:
    """Every file that a lock names."""
    wheels = (File(wheel.file, wheel.sha256) for wheel in lock.wheels)
    return [*map(described, lock.packages), *wheels]


def source(folder: Path) -> Cache:
    """An exported cache.

    Raises:
        CacheUnusable: the folder is none.
    """
    if not (folder / "files").is_dir():
        raise CacheUnusable(
            f"{folder} holds no exported cache",
            hint="give the folder that `scripts/iso cache export` filled",
        )
    return Cache(folder)
