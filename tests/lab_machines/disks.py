"""Disks that belong to somebody, and layers that take every write to them."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GIB = 2**30
LARGE, SMALL = 10 * GIB, 2 * GIB
# Where version 1.2 of Linux' software RAID keeps what it knows of an array (bytes).
RAID_OFFSET = 4096
RAID_MAGIC = 0xA92B4EFC


def sparse(path: Path, size: int) -> Path:
    """A disk of zeros, of so many bytes."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def blank(path: Path) -> Path:
    """A disk that was never used."""
    return sparse(path, LARGE)


def small(path: Path) -> Path:
    """A disk on which there is no room for a node."""
    return sparse(path, SMALL)


def photos(path: Path) -> Path:
    """A disk with somebody's file system."""
    sparse(path, LARGE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "photos", path], check=True, timeout=60)
    return path


def raid(path: Path) -> Path:
    """A disk that is half of somebody's mirror, by the kernel's own format."""
    sparse(path, LARGE)
    sectors = LARGE // 512
    head = struct.pack("<IIII16s32s", RAID_MAGIC, 1, 0, 0, b"r" * 16, b"nas:0")
    array = struct.pack("<QiiQIi", 0, 1, 0, sectors - 2048, 0, 2)
    member = struct.pack("<QQQQII16s", 2048, sectors - 2048, RAID_OFFSET // 512, 0, 0, 0, b"m" * 16)
    block = bytearray(head + array).ljust(128, b"\0") + member
    # Room for two members, and what each is: the checksum counts both.
    block = block.ljust(220, b"\0") + struct.pack("<I", 2)
    block = block.ljust(256, b"\0") + struct.pack("<HH", 0, 1)
    # The checksum's field (at 216) is zero while the sum is taken.
    total = sum(struct.unpack(f"<{len(block) // 4}I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    with path.open("r+b") as file:
        file.seek(RAID_OFFSET)
        file.write(block)
    return path


def wiped(path: Path) -> Path:
    """A disk whose headers are gone, and whose data is not."""
    sparse(path, LARGE)
    with path.open("r+b") as file:
        file.seek(700_000)
        file.write(b"somebody's data")
    return path


# By the serial number of the disk.
MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "ONE": blank,
    "TWO": blank,
    "PHOTOS": photos,
    "RAID": raid,
    "WIPED": wiped,
    "SMALL": small,
}


def layer(folder: Path, name: str, base: Path) -> Path:
    """A disk over another file, which takes every write."""
    path = folder / f"{name}.qcow2"
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base.resolve())]
    subprocess.run([*words, str(path)], check=True, timeout=60)
    return path


def written(layer: Path) -> Sequence[int]:
    """Where anything was written to a disk: offsets in bytes."""
    done = subprocess.run(
        # The machine that has it is on.
        ["qemu-img", "map", "--force-share", "--output=json", "-f", "qcow2", str(layer)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return [part["start"] for part in json.loads(done.stdout) if part["depth"] == 0]
