"""What is inside a kernel's boot image."""

from __future__ import annotations

import struct

import pytest

from lab.errors import LabError
from lab.kernel import ZSTANDARD, payload

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
