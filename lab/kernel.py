"""A kernel's boot image, unpacked: an emulated processor takes a second to do that by itself."""

from __future__ import annotations

import struct
from pathlib import Path

from lab.errors import LabError
from ppn.run import run

# Offsets of fields in the header of Linux' boot image for x86 (Documentation/arch/x86/boot.rst).
SECTORS, MAGIC, PAYLOAD = 0x1F1, 0x202, 0x248
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# Behind the payload stands how long it is unpacked.
LENGTH_BYTES = 4


def payload(image: bytes) -> bytes:
    """The compressed kernel in a boot image.

    Args:
        image: what boot loaders load, as Debian ships it.

    Raises:
        LabError: it is no boot image, or not compressed with zstd.
    """
    if image[MAGIC : MAGIC + 4] != b"HdrS":
        raise LabError("this is no boot image of Linux", code="kernel_unreadable")
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = ((image[SECTORS] or 4) + 1) * 512 + offset
    found = image[start : start + length - LENGTH_BYTES]
    if not found.startswith(ZSTANDARD):
        raise LabError("this kernel is not compressed with zstd", code="kernel_unreadable")
    return found


def unpack(image: Path, output: Path) -> None:
    """Write the kernel of a boot image as the ELF program that QEMU starts directly (PVH).

    Args:
        image: the boot image.
        output: the file to make.

    Raises:
        LabError: the boot image cannot be understood.
        CommandFailed: the kernel in it is damaged.
    """
    packed = output.with_suffix(".zst")
    packed.write_bytes(payload(image.read_bytes()))
    run(["zstd", "-d", "-q", "-f", "--rm", packed, "-o", output], timeout=60)
