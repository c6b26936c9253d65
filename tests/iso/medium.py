"""The image as a medium that somebody has tampered with, and disks that belong to somebody."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.medium import find_file

ROOT = "/ppn/root.squashfs"
ROOT_HASH = b"ppn.roothash="
MEBIBYTE = 2**20
# Where version 1.2 of Linux' software RAID keeps what it knows of an array (bytes).
RAID_OFFSET = 4096
RAID_MAGIC = 0xA92B4EFC
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


def sparse(path: Path, mib: int) -> Path:
    """A raw disk of zeros."""
    with path.open("wb") as file:
        file.truncate(mib * MEBIBYTE)
    return path


def with_file_system(path: Path, mib: int) -> Path:
    """A raw disk with somebody's file system."""
    sparse(path, mib)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "photos", path], check=True, timeout=60)
    return path


def raid_member(path: Path, mib: int) -> Path:
    """A raw disk that is one of a software RAID's, by the kernel's own format."""
    sparse(path, mib)
    sectors = mib * MEBIBYTE // 512
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
