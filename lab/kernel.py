"""A kernel's boot image, unpacked: an emulated processor takes a second to do that by itself."""

from __future__ import annotations

import struct
from pathlib import Path

from lab.errors import LabError
from ppn.run import run

# Offsets of fields in the header of Linux' boot image for x86 (Documentation/arch/x86/boot.rst).
SECTORS, MAGIC, PAYLOAD = 0x1F1, 0x202, 0x248
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# Of an ELF program of 64 bits: its first bytes, where it says of its segments' headers where they
# are and how many, and of its sections the same; in a segment's header, where that is in the file.
ELF = b"\x7fELF\x02\x01"
SEGMENTS, SEGMENTS_COUNT, SECTIONS, SECTIONS_COUNT = 0x20, 0x36, 0x28, 0x3C
PLACE, LENGTH = 0x08, 0x20
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
    output.write_bytes(trimmed(output.read_bytes()))


def trimmed(program: bytes) -> bytes:
    """An ELF program without what starting it does not read: a fifth of Debian's kernel.

    Who loads a segment that is longer in memory than in the file fills the rest with zeros; and
    what stands behind the last segment is for linkers and debuggers.

    Args:
        program: of 64 bits, little-endian.

    Raises:
        LabError: it is something else.
    """
    try:
        return _trimmed(program)
    except (struct.error, ValueError) as error:
        raise LabError(
            f"this kernel is no ELF program of 64 bits: {error}", code="kernel_unreadable"
        ) from error


def _trimmed(program: bytes) -> bytes:
    if not program.startswith(ELF):
        raise ValueError("its first bytes are others")
    (first,) = struct.unpack_from("<Q", program, SEGMENTS)
    size, count = struct.unpack_from("<HH", program, SEGMENTS_COUNT)
    ends = {}
    for header in range(first, first + size * count, size):
        (start,) = struct.unpack_from("<Q", program, header + PLACE)
        (length,) = struct.unpack_from("<Q", program, header + LENGTH)
        ends[start + length] = header, start
    end, (header, start) = max(ends.items())
    kept = bytearray(program[:end].rstrip(b"\0"))
    struct.pack_into("<Q", kept, header + LENGTH, len(kept) - start)
    struct.pack_into("<Q", kept, SECTIONS, 0)
    struct.pack_into("<HH", kept, SECTIONS_COUNT, 0, 0)
    return bytes(kept)
