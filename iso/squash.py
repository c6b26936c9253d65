"""The image's root as one read-only file: squashfs, the same bytes for the same tree."""

from __future__ import annotations

from pathlib import Path

from iso.enter import run_in
from ppn.durable import put_in_place

# Of a 383 MiB root, in seconds of one processor: 3 takes 2 s and leaves 133 MiB, 9 takes 6 s and
# leaves 126 MiB, 15 takes 31 s for the same, 19 takes 105 s and leaves 117 MiB.
LEVEL = 9
# Blocks of 1 MiB save 3 % of the image, and whoever reads files unpacks more than twice as long.
BLOCK = 128 << 10
SECONDS = 1800


def command(source: str, target: str, epoch: int) -> list[str]:
    """The command that packs a tree.

    Args:
        source: the tree's folder.
        target: the file to make.
        epoch: the time of every file of it, in seconds since 1970.
    """
    # fmt: off
    return [
        "mksquashfs", source, target,
        "-noappend", "-no-progress", "-quiet",
        "-exit-on-error",
        "-comp", "zstd",
        "-Xcompression-level", str(LEVEL),
        "-b", str(BLOCK),
        # When a file came into the tree says only when that was built.
        "-mkfs-time", str(epoch),
        "-all-time", str(epoch),
        # What the building machine's file system may have added is not the tree's.
        "-xattrs-include", r"^security\.capability$",
        "-root-mode", "755",
        "-root-uid", "0",
        "-root-gid", "0",
    ]
    # fmt: on


def pack(root: Path, target: Path, *, tools: Path, epoch: int) -> None:
    """Pack a tree.

    Args:
        root: the tree.
        target: the file to make; it appears when it is whole.
        tools: the tools tree.
        epoch: the time of every file of it, in seconds since 1970.

    Raises:
        CommandFailed: it could not be packed.
        OSError: no room, or no right.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    binds = {root: "/mnt/root", target.parent: "/mnt/target"}
    argv = command("/mnt/root", f"/mnt/target/{partial.name}", epoch)
    run_in(tools, argv, timeout=SECONDS, binds=binds)
    put_in_place(partial, target)
