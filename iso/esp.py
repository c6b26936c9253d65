"""The file system that firmware reads: FAT, with the signed file at the place it looks."""

from __future__ import annotations

import hashlib

from iso.uki import BOOT_PATH
from ppn.errors import Refusal

# Firmware loads an El Torito image through a BIOS-sized count; beyond it nothing is found.
MOST_BYTES = 32 << 20
UNIT = 64 << 10
# Boot sector, two tables and folders; a FAT16's tables take 2 bytes for each cluster of 2 KiB.
OVERHEAD = 256 << 10
LABEL = "PPN-BOOT"


def size_for(uki_bytes: int) -> int:
    """How large the file system must be for a boot file, in bytes.

    Args:
        uki_bytes: size of the boot file, with room for its signature.

    Raises:
        Refusal: `boot_image_too_large`; firmware would not find it.
    """
    size = -(-(uki_bytes + OVERHEAD) // UNIT) * UNIT
    if size >= MOST_BYTES:
        raise Refusal(
            "kernel and initial RAM disk are too large for a virtual CD",
            code="boot_image_too_large",
            constraint="El Torito boot image",
            wanted=size >> 10,
            free=MOST_BYTES >> 10,
            unit="KiB",
            hint="take drivers out of iso/initrd.py, or use a smaller kernel package",
        )
    return size


def serial_of(lock_digest: str) -> str:
    """The file system's serial number: eight hex digits, fixed by the lock."""
    return hashlib.sha256(f"ppn esp {lock_digest}".encode()).hexdigest()[:8]


def commands(image: str, uki: str, size: int, lock_digest: str) -> list[list[str]]:
    """The commands that make the file system, in order; times come from SOURCE_DATE_EPOCH.

    Args:
        image: the file to make.
        uki: the boot file.
        size: of the file system, in bytes.
        lock_digest: of the image's lock, in hex.
    """
    # fmt: off
    make = [
        "mkfs.fat", "-C", image, str(size >> 10),
        "--invariant",
        "-F", "16",
        "-s", "4",
        "-S", "512",
        "-i", serial_of(lock_digest),
        "-n", LABEL,
    ]
    # fmt: on
    parents = [BOOT_PATH.rsplit("/", level)[0] for level in (2, 1)]
    folders = [["mmd", "-i", image, f"::/{parent}"] for parent in parents]
    return [make, *folders, ["mcopy", "-i", image, uki, f"::/{BOOT_PATH}"]]
