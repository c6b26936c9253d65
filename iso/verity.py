"""The hash tree over the image's root, and what the kernel's command line says of it."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass

from iso.errors import IsoError

ALGORITHM = "sha256"
BLOCK = 4096
ROOT_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Verity:
    """What is needed to verify a root.

    Args:
        root_hash: the hash tree's root, in hex.
        blocks: how many blocks of 4 KiB the root has.
        salt: goes into every hash, in hex.
    """

    root_hash: str
    blocks: int
    salt: str

    def words(self) -> tuple[str, str]:
        """The words of the kernel's command line that the initial RAM disk reads."""
        return f"ppn.roothash={self.root_hash}", f"ppn.verity={ALGORITHM}:{self.blocks}:{self.salt}"


def salt_of(lock_digest: str) -> str:
    """The salt of an image, in hex: fixed by its lock, so that anyone finds the same one."""
    return hashlib.sha256(f"ppn verity salt {lock_digest}".encode()).hexdigest()


def uuid_of(lock_digest: str) -> str:
    """The hash tree's UUID, fixed in the same way."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"ppn verity {lock_digest}"))


def format_command(data: str, tree: str, lock_digest: str) -> list[str]:
    """The command that makes the hash tree of a root.

    Args:
        data: the squashfs file.
        tree: the file to make.
        lock_digest: of the image's lock, in hex.
    """
    # fmt: off
    return [
        "veritysetup", "format", data, tree,
        "--hash", ALGORITHM,
        "--data-block-size", str(BLOCK),
        "--hash-block-size", str(BLOCK),
        "--salt", salt_of(lock_digest),
        "--uuid", uuid_of(lock_digest),
    ]
    # fmt: on


def verify_command(data: str, tree: str, root_hash: str) -> list[str]:
    """The command that ends well when a root and its hash tree have this root hash."""
    return ["veritysetup", "verify", data, tree, root_hash]


def made(said: str, size: int, lock_digest: str) -> Verity:
    """What `veritysetup format` made.

    Args:
        said: its output.
        size: of the squashfs file, in bytes.
        lock_digest: as it was given.

    Raises:
        IsoError: the output names no root hash, or the root does not end with a block.
    """
    found = re.search(r"^Root hash:\s+([0-9a-f]{64})$", said, re.MULTILINE)
    if found is None:
        raise IsoError(f"veritysetup named no root hash: {said.strip()[:200]}")
    if size % BLOCK:
        raise IsoError(f"the root has {size} bytes, which is no multiple of {BLOCK}")
    return Verity(found[1], size // BLOCK, salt_of(lock_digest))


def read(command_line: str) -> Verity | None:
    """What a kernel's command line says of the root; None when it does not say it in our way."""
    values = dict(word.split("=", 1) for word in command_line.split() if "=" in word)
    root_hash = values.get("ppn.roothash", "")
    algorithm, blocks, salt, *rest = [*values.get("ppn.verity", "").split(":"), "", ""][:4]
    right = algorithm == ALGORITHM and blocks.isdecimal() and not any(rest)
    if not (right and ROOT_HASH.fullmatch(root_hash) and ROOT_HASH.fullmatch(salt)):
        return None
    return Verity(root_hash, int(blocks), salt)
