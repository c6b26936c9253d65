"""Machines with firmware: what it remembers, and which drives it tries in which order."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from lab import firmware
from lab.firmware import Bus, Drive

HEADER = struct.Struct("<HBxIQ16sIII16s")
Found = dict[str, tuple[UUID, int, bytes, bytes]]


def variables(memory: bytes) -> Found:
    """The variables of a firmware's memory by name: owner, attributes, time and value."""
    found: Found = {}
    at = firmware.FIRST_VARIABLE
    while memory[at : at + 2] == b"\xaa\x55":
        _, state, attributes, _, since, _, named, valued, owner = HEADER.unpack_from(memory, at)
        assert state == firmware.ADDED
        at += HEADER.size
        name = memory[at : at + named].decode("utf-16-le").rstrip("\0")
        found[name] = (UUID(bytes_le=owner), attributes, since, memory[at + named :][:valued])
        at += named + valued
        at += -at % 4
    return found


values = st.binary(min_size=1, max_size=3000)


@given(lists=st.fixed_dictionaries({"PK": values, "KEK": values, "db": values}), on=st.booleans())
def test_firmware_finds_the_keys_it_was_given(lists: dict[str, bytes], on: bool) -> None:
    """Whatever their lengths, and nothing else of its memory is touched."""
    memory = firmware.trusting(lists, enforced=on)
    blank = firmware.BLANK.read_bytes()
    found = variables(memory)
    assert {name: found[name][3] for name in lists} == lists
    assert found["SecureBootEnable"][3] == bytes([on])
    assert found["PK"][0] == found["KEK"][0] == UUID(firmware.GLOBAL)
    assert found["db"][0] == UUID(firmware.SECURITY_DATABASE)
    assert all(found[name][2][:4] == b"\xda\x07\x01\x01" for name in lists)
    assert len(memory) == len(blank)
    assert memory[: firmware.FIRST_VARIABLE] == blank[: firmware.FIRST_VARIABLE]


def test_drives_are_tried_in_the_order_given(tmp_path: Path) -> None:
    """A CD cannot be written to, a stick can be taken out, and NVMe has a serial number."""
    drives = [Drive(tmp_path / "a.iso", Bus.CD), Drive(tmp_path / "b", Bus.NVME, "qcow2")]
    argv = firmware.words(tmp_path / "memory", [*drives, Drive(tmp_path / "c", Bus.STICK)])
    devices = [word for word in argv if ",bootindex=" in word]
    assert devices == [
        "ide-cd,drive=drive0,bootindex=0,bus=ide.0",
        "nvme,drive=drive1,bootindex=1,serial=drive1",
        "usb-storage,removable=on,drive=drive2,bootindex=2",
    ]
    files = [word for word in argv if word.startswith("if=none")]
    assert "readonly=on,media=cdrom" in files[0]
    assert files[1].endswith(f"file={tmp_path / 'b'},format=qcow2,readonly=off")
