"""The operation that puts ppn's own software on a node, without a network."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from pyinfra import host
from pyinfra.api import (
    FileUploadCommand,
    FunctionCommand,
    QuoteString,
    StringCommand,
    operation,
)

from facts.software import InstalledSoftware, Software
from operations.failure import fail, unreadable
from operations.files import File

FOLDER = "/opt/ppn"
MARKER = f"{FOLDER}/venv/INSTALLED"
COMMAND = "/usr/local/bin/ppn"
INSTALLER = Path(__file__).with_name("install_software.sh").read_text(encoding="utf-8")


def marker(digest: str) -> dict[str, File]:
    """The file that tells which software is installed, for units that restart after it."""
    return {MARKER: File(f"{digest}\n")}


def plan(digest: str, dependencies_digest: str, actual: Software) -> tuple[str, ...]:
    """The names of the archives a node needs, in the order they are unpacked; empty when none."""
    needed = []
    if dependencies_digest not in actual.dependencies:
        needed.append(f"dependencies-{dependencies_digest}")
    if needed or actual.release != digest:
        needed.append(f"venv-{digest}")
    return tuple(needed)


def room_mib(archive: Path) -> int:
    """What an archive takes on a node while it is installed, in MiB, with bytecode; an upper bound.

    Args:
        archive: compressed by gzip, which puts the size of what is inside into the last four bytes.

    Raises:
        OSError: the archive cannot be read.
    """
    with archive.open("rb") as file:
        file.seek(-4, 2)
        unpacked = int.from_bytes(file.read(), "little")
    return (2 * unpacked + archive.stat().st_size) // 2**20 + 1


@operation()
def installed(
    archive: str, digest: str, dependencies: str, dependencies_digest: str
) -> Generator[StringCommand | FunctionCommand | FileUploadCommand, None, None]:
    """Declare which build of ppn a node runs, in `/opt/ppn/venv`.

    The packages it needs are a layer of their own, which is sent to nodes that do not have it yet.

    + archive: ppn's own code for a node: a tar archive on this machine.
    + digest: its name, as recorded on the node once it is installed.
    + dependencies: the packages, unpacked for a node: a tar archive on this machine.
    + dependencies_digest: their name, likewise.

    **Example:**

    .. code:: python

        software.installed(
            name="ppn",
            archive="ppn.tar.gz",
            digest="5f0c",
            dependencies="packages.tar.gz",
            dependencies_digest="77ab",
        )
    """
    actual = host.get_fact(InstalledSoftware)
    if actual is None:
        yield unreadable("which build of ppn is installed")
        return
    needed = plan(digest, dependencies_digest, actual)
    if not needed:
        host.noop(f"build {digest} is installed")
        return
    archives = {f"dependencies-{dependencies_digest}": dependencies, f"venv-{digest}": archive}
    room = sum(room_mib(Path(archives[one])) for one in needed)
    if room > actual.free_mib:
        yield fail(
            f"ppn needs {room} MiB in {FOLDER}, free are {actual.free_mib} MiB: make room and run"
            " again; the build in use stays in use (no_space)"
        )
        return
    yield StringCommand("mkdir", "-p", FOLDER)
    for one in needed:
        yield FileUploadCommand(archives[one], f"{FOLDER}/{one}.tar.gz")
    words = (FOLDER, dependencies_digest, digest, COMMAND)
    yield StringCommand(
        "sh", "-c", QuoteString(INSTALLER), "ppn-install", *(QuoteString(word) for word in words)
    )
