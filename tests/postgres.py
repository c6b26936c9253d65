"""A PostgreSQL server of a test's own: in a temporary folder, on a Unix socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ppn.run import run

USER = "postgres"
SECONDS = 180


class Cluster:
    """A running server.

    Args:
        folder: with its data and its socket.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = (f"ppn_{number}" for number in count(1))

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        words = [*as_user(), binary("createdb"), "-h", self.folder, "-U", USER, name]
        run(words, timeout=SECONDS, cwd=self.folder)
        return f"postgresql://{USER}@/{name}?host={self.folder}"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="ppn-postgres-"))
    if os.getuid() == 0:
        shutil.chown(folder, USER, USER)
    data = folder / "data"
    # fmt: off
    run(
        [*as_user(), binary("initdb"), "-D", data, "-U", USER, "-A", "trust",
         "-E", "UTF8", "--locale", "C", "--no-sync"],
        timeout=SECONDS, cwd=folder,
    )
    with (folder / "log").open("wb") as log:
        # The tests kill clients, never the server: what it writes need not outlive the machine.
        server = subprocess.Popen(
            [*as_user(), binary("postgres"), "-D", data, "-k", folder, "-h", "",
             "-c", "fsync=off"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )
    # fmt: on
    try:
        wait_until_ready(folder, server)
        yield Cluster(folder)
    finally:
        # At once: nobody needs what it would write before a proper end, for as long as a minute.
        server.send_signal(signal.SIGQUIT)
        try:
            server.wait(SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(SECONDS)
        shutil.rmtree(folder)


def wait_until_ready(folder: Path, server: subprocess.Popen[bytes]) -> None:
    """Return once a server takes connections."""
    end = time.monotonic() + SECONDS
    ask: list[str | Path] = [binary("pg_isready"), "-q", "-h", folder, "-U", USER]
    while run(ask, timeout=SECONDS, accept=range(4)).returncode != 0:
        if server.poll() is not None or time.monotonic() > end:
            raise RuntimeError((folder / "log").read_text())
        time.sleep(0.05)


def as_user() -> list[str | Path]:
    """What to start its programs with: PostgreSQL does not run as root."""
    # fmt: off
    return (
        ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--"]
        if os.getuid() == 0 else []
    )
    # fmt: on


def binary(name: str) -> Path:
    """A program of the newest PostgreSQL that is installed."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    return max(folders, key=lambda folder: int(folder.parent.name)) / name
