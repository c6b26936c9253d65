"""The machine's disks as they are: what the kernel, udev, libblkid and a look at them tell."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from ppn.errors import PpnError
from ppn.installer import mark
from ppn.installer.mark import Mark
from ppn.run import run

SECONDS = 60.0
MIB = 1024**2
# Most disks' first partition begins at 1 MiB, and what it holds is told at its head.
HEAD, TAIL = 4 * MIB, MIB
# Between these: this many places, one block each.
PLACES, BLOCK = 128, 4096
GIB = 1024**3
COLUMNS = (
    "NAME,PATH,TYPE,SIZE,RO,RM,MODEL,SERIAL,TRAN,FSTYPE,LABEL,PTTYPE,PARTUUID,PARTLABEL,MOUNTPOINTS"
)
# Memory, loops and the like are no disks of a machine, whatever type they claim to have.
NOT_DISKS = ("loop", "ram", "zram", "nbd", "sr", "fd", "dm-", "md")


class DisksUnreadable(PpnError):
    """What lsblk or blkid said cannot be understood."""

    code = "disks_unreadable"


@dataclass(frozen=True)
class Partition:
    """A partition: its UUID as the table has it (empty when it has none), label and content."""

    name: str
    uuid: str
    label: str
    content: str


@dataclass(frozen=True)
class Disk:
    """A whole disk.

    Args:
        name: the kernel's name for it, such as `sda`.
        path: a stable name of its device, or the kernel's when there is none.
        size: in bytes.
        model: as it tells; may be empty.
        serial: as it tells; may be empty.
        transport: how it is attached, such as `sata`; may be empty.
        removable: whether it, or its medium, is made to be taken out.
        read_only: whether the kernel refuses to write to it.
        table: kind of its partition table; empty without one.
        content: kind of file system, RAID, LVM or encryption on the whole disk; empty without.
        partitions: what the kernel found in its table.
        used_by: mount points, and devices that are built on it.
        blank: whether all that was read of it is zeros: its head, its tail, and places between.
        mark: what an installer of ours left on it.
        fault: why it could not be looked at; empty when it could.
    """

    name: str
    path: str
    size: int
    model: str = ""
    serial: str = ""
    transport: str = ""
    removable: bool = False
    read_only: bool = False
    table: str = ""
    content: str = ""
    partitions: tuple[Partition, ...] = ()
    used_by: tuple[str, ...] = ()
    blank: bool = False
    mark: Mark | None = None
    fault: str = ""

    @property
    def title(self) -> str:
        """The disk in a line of the console."""
        words = [self.name, gib(self.size), self.model, self.serial and f"serial {self.serial}"]
        return " ".join(word for word in words if word)


def gib(size: int) -> str:
    """A size in bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"


def read_disks(dev: Path = Path("/dev")) -> tuple[Disk, ...]:
    """All disks of this machine, sorted by name.

    Args:
        dev: the folder of devices.

    Raises:
        DisksUnreadable: lsblk's list is not as it should be.
        CommandFailed: lsblk failed or did not end.
    """
    listed = list_devices()
    found = (looked_at(device, dev) for device in listed if is_disk(device))
    return tuple(sorted(found, key=lambda disk: disk.name))


def list_devices(*devices: Path) -> list[dict[str, Any]]:
    """What lsblk tells of block devices, as a tree; of all when none is named.

    Raises:
        DisksUnreadable: it is not understood.
        CommandFailed: lsblk failed.
    """
    # fmt: off
    said = run(
        ["lsblk", "--json", "--bytes", "--tree", "--output", COLUMNS, *devices], timeout=SECONDS
    ).stdout
    # fmt: on
    try:
        found = json.loads(said)["blockdevices"]
    except (ValueError, KeyError, TypeError) as error:
        raise DisksUnreadable(f"lsblk's list is damaged: {error!r}") from error
    return [device for device in found if isinstance(device, dict)]


def is_disk(device: Mapping[str, Any]) -> bool:
    """Whether an entry of lsblk's is a disk that a system could be installed on."""
    return device.get("type") == "disk" and not str(device.get("name")).startswith(NOT_DISKS)


def looked_at(device: Mapping[str, Any], dev: Path = Path("/dev")) -> Disk:
    """A disk from lsblk's entry and a look at the disk itself.

    Args:
        device: lsblk's entry.
        dev: the folder of devices.

    Raises:
        DisksUnreadable: the entry is not as it should be.
    """
    disk = disk_of(device, stable_path(dev, str(device.get("path"))))
    if disk.size == 0:
        return disk
    path = Path(str(device["path"]))
    try:
        table, content = probe(path)
        blank, found = look(path, disk.size)
    except (PpnError, OSError) as error:
        # A broken disk beside the one that is meant shall not stop everything.
        return replace(disk, fault=str(error))
    return replace(
        disk,
        table=table or disk.table,
        content=content or disk.content,
        blank=blank,
        mark=found,
    )


