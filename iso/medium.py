"""The ISO file: one image for sticks and virtual CDs, started by UEFI firmware alone."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

VOLUME = "PPN"
ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


def disk_guid(digest: str) -> str:
    """The GUID of the image's partition table: fixed by what is in it."""
    return uuid.UUID(hashlib.sha256(f"ppn disk {digest}".encode()).hexdigest()[:32]).hex


def command(
    *, folder: str, esp: str, output: str, paths: Sequence[str], digest: str, epoch: int
) -> list[str]:
    """The command that makes the ISO.

    Args:
        folder: what goes into its file system.
        esp: the FAT image.
        output: the file to make.
        paths: files of the folder, in the order in which they shall lie on the medium.
        digest: of the lock, in hex.
        epoch: the time of everything, in seconds since 1970.
    """
    # fmt: off
    words = [
        "xorriso", "-report_about", "WARNING", "-as", "mkisofs",
        "-o", output,
        "-V", VOLUME,
        "-R", "-iso-level", "3",
        "-uid", "0", "-gid", "0",
        "-dir-mode", "0555", "-file-mode", "0444",
        "--set_all_file_dates", f"={epoch}",
        "--gpt_disk_guid", disk_guid(digest),
        "-append_partition", "2", ESP_TYPE, esp,
        "-appended_part_as_gpt",
        "-e", "--interval:appended_partition_2:all::",
        "-no-emul-boot",
    ]
    # fmt: on
    # Without weights the order is that of the inode numbers, another one on every machine.
    for weight, path in enumerate(reversed(sorted(paths)), start=1):
        words += ["--sort-weight", str(weight), f"/{path}"]
    return [*words, folder]
