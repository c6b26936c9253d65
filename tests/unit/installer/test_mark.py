"""The mark: what was written is read back, and nothing else is taken for one."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ppn.installer import mark as marks
from ppn.installer.disks import MIB, look
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


def test_blank_is_zeros_at_both_ends(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for position, blank in ((None, True), (0, False), (MIB - 1, False), (4 * MIB - 1, False)):
        content = bytearray(4 * MIB)
        if position is not None:
            content[position] = 1
        disk.write_bytes(content)
        assert look(disk, 4 * MIB) == (blank, None)
