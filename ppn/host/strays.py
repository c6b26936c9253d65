"""Files among the VMs' that no VM has: put there by hand, or left by a run that was killed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from ppn.host.model import Unmanaged
from ppn.host.paths import Paths
from ppn.host.spec import DISK_PATTERN

# What a VM's folder holds beside its disks; libvirt's log daemon keeps older parts of the console,
# and a move what is sent or comes.
OWN_FILE = re.compile(r"sidecar\.json|seed\.iso|serial\.log(\.[0-9]+)?|moving")
DISK_NAME = re.compile(DISK_PATTERN)
DISK_SUFFIXES = frozenset({".img", ".iso", ".qcow2", ".raw", ".vdi", ".vhdx", ".vmdk"})
# What is being written or removed is hidden meanwhile; after this nobody is at it any more.
LEFT_SECONDS = 3600.0


def strays(paths: Paths, vms: Iterable[str]) -> tuple[Unmanaged, ...]:
    """Files in the folder of VMs, and in the folder of each, that belong to none.

    Args:
        paths: the node's files.
        vms: the VMs whose folders are judged inside; another folder is a stray as a whole.
    """
    now = time.time()
    found = list(_strays(paths.vms, "", now))
    for name in vms:
        found += _strays(paths.vm(name).folder, f"{name}/", now)
    return tuple(sorted(found, key=lambda one: one.name))


def plain(name: str) -> str:
    """A file's name as text that can be sent: one that is no UTF-8 keeps its bytes as `\\xff`."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _strays(folder: Path, prefix: str, now: float) -> Iterator[Unmanaged]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return  # the VM went while it was looked at
    for entry in entries:
        name = prefix + plain(entry.name)
        if entry.name.startswith("."):
            if now - _modified(entry, now) > LEFT_SECONDS:
                yield Unmanaged(name=name, kind="leftover")
        elif (prefix and not _is_own(entry.name)) or (not prefix and not entry.is_dir()):
            yield Unmanaged(name=name, kind=_kind(entry))


def _is_own(name: str) -> bool:
    """Whether a file of that name is a VM's; a disk that was detached stays in its folder."""
    stem, dot, suffix = name.partition(".")
    is_disk = dot + suffix == ".qcow2" and DISK_NAME.fullmatch(stem) is not None
    return is_disk or OWN_FILE.fullmatch(name) is not None


def _kind(entry: os.DirEntry[str]) -> Literal["disk", "file"]:
    return "disk" if Path(entry.name).suffix.lower() in DISK_SUFFIXES else "file"


def _modified(entry: os.DirEntry[str], now: float) -> float:
    try:
        return entry.stat(follow_symlinks=False).st_mtime
    except OSError:
        return now  # gone meanwhile
