"""The image as a medium that somebody has tampered with."""

from __future__ import annotations

import mmap
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.medium import find_file

ROOT = "/ppn/root.squashfs"
ROOT_HASH = b"ppn.roothash="
# Offset of a PE file's table of certificates in its optional header (64 bit).
CERTIFICATES = 144
SECTION_BYTES = 40


def copy(image: Path, target: Path) -> Path:
    """A copy of an image, to be tampered with."""
    return Path(shutil.copy(image, target))


@contextmanager
def opened(image: Path) -> Iterator[mmap.mmap]:
    """An image's bytes, to be changed in place."""
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        yield content


def flip_bit(image: Path, offset: int) -> None:
    """Change one bit."""
    with opened(image) as content:
        content[offset] ^= 1


def flip_in_root(image: Path) -> None:
    """Change one bit in the middle of the root file system."""
    start, length = find_file(image, ROOT)
    flip_bit(image, start + length // 2)


def root_hash_at(image: Path) -> int:
    """Where the boot file's command line names the root hash."""
    with opened(image) as content:
        found = content.find(ROOT_HASH)
        assert found >= 0, "no root hash on the image"
        assert content.find(ROOT_HASH, found + 1) < 0, "more than one root hash"
        return found + len(ROOT_HASH)


def remove_signature(image: Path) -> None:
    """Take the signature off the boot file: nothing but the reference to it is changed."""
    inside = root_hash_at(image)
    with opened(image) as content:
        entry = certificates_at(content, inside)
        assert content[entry : entry + 8] != bytes(8), "the boot file is not signed"
        content[entry : entry + 8] = bytes(8)


def certificates_at(content: mmap.mmap, inside: int) -> int:
    """Where the PE file around an offset says where its signature is."""
    start = inside
    while (start := content.rfind(b"MZ", 0, start)) >= 0:
        header = start + int(struct.unpack_from("<I", content, start + 0x3C)[0])
        if content[header : header + 4] == b"PE\0\0" and is_boot_file(content, header):
            return header + 24 + CERTIFICATES
    raise AssertionError("no boot file around the root hash")


def is_boot_file(content: mmap.mmap, header: int) -> bool:
    """Whether a PE file has the sections of a unified kernel image."""
    count, optional = struct.unpack_from("<H12xH", content, header + 6)
    sections = header + 24 + optional
    names = (content[sections + n * SECTION_BYTES :][:8] for n in range(count))
    return b".cmdline" in names
