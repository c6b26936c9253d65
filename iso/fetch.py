"""Fetches what the lock names: packages from a mirror or a snapshot, wheels with pip."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from deploys.wheelhouse import for_node
from iso.archive import mirrors
from iso.cache import Cache, CacheUnusable, File
from iso.lock import Lock, LockUnusable, Package, Wheel, stamp
from iso.wheels import PYTHON, node_wheels
from lab.steps import step
from ppn.errors import PpnError
from ppn.run import run

if TYPE_CHECKING:
    import httpx

AT_ONCE = 4
TRIES = 3
PAUSE_SECONDS = 0.5
# Of silence; a large package may take as long as it moves.
SILENCE_SECONDS = 30.0
WHEELS_SECONDS = 900
GONE = (404, 410)
SNAPSHOT = "PPN_SNAPSHOT"
LATER = timedelta(days=1)


class FetchFailed(PpnError):
    """A file that the lock names could not be had."""

    code = "fetch_failed"


class _Interrupted(Exception):
    """The transfer stopped where going on may help."""


def fetch(
    lock: Lock,
    packages: Sequence[Package],
    cache: Cache,
    told: Callable[[str], None],
    *,
    offline: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Have packages in the cache.

    Args:
        lock: says how old the archive is, for a snapshot's address.
        packages: which.
        cache: where they go.
        told: called with how far it is.
        offline: open no connection; refuse when one is missing.
        environment: the settings `PPN_MIRROR`, `PPN_SECURITY_MIRROR` and `PPN_SNAPSHOT`.

    Raises:
        CacheUnusable: offline, and one is missing; or a mirror gave wrong bytes.
        FetchFailed: one is gone from the archive, or the mirror does not answer.
    """
    absent = cache.absent([described(one) for one in packages])
    if offline:
        cache.need(absent)
    if not absent:
        return
    by_hash = {one.sha256: one for one in packages}
    places = mirrors(environment)
    files = [
        described(package, addresses(package, lock, places, environment.get(SNAPSHOT, "")))
        for package in (by_hash[file.sha256] for file in absent)
    ]
    download(files, cache, told, snapshot=bool(environment.get(SNAPSHOT)))


def described(package: Package, addresses: tuple[str, ...] = ()) -> File:
    """A package as the cache knows it."""
    title = f"{package.name} {package.version} ({package.path})"
    return File(title, package.sha256, package.size, addresses)


def addresses(
    package: Package, lock: Lock, places: Mapping[str, str], snapshot: str
) -> tuple[str, ...]:
    """Where a package can be had: the mirror, then a snapshot of the lock's time, and a day later.

    A snapshot was taken before the time that it is asked for: what came with that very state is in
    a later one, and what left at once is in the earlier one.

    Args:
        package: which.
        lock: has the time.
        places: the mirrors, by archive.
        snapshot: the address below which `ARCHIVE/DATE/` is; may be empty.
    """
    found = (f"{places[package.archive]}/{package.path}",)
    if not snapshot:
        return found
    archive = next(one for one in lock.archives if one.name == package.archive)
    dates = (archive.date, stamp(datetime.fromtimestamp(archive.seconds, UTC) + LATER))
    place = f"{snapshot.rstrip('/')}/{package.archive}"
    return (*found, *(f"{place}/{date}/{package.path}" for date in dates))


