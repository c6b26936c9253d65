"""Puts an image onto a stick, and onto nothing that somebody might miss."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppn.errors import PpnError, Refusal
from ppn.installer.disks import Disk, disk_of, gib, list_devices

CHUNK = 4 * 1024**2
MIB = 1024**2
# Whole devices; a loop device stands in for one.
WHOLE = ("disk", "loop")

Far = Callable[[int], None]


@dataclass(frozen=True)
class Target:
    """A device that is asked for.

    Args:
        disk: what it is; a partition is told as one.
        kind: as lsblk calls it, such as `disk` or `part`.
    """

    disk: Disk
    kind: str

    @property
    def lines(self) -> list[str]:
        """The device as a person is to recognise it: itself, then what is on it."""
        disk = self.disk
        # A stick need have no partitions.
        on_it = [f"  {disk.name}: {disk.content}"] if disk.content else []
        on_it += [f"  {one.name}: {one.content or one.label or '-'}" for one in disk.partitions]
        used = [f"  in use: {user}" for user in disk.used_by]
        kind = "removable" if disk.removable else "fixed"
        return [f"{disk.title} ({disk.transport or self.kind}, {kind})", *on_it, *used]


def read_target(device: Path) -> Target:
    """What a device is.

    Raises:
        Refusal: there is no such block device.
        DisksUnreadable: lsblk is not understood.
    """
    real = device.resolve()
    try:
        is_block = stat.S_ISBLK(real.stat().st_mode)
    except OSError as error:
        raise _refusal(f"{device}: {error.strerror}", "device_unknown", LIST) from error
    if not is_block:
        raise _refusal(f"{device} is no block device", "device_unknown", LIST)
    found: list[dict[str, Any]] = list_devices(real)
    if len(found) != 1:
        raise _refusal(f"lsblk does not know {device}", "device_unknown", LIST)
    return Target(disk_of(found[0], str(real)), str(found[0].get("type")))


LIST = "`lsblk` lists the devices; name a whole one, such as /dev/sdb"


def judge(target: Target, size: int, *, fixed_disk: bool) -> None:
    """Refuse a device that must not be written to; pure.

    Args:
        target: the device.
        size: of the image, in bytes.
        fixed_disk: whether it may be one that is not removable.

    Raises:
        Refusal: with the reason.
    """
    disk = target.disk
    if target.kind not in WHOLE:
        raise _refusal(f"{disk.name} is a {target.kind}, no whole disk", "device_not_whole", LIST)
    if "/" in disk.used_by:
        raise _refusal(
            f"{disk.name} is the disk that this system runs from", "device_is_system", LIST
        )
    if disk.used_by:
        raise _refusal(
            f"{disk.name} is in use: {', '.join(disk.used_by)}",
            "device_in_use",
            "unmount it, if it is the one you mean",
        )
    if disk.read_only:
        raise _refusal(f"{disk.name} is read-only", "device_read_only", "move the stick's switch")
    if disk.size < size:
        raise Refusal(
            f"{disk.name} is too small for the image",
            code="device_too_small",
            constraint="size of the device",
            wanted=-(-size // MIB),
            free=disk.size // MIB,
            unit="MiB",
            hint="take a larger stick",
        )
    if not disk.removable and not fixed_disk:
        raise _refusal(
            f"{disk.title} is a fixed disk, no stick",
            "device_fixed",
            "if you do mean it, say so with --fixed-disk",
        )


def confirm(target: Target, said: str) -> None:
    """Refuse to go on unless the device's name was said.

    Raises:
        Refusal: another name was.
    """
    if said.strip().removeprefix("/dev/") != target.disk.name:
        raise _refusal(
            f"{said.strip()!r} is not {target.disk.name!r}: nothing was written",
            "not_confirmed",
            "say the name of the device whose content is to be lost",
        )


def check_unchanged(target: Target, device: Path) -> None:
    """Look at a device once more: while its name was asked for, another may have come to bear it.

    Args:
        target: what was shown.
        device: as it was named.

    Raises:
        Refusal: it is another one, or not as it was.
    """
    if read_target(device) != target:
        raise _refusal(
            f"{device} is not what it was when it was shown: nothing was written",
            "device_changed",
            "leave the devices alone, and begin again",
        )


def write(image: Path, device: Path, far: Far) -> str:
    """Write an image onto a device; it is on it for good when this returns.

    Args:
        image: the file.
        device: the device, which nobody else may have in use.
        far: told how many bytes are written.

    Returns:
        SHA-256 of what was written, in hex.

    Raises:
        Refusal: somebody uses the device.
        OSError: it fails.
    """
    digest, written = hashlib.sha256(), 0
    with image.open("rb") as source, _opened(device, os.O_WRONLY | os.O_EXCL) as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(target, view) :]
            written += len(chunk)
            far(written)
        os.fsync(target)
    return digest.hexdigest()


def read_back(device: Path, size: int, far: Far) -> str:
    """Read what a device holds, past every cache of this system.

    Args:
        device: the device.
        size: how many bytes of it.
        far: told how many bytes are read.

    Returns:
        Their SHA-256, in hex.

    Raises:
        OSError: it fails, or ends before.
    """
    digest, done = hashlib.sha256(), 0
    # Direct reading wants memory that begins where a page does.
    with mmap.mmap(-1, CHUNK) as page, _opened(device, os.O_RDONLY | os.O_DIRECT) as source:
        while done < size:
            length = os.preadv(source, [page], done)
            if length == 0:
                raise OSError(f"{device} ends after {done} bytes")
            digest.update(page[: min(length, size - done)])
            done += length
            far(min(done, size))
    return digest.hexdigest()


@contextmanager
def _opened(device: Path, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(device, flags | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # Not by this system's mount points: a file system of several disks, or another container.
        raise _refusal(
            f"{device} is in use, though lsblk does not say by whom: nothing was written",
            "device_in_use",
            "find out what uses it, before you think of it as the one you mean",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def compare(written: str, found: str, device: Path) -> None:
    """Refuse a device that does not hold what was written.

    Raises:
        PpnError: it holds something else.
    """
    if written != found:
        raise PpnError(
            f"{device} does not hold what was written to it",
            code="device_lies",
            hint="throw it away: a stick that forgets once forgets again",
        )


def percent(done: int, size: int) -> str:
    """How much of an image is done, for people."""
    return f"{100 * done // max(1, size)} % of {gib(size)}"


def _refusal(what: str, code: str, hint: str) -> Refusal:
    return Refusal(what, code=code, constraint="device to write to", hint=hint)
