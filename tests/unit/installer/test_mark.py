"""The mark: what was written is read back, and nothing else is taken for one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.installer import mark as marks
from ppn.installer.disks import GIB, HEAD, MIB, look
from ppn.installer.mark import OFFSET, SIZE, Mark, State, decode, encode
from tests.unit.installer.samples import IMAGE, SETTINGS, mark

MARKS = st.builds(
    Mark,
    state=st.sampled_from(State),
    node=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True),
    image=st.just(IMAGE),
    settings=st.just(SETTINGS),
    seed=st.uuids(),
)


@given(MARKS)
def test_what_was_written_is_read(made: Mark) -> None:
    assert decode(encode(made)) == made
    assert len(encode(made)) == SIZE


@given(MARKS, st.integers(0, 250), st.integers(0, 7))
def test_a_flipped_bit_is_no_mark(made: Mark, position: int, bit: int) -> None:
    content = bytearray(encode(made))
    content[position] ^= 1 << bit
    assert decode(bytes(content)) is None


def test_a_mark_comes_after_all_that_was_written_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO-04: a disk may keep writes in another order, but none over a flush of its cache."""
    done: list[str] = []
    write, flush = os.pwrite, os.fsync

    def pwrite(descriptor: int, content: bytes, offset: int) -> int:
        done.append("write")
        return write(descriptor, content, offset)

    def fsync(descriptor: int) -> None:
        done.append("flush")
        flush(descriptor)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(os, "fsync", fsync)
    marks.write(sparse(tmp_path / "disk", MIB), mark())
    assert done == ["flush", "write", "flush"]


def test_half_a_mark_is_none() -> None:
    assert decode(encode(mark())[:512].ljust(SIZE, b"\0")) is not None  # one sector holds it all
    assert decode(encode(mark())[:100].ljust(SIZE, b"\0")) is None
    assert decode(b"") is None


def test_a_mark_lies_between_table_and_first_partition(tmp_path: Path) -> None:
    """ISO-04: beyond the entries of a table with sectors of 4 KiB, before the first MiB ends."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"\1" * (2 * MIB))
    marks.write(disk, mark())
    content = disk.read_bytes()
    assert content[:OFFSET] + content[OFFSET + SIZE :] == b"\1" * (2 * MIB - SIZE)
    assert OFFSET >= 4096 * 6
    assert OFFSET + SIZE <= MIB
    assert look(disk, 2 * MIB) == (False, mark())


@pytest.mark.parametrize("size", [4 * MIB, 5 * MIB, GIB])
def test_blank_is_zeros_at_both_ends(tmp_path: Path, size: int) -> None:
    disk = tmp_path / "disk"
    for position in (None, 0, MIB - 1, size - 1):
        assert look(sparse(disk, size, position), size) == (position is None, None)


def test_a_disk_whose_table_was_zeroed_is_not_blank(tmp_path: Path) -> None:
    """ISO-04: the superblock of the partition that began at 1 MiB is there, at both ends zeros."""
    assert look(sparse(tmp_path / "disk", GIB, MIB + 1024), GIB) == (False, None)


@pytest.mark.exhaustive
def test_data_in_the_middle_is_found(tmp_path: Path) -> None:
    """ISO-04: a disk of which one part in fifty is used is not empty, wherever that part is."""
    disk = tmp_path / "disk"
    size = GIB // 4
    used = size // 50
    for start in range(HEAD, size - used, used // 2):
        sparse(disk, size)
        with disk.open("r+b") as opened:
            opened.seek(start)
            opened.write(b"\1" * used)
        assert look(disk, size) == (False, None)


def test_a_disk_that_ends_before_its_size_cannot_be_read(tmp_path: Path) -> None:
    """What was not read is not zeros."""
    with pytest.raises(OSError, match="can be read"):
        look(sparse(tmp_path / "disk", 3 * MIB), GIB)
    with pytest.raises(OSError, match="can be read"):
        look(sparse(tmp_path / "disk", GIB - 1), GIB)


def sparse(path: Path, size: int, position: int | None = None) -> Path:
    """A disk of zeros, with one byte that is not."""
    with path.open("wb") as opened:
        opened.truncate(size)
        if position is not None:
            opened.seek(position)
            opened.write(b"x")
    return path