def download(
    files: Sequence[File],
    cache: Cache,
    told: Callable[[str], None],
    *,
    snapshot: bool,
) -> None:
    """Fetch files, some at once; the first failure ends it, and what has come stays.

    Args:
        files: what is not in the cache.
        cache: where they go.
        told: called with how far it is.
        snapshot: whether a snapshot is among the addresses.

    Raises:
        CacheUnusable: wrong bytes.
        FetchFailed: a file cannot be had.
    """
    import httpx

    done = 0
    counting = threading.Lock()
    stop = threading.Event()

    def one(file: File) -> None:
        nonlocal done
        if stop.is_set():
            return
        try:
            _download_one(client, file, cache, snapshot=snapshot)
        except BaseException:
            stop.set()
            raise
        with counting:
            done += 1
            told(f"{done} of {len(files)}")

    with (
        httpx.Client(timeout=SILENCE_SECONDS, follow_redirects=True) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        try:
            for future in [pool.submit(one, file) for file in files]:
                future.result()
        finally:
            # Interrupted too: the pool would go on with all that waits.
            stop.set()


def _download_one(client: httpx.Client, file: File, cache: Cache, *, snapshot: bool) -> None:
    reason = ""
    draft = cache.draft(file)
    try:
        for address in file.addresses:
            draft.unlink(missing_ok=True)
            reason = _try(client, address, file, draft)
            if not reason:
                cache.keep(draft, file)
                return
        raise _failure(file, reason, cache, snapshot=snapshot)
    finally:
        draft.unlink(missing_ok=True)


def _try(client: httpx.Client, address: str, file: File, draft: Path) -> str:
    """Fill a draft from one address; why not, or nothing."""
    reason = ""
    for again in range(TRIES):
        time.sleep(PAUSE_SECONDS * again)
        try:
            return _pull(client, address, file, draft)
        except _Interrupted as stopped:
            reason = str(stopped)
    return reason


def _pull(client: httpx.Client, address: str, file: File, draft: Path) -> str:
    """One request, going on where the draft ends; "gone" when the address does not have it."""
    import httpx

    have = draft.stat().st_size if draft.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        with client.stream("GET", address, headers=headers) as answer:
            if answer.status_code in GONE:
                return "gone"
            if answer.status_code not in (200, 206):
                raise _Interrupted(f"it answered {answer.status_code}")
            have = have if answer.status_code == 206 else 0
            with draft.open("ab" if have else "wb") as output:
                for chunk in answer.iter_raw():
                    have += len(chunk)
                    if file.size is not None and have > file.size:
                        # Wrong bytes without end: what has come is enough to refuse it.
                        return ""
                    output.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _Interrupted(str(error) or type(error).__name__) from error
    if file.size is not None and have < file.size:
        raise _Interrupted(f"it sent {have} of {file.size} bytes")
    return ""


def _failure(file: File, reason: str, cache: Cache, *, snapshot: bool) -> FetchFailed:
    if reason != "gone":
        return FetchFailed(
            f"{file.title} cannot be fetched: {reason}",
            hint="look at the mirror (PPN_MIRROR, PPN_SECURITY_MIRROR), then run it again: "
            "what has come stays",
        )
    where = "the archive and the snapshot" if snapshot else "the archive"
    other = f"check {SNAPSHOT}" if snapshot else f"set {SNAPSHOT} to a snapshot archive's address"
    return FetchFailed(
        f"{where} no longer has {file.title}, and it is not in the cache {cache.folder}",
        code="package_gone",
        hint=f"{other}, carry a cache that has it here (`scripts/iso cache import FOLDER`), "
        "or refresh the lock (`scripts/iso lock`) for a newer image",
    )


def fetch_wheels(
    wheels: Sequence[Wheel], cache: Cache, told: Callable[[str], None], *, offline: bool = False
) -> None:
    """Have wheels in the cache, from whichever index pip is set up for.

    Args:
        wheels: which.
        cache: where they go.
        told: called with what is being done.
        offline: open no connection; refuse when one is missing.

    Raises:
        CacheUnusable: offline, and one is missing; or the index gave another file.
        CommandFailed: the index does not have one, or does not answer.
    """
    files = {wheel.file: File(wheel.file, wheel.sha256) for wheel in wheels}
    absent = {file.title for file in cache.absent(files.values())}
    if offline:
        cache.need([files[name] for name in absent])
    if not absent:
        return
    told(f"{len(absent)} wheels")
    wanted = [wheel for wheel in wheels if wheel.file in absent]
    with tempfile.TemporaryDirectory(prefix="ppn-wheels-") as name:
        folder = Path(name)
        requirements = folder / "requirements.txt"
        requirements.write_text("".join(f"{requirement(wheel)}\n" for wheel in wanted))
        run(download_command(requirements, folder), timeout=WHEELS_SECONDS)
        for wheel in wanted:
            came = folder / wheel.file
            if not came.is_file():
                raise CacheUnusable(f"pip chose another file than {wheel.file}")
            cache.take(came, files[wheel.file])


def lay_wheels(lock: Lock, cache: Cache, folder: Path, *, offline: bool) -> None:
    """Put every locked wheel into a folder, under its own name, as pip wants them.

    Args:
        lock: the wheels.
        cache: has them, or will.
        folder: where they go.
        offline: open no connection.

    Raises:
        LockUnusable: `uv.lock` has other ones by now.
        CacheUnusable: one is missing or wrong.
        CommandFailed: one cannot be had.
    """
    if set(lock.wheels) != set(node_wheels()):
        raise LockUnusable(
            "the lock of wheels was made before uv.lock changed",
            code="lock_stale",
            hint="run `scripts/iso lock`, look at what changed, commit it",
        )
    with step(f"Fetch {len(lock.wheels)} wheels") as shown:
        fetch_wheels(lock.wheels, cache, shown.detail, offline=offline)
    for wheel in lock.wheels:
        shutil.copyfile(cache.path(wheel.sha256), folder / wheel.file)


def requirement(wheel: Wheel) -> str:
    """A wheel as a line for pip."""
    return f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}"


def download_command(requirements: Path, folder: Path) -> list[str | Path]:
    """The call that fetches wheels for a node's Python."""
    # fmt: off
    return [
        sys.executable, "-m", "pip", "download", "-q",
        "--disable-pip-version-check",
        "--no-deps",
        *for_node(PYTHON),
        "-r", requirements,
        "-d", folder,
    ]
    # fmt: on
