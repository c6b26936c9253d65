"""VM disks: qcow2 files made by qemu-img."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppn.durable import sync_folder
from ppn.errors import PpnError
from ppn.run import run

QEMU_IMG = "qemu-img"
TIMEOUT_SECONDS = 120
# Reads and writes a whole disk.
FLATTEN_SECONDS = 6 * 3600
MAGIC = b"QFI\xfb"
# Of qcow2's version 3; an incompatible feature of it is a data file beside it.
HEADER_BYTES, EXTERNAL_DATA = 104, 1 << 2
MIB = 1024 * 1024
# The map of a disk without a base is made at once, in large clusters: that takes nearly the same
# time for every size, and no write has to allocate. Over a base, small clusters copy less.
OWN_OPTIONS = ("-o", "preallocation=metadata,cluster_size=1M")


class DiskDamaged(PpnError):
    """A disk file that is no qcow2 image."""

    code = "disk_damaged"


@dataclass(frozen=True)
class DiskInfo:
    """What qemu-img says about a disk: sizes in MiB, and the base image when it has one."""

    virtual_mib: int
    allocated_mib: int
    base: Path | None


def create_disk(path: Path, size_gib: int, base: Path | None) -> None:
    """Make a disk; it appears under its name only when whole.

    Args:
        path: the file; its folder must exist.
        size_gib: virtual size in GiB.
        base: qcow2 image that is read where the disk was not written; None for an empty disk.

    Raises:
        CommandFailed: qemu-img could not make it.
    """
    temporary = path.with_name(f".{path.name}.new")
    shape: Sequence[str | Path] = OWN_OPTIONS if base is None else ("-b", base, "-F", "qcow2")
    try:
        run(
            [QEMU_IMG, "create", "-q", "-f", "qcow2", *shape, temporary, f"{size_gib}G"],
            timeout=TIMEOUT_SECONDS,
        )
        _sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def grow_disk(path: Path, size_gib: int) -> None:
    """Give the disk of a stopped VM a larger virtual size.

    Raises:
        CommandFailed: qemu-img could not, for example because a VM uses the file.
    """
    run([QEMU_IMG, "resize", "-q", "-f", "qcow2", path, f"{size_gib}G"], timeout=TIMEOUT_SECONDS)
    _sync(path)


def flatten_disk(path: Path, copy: Path, check: Callable[[], None]) -> None:
    """Copy a disk that nobody uses into one that needs no base; what is empty takes no room.

    Args:
        path: the disk.
        copy: the copy; it appears under its name only when whole.
        check: raises when the copying shall end; asked several times a second.

    Raises:
        CommandFailed: qemu-img could not, for example because a VM uses the disk.
    """
    temporary = copy.with_name(f".{copy.name}.{secrets.token_hex(6)}.new")
    try:
        run(
            [QEMU_IMG, "convert", "-q", "-f", "qcow2", "-O", "qcow2", path, temporary],
            timeout=FLATTEN_SECONDS,
            check=check,
        )
        _sync(temporary)
        os.replace(temporary, copy)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(copy.parent)


def disk_info(path: Path) -> DiskInfo:
    """A disk as qemu-img reads it, also while a VM uses it.

    Raises:
        CommandFailed: no image or not readable.
    """
    done = run([QEMU_IMG, "info", "-U", "--output=json", path], timeout=TIMEOUT_SECONDS)
    fields = json.loads(done.stdout)
    base = fields.get("full-backing-filename")
    return DiskInfo(
        virtual_mib=fields["virtual-size"] // MIB,
        allocated_mib=fields["actual-size"] // MIB,
        base=Path(base) if base else None,
    )


def disk_sizes(path: Path) -> tuple[int, int]:
    """Virtual and allocated size of a disk in MiB, from its header: one read, no other program.

    Raises:
        DiskDamaged: no qcow2 image.
        OSError: not readable.
    """
    with path.open("rb") as file:
        header = file.read(32)
        blocks = os.fstat(file.fileno()).st_blocks
    if len(header) < 32 or header[:4] != MAGIC:
        raise DiskDamaged(
            f"{path} is no qcow2 image",
            hint="put the disk back from a copy, or declare the vm absent",
        )
    return int.from_bytes(header[24:32], "big") // MIB, blocks * 512 // MIB


def is_self_contained(path: Path) -> bool:
    """Whether a qcow2 file names no other file that QEMU would read for it.

    Args:
        path: of a file from elsewhere; QEMU's own tools are not let near it before.

    Raises:
        OSError: not readable.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:4] != MAGIC:
        return False
    version, backing = int.from_bytes(header[4:8], "big"), int.from_bytes(header[8:16], "big")
    features = int.from_bytes(header[72:80], "big") if version == 3 else 0
    return version in (2, 3) and backing == 0 and not features & EXTERNAL_DATA


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
