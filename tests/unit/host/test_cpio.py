"""The archive writer: what goes in can be read back by another program's reader."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppn.host import cpio

names = st.text(alphabet="abcdefgh.-_", min_size=1, max_size=30).filter(lambda n: n.strip("."))


def test_busybox_unpacks_what_was_packed(tmp_path: Path) -> None:
    """Files, folders, links and modes survive the way through the archive."""
    packed = cpio.archive(
        [
            cpio.link("bin/sh", "busybox"),
            cpio.file("bin/busybox", b"\x7fELF" + bytes(1001), mode=0o755),
            cpio.folder("bin"),
            cpio.file("init", b"#!/bin/sh\n"),
        ]
    )
    subprocess.run(
        ["busybox", "cpio", "-i", "-d"],
        input=packed,
        cwd=tmp_path,
        check=True,
        timeout=20,
        capture_output=True,
    )
    assert (tmp_path / "bin/busybox").read_bytes() == b"\x7fELF" + bytes(1001)
    assert (tmp_path / "bin/busybox").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"


@given(st.dictionaries(names, st.binary(max_size=50), max_size=8))
def test_order_of_members_does_not_matter(files: dict[str, bytes]) -> None:
    """The same members give the same bytes, in whatever order they come."""
    members = [cpio.file(name, content) for name, content in files.items()]
    assert cpio.archive(members) == cpio.archive(members[::-1])


@given(st.dictionaries(names, st.binary(max_size=50), max_size=8))
def test_every_member_starts_on_a_boundary(files: dict[str, bytes]) -> None:
    """The kernel reads headers at multiples of four bytes only."""
    packed = cpio.archive(cpio.file(name, content) for name, content in files.items())
    assert len(packed) % 512 == 0
    place, count = 0, 0
    while True:
        header = packed[place : place + 110]
        assert header.startswith(cpio.MAGIC)
        size, name_size = int(header[54:62], 16), int(header[94:102], 16)
        name = packed[place + 110 : place + 110 + name_size - 1].decode()
        if name == cpio.TRAILER:
            break
        place = -(-(place + 110 + name_size) // 4) * 4
        assert packed[place : place + size] == files[name]
        place = -(-(place + size) // 4) * 4
        count += 1
    assert count == len(files)


def test_doubled_path_is_refused() -> None:
    """The kernel would silently let the later one win."""
    with pytest.raises(ValueError, match="init"):
        cpio.archive([cpio.file("init", b"a"), cpio.file("init", b"b")])
