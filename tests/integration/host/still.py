"""A guest image that runs at once and does nothing: for tests that look at a VM from outside alone.

Its kernel is no Linux. It writes one byte to the serial port and halts for good, a fraction of what
the tiny guest's boot costs an emulated processor. Nobody in it gives memory back, lets go of a
disk, answers at a port or hears the power button: a stop of such a VM waits for its whole grace.
"""

from __future__ import annotations

import json
import struct
from hashlib import sha256
from pathlib import Path

NAME = "still"
# Free memory, above what the firmware uses.
ADDRESS = 0x100000
# 32-bit code, started with flat segments and without interrupts.
CODE = bytes.fromhex(
    "66baf803"  # mov dx, 0x3f8: the first serial port
    "b02e"  # mov al, '.'
    "ee"  # out dx, al: the first output, by which the agent sees that guest code runs
    "fa"  # cli
    "f4"  # hlt
    "ebfc"  # jmp to the cli, for something may wake it all the same
)
# The fields' values in the ELF format, and the note of Xen's that names the entry point.
BITS_32, LITTLE_ENDIAN, VERSION, EXECUTABLE, INTEL_386 = 1, 1, 1, 2, 3
LOADED, NOTE, READABLE, RUNNABLE = 1, 4, 4, 5
XEN_ELFNOTE_PHYS32_ENTRY = 18
HEADER_BYTES, SEGMENT_BYTES = 52, 32


def build(folder: Path) -> None:
    """Make the image's folder, as a node has its images.

    Args:
        folder: to make, named like the image.
    """
    folder.mkdir()
    content = kernel()
    (folder / "kernel").write_bytes(content)
    digests = {"kernel": sha256(content).hexdigest()}
    described = {"name": NAME, "kernel": "kernel", "sha256": digests}
    (folder / "manifest.json").write_text(json.dumps(described))


def kernel() -> bytes:
    """The kernel: a 32-bit ELF program that QEMU starts directly (PVH)."""
    owner = b"Xen\0"
    sizes = (len(owner), struct.calcsize("<I"), XEN_ELFNOTE_PHYS32_ENTRY)
    note = struct.pack("<3I4sI", *sizes, owner, ADDRESS)
    at_note = HEADER_BYTES + 2 * SEGMENT_BYTES
    segments = _segment(NOTE, at_note, note, READABLE)
    segments += _segment(LOADED, at_note + len(note), CODE, RUNNABLE)
    return _header() + segments + note + CODE


def _header() -> bytes:
    """An ELF header before two segments, without sections."""
    kind = struct.pack("<4s3B9x", b"\x7fELF", BITS_32, LITTLE_ENDIAN, VERSION)
    program = struct.pack("<2H2I", EXECUTABLE, INTEL_386, VERSION, ADDRESS)
    places = struct.pack("<3I", HEADER_BYTES, 0, 0)
    return kind + program + places + struct.pack("<6H", HEADER_BYTES, SEGMENT_BYTES, 2, 0, 0, 0)


def _segment(kind: int, offset: int, content: bytes, rights: int) -> bytes:
    size = len(content)
    return struct.pack("<8I", kind, offset, ADDRESS, ADDRESS, size, size, rights, 4)
