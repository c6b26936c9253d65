"""The mark on a disk that says: a pool's installer was here, and how far it came.

It lies outside all partitions, between the partition table's entries and the first partition. It is
written and flushed before anything else of the disk is changed, and says `complete` only after all
else is on the disk. So a disk without a mark was never touched by us, and one that says
`unfinished` holds nothing that anybody could miss: it was empty, or a pool node's, before.

A mark alone does not make a disk ours. Another system that is installed later need not overwrite
it, so it names the partitions that we made, and a disk with any other is foreign (`policy`).
"""

from __future__ import annotations

import hashlib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from uuid import UUID, uuid5

from pydantic import Field, ValidationError

from ppn.wire.model import Wire

# Half way between the start of the disk and its first partition; the table's entries end before
# 32 KiB, whatever the size of a sector.
OFFSET = 512 * 1024
SIZE = 4096
MAGIC = b"PPN-NODE-MARK-1\n"
DIGEST_BYTES = 32
PARTITIONS = ("ppn-esp", "ppn-root", "ppn-data")

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class State(StrEnum):
    """How far the installation came."""

    UNFINISHED = "unfinished"
    COMPLETE = "complete"


class Mark(Wire):
    """What a mark tells.

    Args:
        state: how far the installation came.
        node: which node it is.
        image: root hash of the image that installed it.
        settings: digest of the settings it was made from.
        seed: what its partitions' UUIDs follow from; made when we first take a disk, and kept by
            every later installation, so that whatever was interrupted leaves no others behind.
    """

    state: State
    node: str = Field(max_length=63)
    image: Hash
    settings: Hash
    seed: UUID

    def partition(self, label: str) -> UUID:
        """The UUID of one of its partitions, by label."""
        return partition_uuid(self.seed, label)

    @property
    def partitions(self) -> frozenset[UUID]:
        """UUIDs of all partitions that an installer of ours makes on this disk."""
        return frozenset(self.partition(label) for label in PARTITIONS)


def partition_uuid(seed: UUID, label: str) -> UUID:
    """The UUID of a partition, from the seed of its installation and its label."""
    return uuid5(seed, label)


def encode(mark: Mark) -> bytes:
    """A mark as the bytes on the disk: magic, digest, text, and zeros to the end.

    Raises:
        ValueError: the mark has more text than room.
    """
    text = mark.model_dump_json().encode()
    length = len(MAGIC) + DIGEST_BYTES + len(text)
    if length > SIZE:
        raise ValueError(f"a mark of {length} bytes does not fit into {SIZE}")
    digest = hashlib.sha256(text).digest()
    return (MAGIC + digest + text).ljust(SIZE, b"\0")


def decode(content: bytes) -> Mark | None:
    """The mark in a disk's bytes; `None` when there is none, or a part of one only."""
    if not content.startswith(MAGIC) or len(content) != SIZE:
        return None
    digest = content[len(MAGIC) : len(MAGIC) + DIGEST_BYTES]
    text = content[len(MAGIC) + DIGEST_BYTES :].rstrip(b"\0")
    if hashlib.sha256(text).digest() != digest:
        return None
    try:
        return Mark.model_validate_json(text)
    except ValidationError:
        return None


def write(disk: Path, mark: Mark) -> None:
    """Put a mark on a disk; it is there for good when this returns.

    Args:
        disk: the device, or a file in its place.
        mark: what to say.

    Raises:
        OSError: the disk cannot be written.
    """
    content = encode(mark)
    descriptor = os.open(disk, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # What was written before it is on the disk before it, whatever the disk's own cache does.
        os.fsync(descriptor)
        written = os.pwrite(descriptor, content, OFFSET)
        if written != len(content):
            raise OSError(f"{disk} took {written} of {len(content)} bytes")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
