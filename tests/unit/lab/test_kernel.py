"""What is inside a kernel's boot image."""

from __future__ import annotations

import struct

import pytest

from lab.errors import LabError
from lab.kernel import ZSTANDARD, payload, trimmed

PACKED = ZSTANDARD + b"the kernel itself"
SECTORS = 3


def boot_image(packed: bytes) -> bytes:
    """A boot image in which the kernel starts 64 bytes behind the real-mode code."""
    image = bytearray((SECTORS + 1) * 512 + 64) + packed + struct.pack("<I", 1000) + b"\0" * 32
    image[0x1F1] = SECTORS
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 64, len(packed) + 4)
    return bytes(image)


def test_the_packed_kernel_is_found() -> None:
    assert payload(boot_image(PACKED)) == PACKED


@pytest.mark.parametrize(
    "image", [b"", b"\x7fELF" * 300, boot_image(PACKED)[:0x300], boot_image(b"\x1f\x8bgzip")]
)
def test_anything_else_is_refused(image: bytes) -> None:
    with pytest.raises(LabError) as refused:
        payload(image)
    assert refused.value.code == "kernel_unreadable"


def program(*segments: bytes, behind: bytes = b"") -> bytes:
    """An ELF program of 64 bits whose segments follow its headers in the file."""
    header = bytearray(b"\x7fELF\2\1" + bytes(58))
    struct.pack_into("<QQ", header, 0x20, 64, 999)
    struct.pack_into("<HHHHH", header, 0x36, 56, len(segments), 64, 5, 4)
    headers, start = b"", 64 + 56 * len(segments)
    for segment in segments:
        size = len(segment)
        headers += struct.pack("<IIQQQQQQ", 1, 7, start, 0x1000, 0x1000, size, size, 0x1000)
        start += size
    return bytes(header) + headers + b"".join(segments) + behind


def test_a_kernel_has_no_zeros_at_its_end_and_nothing_behind_them() -> None:
    whole = program(b"code\0\0", b"data" + bytes(500), behind=b"sections")
    bare = trimmed(whole)
    assert len(bare) == len(whole) - 500 - len(b"sections")
    assert bare.endswith(b"code\0\0data")
    # The last segment is as long in memory as before, and shorter in the file; no section is told.
    in_file, in_memory = struct.unpack_from("<QQ", bare, 64 + 56 + 0x20)
    assert (in_file, in_memory) == (4, 504)
    assert struct.unpack_from("<Q", bare, 0x28) == (0,)
    assert struct.unpack_from("<HH", bare, 0x3C) == (0, 0)
    # All else is as it was.
    assert bare[64 : 64 + 56 + 0x20] == whole[64 : 64 + 56 + 0x20]
    assert trimmed(bare) == bare


@pytest.mark.parametrize("damaged", [b"", b"MZ" + bytes(200), program(), program(b"x")[:0x60]])
def test_what_is_no_program_is_refused(damaged: bytes) -> None:
    with pytest.raises(LabError, match="no ELF program of 64 bits"):
        trimmed(damaged)
