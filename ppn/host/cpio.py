"""Writes initial RAM disks: the kernel's newc archive, byte for byte the same on every run."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Member:
    """One file, folder, link or device of an archive.

    Args:
        path: place inside the archive, without a leading slash.
        mode: file type and permission bits, as in `st_mode`.
        content: the file's bytes, or a symbolic link's target.
        device: major and minor number of a device node.
    """

    path: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, content: bytes, *, mode: int = 0o644) -> Member:
    """A regular file."""
    return Member(path, stat.S_IFREG | mode, content)


def folder(path: str) -> Member:
    """A folder everyone may enter."""
    return Member(path, stat.S_IFDIR | 0o755)


def link(path: str, target: str) -> Member:
    """A symbolic link."""
    return Member(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Member:
    """A character device only root may use."""
    return Member(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(members: Iterable[Member]) -> bytes:
    """Pack members into one newc archive, sorted by path, with no time and no owner but root.

    Args:
        members: what goes in; folders must be named too, parents before children by sorting.

    Returns:
        The archive, ready to be handed to a kernel as its initrd.

    Raises:
        ValueError: two members have the same path.
    """
    ordered = sorted(members, key=lambda member: member.path)
    paths = [member.path for member in ordered]
    doubled = {path for path in paths if paths.count(path) > 1}
    if doubled:
        raise ValueError(f"the archive would hold {', '.join(sorted(doubled))} twice")
    packed = b"".join(pack(number, member) for number, member in enumerate(ordered, start=1))
    return padded(packed + pack(0, Member(TRAILER, 0)), 512)


def pack(inode: int, member: Member) -> bytes:
    """One member with its header, each part padded to four bytes as the format asks."""
    name = member.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (inode, member.mode, 0, 0, links, 0, len(member.content))
    numbers = (*fields, 0, 0, *member.device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % number for number in numbers)
    return padded(header + name, 4) + padded(member.content, 4)


def padded(data: bytes, unit: int) -> bytes:
    """The data, filled with zeros up to a multiple of `unit` bytes."""
    return data + b"\0" * (-len(data) % unit)
