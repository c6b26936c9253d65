"""Reads what is needed of a boot file: a PE program with the kernel's parts as sections."""

from __future__ import annotations

import struct

HEADER = 24
CHECKSUM = 64
SECTION = struct.Struct("<8sIIII16x")


def without_checksum(program: bytes) -> bytes:
    """A program with its check sum at zero, as it is before anyone signs it.

    Raises:
        ValueError: it is no PE program.
    """
    place = _header(program) + HEADER + CHECKSUM
    return program[:place] + bytes(4) + program[place + 4 :]


def section(program: bytes, name: str) -> bytes:
    """The content of a section, such as `.cmdline`.

    Raises:
        ValueError: it is no PE program, or has no such section.
    """
    start = _header(program)
    count, options = struct.unpack_from("<6xH12xH", program, start)
    table = start + HEADER + options
    try:
        for number in range(count):
            entry = SECTION.unpack_from(program, table + number * SECTION.size)
            title, size, _, stored, place = entry
            if title.rstrip(b"\0") == name.encode():
                return program[place : place + min(size, stored)]
    except struct.error as error:
        raise ValueError("it is cut short") from error
    raise ValueError(f"it has no section {name}")


def _header(program: bytes) -> int:
    try:
        (start,) = struct.unpack_from("<I", program, 60)
        if program[:2] == b"MZ" and program[start : start + 4] == b"PE\0\0":
            return int(start)
    except struct.error:
        pass
    raise ValueError("it is no PE program")