def disk_of(device: Mapping[str, Any], path: str) -> Disk:
    """A disk as lsblk alone tells it.

    Raises:
        DisksUnreadable: a field is missing or not of its kind.
    """
    try:
        children = tuple(device.get("children") or ())
        transport = _text(device, "tran")
        partitions = tuple(
            Partition(one["name"], _text(one, "partuuid"), _text(one, "partlabel"), _holds(one))
            for one in children
            if one["type"] == "part"
        )
        return Disk(
            name=device["name"],
            path=path,
            size=int(device["size"]),
            model=_text(device, "model"),
            serial=_text(device, "serial"),
            transport=transport,
            # A USB drive may call itself fixed, and is still somebody's to carry away.
            removable=bool(device["rm"]) or transport == "usb",
            read_only=bool(device["ro"]),
            table=_text(device, "pttype"),
            content=_holds(device),
            partitions=partitions,
            used_by=tuple(sorted(set(users(device)))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DisksUnreadable(f"lsblk's entry is damaged: {error!r}") from error


def users(device: Mapping[str, Any]) -> Iterator[str]:
    """Where a device and what is built on it are mounted, and what is built on it."""
    yield from (str(point) for point in device.get("mountpoints") or () if point)
    for child in device.get("children") or ():
        if child["type"] != "part":
            yield f"{child['type']} {child['name']}"
        yield from users(child)


def probe(device: Path) -> tuple[str, str]:
    """What libblkid finds on a whole device: (kind of partition table, kind of content).

    A device on which it finds several things at once has the content `several things`.

    Raises:
        CommandFailed: it could not look.
    """
    said = run(
        ["blkid", "--probe", "--output", "export", device], timeout=SECONDS, accept=(0, 2, 8)
    )
    if said.returncode == 8:
        return "", "several things"
    fields = dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)
    # What protects a GPT from old programs, and the GPT is gone: no table that anything is in.
    table = fields.get("PTTYPE", "")
    return ("" if table == "PMBR" else table), fields.get("TYPE", "")


def look(device: Path, size: int) -> tuple[bool, Mark | None]:
    """Whether zeros alone are found on a device, and the mark that is on it.

    Args:
        device: its path.
        size: in bytes.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first = _read(descriptor, 0, min(HEAD, size))
        blank = all(
            block == bytes(len(block))
            for block in (first, *(_read(descriptor, at, length) for at, length in places(size)))
        )
    finally:
        os.close(descriptor)
    return blank, mark.decode(first[mark.OFFSET : mark.OFFSET + mark.SIZE])


def places(size: int) -> Iterator[tuple[int, int]]:
    """Where an empty disk is looked at behind its head: offset and length, both in bytes.

    A table that was wiped leaves its partitions where they are, with zeros at both ends of the disk
    as if it were new. A few reads all over it find those that hold anything to speak of.

    Args:
        size: of the disk, in bytes.
    """
    yield max(0, size - TAIL), min(TAIL, size)
    apart = (size - TAIL - HEAD) // PLACES
    if apart >= BLOCK:
        yield from ((HEAD + number * apart // BLOCK * BLOCK, BLOCK) for number in range(PLACES))


def _read(descriptor: int, offset: int, length: int) -> bytes:
    content = os.pread(descriptor, length, offset)
    # What a bad sector cuts short tells nothing of the rest.
    if len(content) != length:
        raise OSError(f"only {len(content)} of {length} bytes at {offset} can be read")
    return content


def stable_path(dev: Path, device: str) -> str:
    """The best name of a device that stays the same when others come and go.

    Args:
        dev: the folder of devices.
        device: its path as the kernel names it.

    Returns:
        A link that udev keeps, by the disk's own identity or by where it is plugged in.
    """
    real = os.path.realpath(device)
    for kind in ("by-id", "by-path"):
        for link in _links(dev / "disk" / kind):
            if os.path.realpath(link) == real:
                return str(link)
    return device


def _links(folder: Path) -> Iterable[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _text(device: Mapping[str, Any], key: str) -> str:
    value = device.get(key)
    # It goes to the console: a disk that calls itself an escape sequence shall not write there.
    return "".join(c for c in str(value).strip() if c.isprintable()) if value else ""


def _holds(device: Mapping[str, Any]) -> str:
    kind, label = _text(device, "fstype"), _text(device, "label")
    return f"{kind} {label!r}" if kind and label else kind


def uuids(disk: Disk) -> frozenset[UUID] | None:
    """UUIDs of a disk's partitions; `None` when any has none that is sound."""
    try:
        return frozenset(UUID(one.uuid) for one in disk.partitions)
    except ValueError:
        return None
