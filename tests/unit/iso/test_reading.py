"""Images made to harm whoever reads them, before anything of them is verified."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from iso.errors import IsoError
from iso.reading import BLOCK, SECTOR, take_apart
from ppn.iso9660 import volume

FILES = {name: b"content of " + name.encode() for name in ("one", "other")}


@pytest.fixture
def image() -> bytearray:
    """A small volume behind a partition table; nothing on it could be started."""
    content = bytearray(volume("PPN", FILES))
    content[SECTOR : SECTOR + 8] = b"EFI PART"
    struct.pack_into("<Q", content, SECTOR + 32, len(content) // SECTOR - 1)
    return content


def refused(image: bytearray, folder: Path) -> str:
    """Why an image is refused."""
    folder.mkdir()
    (folder / "image").write_bytes(image)
    with pytest.raises(IsoError) as error:
        take_apart(folder / "image", folder)
    assert error.value.code == "iso_unreadable"
    return error.value.message


def records(image: bytearray) -> list[int]:
    """Where the records of the root folder's files begin."""
    (extent,) = struct.unpack_from("<I", image, 16 * BLOCK + 156 + 2)
    place, found = extent * BLOCK, []
    while image[place]:
        found.append(place)
        place += image[place]
    return found[2:]


def test_nothing_to_start_is_told(image: bytearray, tmp_path: Path) -> None:
    assert "firmware finds nothing" in refused(image, tmp_path / "x")
    files = {path.name: path.read_bytes() for path in (tmp_path / "x/files").iterdir()}
    assert files == FILES


@pytest.mark.fault("an image has many names for one place on it", "refused, the disk is not filled")
def test_files_larger_than_the_image_do_not_fill_the_disk(image: bytearray, tmp_path: Path) -> None:
    """ISO-01: they are copied out before any signature is looked at."""
    for place in records(image):
        for offset, value in ((2, 0), (10, len(image) - BLOCK)):
            struct.pack_into("<I", image, place + offset, value)
            struct.pack_into(">I", image, place + offset + 4, value)
    assert "larger than the whole" in refused(image, tmp_path / "x")
    copied = [path for path in (tmp_path / "x/files").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in copied) < len(image)


def test_any_wrong_byte_of_a_folder_is_told_and_no_traceback(
    image: bytearray, tmp_path: Path
) -> None:
    """ISO-01."""
    for number in range(records(image)[0], records(image)[-1]):
        for value in {0, 255} - {image[number]}:
            wrong = bytearray(image)
            wrong[number] = value
            refused(wrong, tmp_path / f"{number}-{value}")
