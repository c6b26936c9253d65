"""Takes an ISO file apart without mounting it: its files, its boot file system, its true size."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from pycdlib import PyCdlib
from pycdlib.pycdlibexception import PyCdlibException

from iso.errors import IsoError

BLOCK = 2048
SECTOR = 512
# xorriso's own file, which El Torito needs; firmware reads it, nothing of ours does.
CATALOG = "boot.catalog"


@dataclass(frozen=True)
class Opened:
    """An ISO, taken apart.

    Args:
        files: its files by path, copied out.
        esp: its boot file system, copied out.
    """

    files: dict[str, Path]
    esp: Path


def take_apart(image: Path, folder: Path) -> Opened:
    """Copy an ISO's parts out.

    Args:
        image: the ISO.
        folder: where to.

    Raises:
        IsoError: `iso_unreadable`, `iso_truncated`, `iso_trailing_data`.
    """
    need_whole(image)
    iso = PyCdlib()
    try:
        iso.open(str(image))
        try:
            files = copy_files(iso, folder / "files", image.stat().st_size)
            return Opened(files, copy_esp(iso, image, folder / "esp"))
        finally:
            iso.close()
    except (PyCdlibException, struct.error, AttributeError, LookupError, ValueError) as error:
        # The last three are what the library stumbles with over damaged records.
        raise unreadable(image, str(error)) from error


def unreadable(image: Path, why: str) -> IsoError:
    """The error for what is no image of ours."""
    return IsoError(
        f"{image} cannot be read as an image: {why}",
        code="iso_unreadable",
        hint="download it again, or name the right file",
    )


def need_whole(image: Path) -> None:
    """Refuse a file that is shorter or longer than its own partition table says.

    Raises:
        IsoError: `iso_unreadable`, `iso_truncated`, `iso_trailing_data`.
    """
    with image.open("rb") as file:
        header = file.read(2 * SECTOR)[SECTOR:]
    if header[:8] != b"EFI PART" or len(header) < SECTOR:
        raise unreadable(image, "it has no GPT")
    (last,) = struct.unpack_from("<Q", header, 32)
    size, wanted = image.stat().st_size, (last + 1) * SECTOR
    if size != wanted:
        raise IsoError(
            f"{image} has {size} bytes and should have {wanted}",
            code="iso_truncated" if size < wanted else "iso_trailing_data",
            hint="download or copy it again",
        )


def copy_files(iso: PyCdlib, folder: Path, room: int) -> dict[str, Path]:
    """Copy every file of an ISO's file system out.

    Args:
        iso: the ISO.
        folder: where to.
        room: its own size in bytes: many names for one place would fill the disk.

    Raises:
        ValueError: it has more than that, or a file that would lie outside the folder.
    """
    found = {}
    for parent, _, names in iso.walk(rr_path="/"):
        for name in names:
            path = f"{parent.strip('/')}/{name}".lstrip("/")
            target = folder / path
            if path == CATALOG:
                continue
            if not target.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"it has a file called {path}")
            room -= iso.get_record(rr_path=f"/{path}").get_data_length()
            if room < 0:
                raise ValueError("its files are larger than the whole of it")
            target.parent.mkdir(parents=True, exist_ok=True)
            iso.get_file_from_iso(str(target), rr_path=f"/{path}")
            found[path] = target
    return found


def copy_esp(iso: PyCdlib, image: Path, target: Path) -> Path:
    """Copy the boot file system out."""
    catalog = iso.eltorito_boot_catalog
    if catalog is None:
        raise ValueError("firmware finds nothing to start on it")
    entry = catalog.initial_entry
    with image.open("rb") as file:
        file.seek(entry.load_rba * BLOCK)
        target.write_bytes(file.read(entry.sector_count * SECTOR))
    return target
