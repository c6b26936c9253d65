"""What a VM consists of, ready to be sent: each disk whole in itself, and the manifest (MIG-03)."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ppn.durable import write_atomic
from ppn.errors import PpnError, Refusal
from ppn.host.disk import MIB, disk_info, disk_sizes, flatten_disk
from ppn.host.model import DiskPool
from ppn.host.paths import VmPaths
from ppn.host.sidecar import Sidecar
from ppn.host.spec import DISK_PATTERN
from ppn.wire.moving import MANIFEST

# A description of a VM with all its user data is shorter.
MOST_MANIFEST_BYTES = 8 * MIB
READ_BYTES = 4 * MIB


class Copy(BaseModel):
    """One disk as it is sent.

    Args:
        disk: its name.
        bytes: length of the copy's file.
        sha256: of the copy's file.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    disk: str = Field(pattern=DISK_PATTERN)
    bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """What a VM is and what its disks' copies must be; it is sent sealed, before them.

    Args:
        sidecar: of the source.
        copies: in the order in which they are sent.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    sidecar: Sidecar
    copies: Annotated[tuple[Copy, ...], Field(strict=False, max_length=64)]

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each file in the move, by name."""
        return {MANIFEST: 0} | {copy.disk: at for at, copy in enumerate(self.copies, start=1)}


class ManifestDamaged(PpnError):
    """A manifest that is none; the copies beside it are worth nothing."""

    code = "manifest_damaged"


def manifest_path(files: VmPaths) -> Path:
    """The manifest's file, on either node."""
    return files.moving / "manifest.json"


def copy_path(files: VmPaths, disk: str) -> Path:
    """The file of a disk's copy, on either node."""
    return files.moving / f"{disk}.qcow2"


def read_manifest(files: VmPaths) -> Manifest | None:
    """What is ready to be sent, or has come; None while it is not whole.

    Raises:
        ManifestDamaged: it cannot be read.
    """
    try:
        return Manifest.model_validate_json(manifest_path(files).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise ManifestDamaged(
            f"{manifest_path(files)} is no manifest of a move", hint="begin the move again"
        ) from error


def check_room(vm: str, files: VmPaths, pool: DiskPool) -> None:
    """Refuse to copy disks that the node has no room to copy.

    Args:
        vm: whose.
        files: its files.
        pool: the node's room; what it is promised to other VMs is theirs.

    Raises:
        Refusal: `disk_exhausted`.
    """
    wanted = growth = 0
    for name in files.disk_names():
        info = disk_info(files.disk(name))
        below = disk_sizes(info.base)[1] if info.base is not None else 0
        wanted += min(info.allocated_mib + below, info.virtual_mib) + 1
        growth += max(info.virtual_mib - info.allocated_mib, 0)
    # Its own disks do not grow while it is stopped.
    free = pool.free_mib - max(pool.promised_mib - growth, 0)
    if wanted > free:
        raise Refusal(
            f"vm {vm}: its node has no room for the copies that are sent",
            code="disk_exhausted",
            constraint="free disk of the node it leaves, less what others may still grow by",
            wanted=wanted,
            free=max(free, 0),
            unit="MiB",
            hint="make room on that node",
        )


def make_copies(
    files: VmPaths,
    sidecar: Sidecar,
    check: Callable[[], None],
    on_bytes: Callable[[int], None],
) -> Manifest:
    """Copy the disks of a VM that does not run; done already, nothing is done again.

    Args:
        files: of the VM.
        sidecar: of the VM.
        check: raises when the copying shall end; asked several times a second.
        on_bytes: told how many bytes of copies have been read again, to be known by their SHA-256.

    Raises:
        CommandFailed: a disk cannot be copied, for example for want of room.
        OSError: a file cannot be written.
    """
    if (made := read_manifest(files)) is not None:
        return made
    shutil.rmtree(files.moving, ignore_errors=True)
    files.moving.mkdir(mode=0o700)
    copies: list[Copy] = []
    read = 0
    for name in files.disk_names():
        check()
        path = copy_path(files, name)
        flatten_disk(files.disk(name), path, check)
        digest = hashlib.sha256()
        for part in parts_of(path):
            check()
            digest.update(part)
            read += len(part)
            on_bytes(read)
        copies.append(Copy(disk=name, bytes=path.stat().st_size, sha256=digest.hexdigest()))
    manifest = Manifest(sidecar=sidecar, copies=tuple(copies))
    # Last of all: where it is, every copy is whole.
    write_atomic(manifest_path(files), manifest.model_dump_json().encode(), mode=0o600)
    return manifest


def parts_of(path: Path) -> Iterator[bytes]:
    """A file's content, some at a time.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as content:
        while part := content.read(READ_BYTES):
            yield part


def copied_bytes(files: VmPaths) -> int:
    """How much has been copied so far, in bytes on disk."""
    try:
        return sum(os.stat(path).st_blocks for path in files.moving.iterdir()) * 512
    except FileNotFoundError:
        return 0
