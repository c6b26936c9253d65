"""Machines that start from firmware of their own, as bare metal does: UEFI, drives, Secure Boot."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from lab.errors import LabError
from lab.node_vm import MACHINE_TYPE

CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
# No keys: this firmware is in setup mode, and starts anything.
BLANK = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")

GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SECURITY_DATABASE = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
SECURE_BOOT_ENABLE = "f0a30bc7-af08-4556-99c4-001009c93a44"
# What firmware keeps and shows to the boot loader; AUTHENTICATED is what the key variables are.
KEPT, AT_RUN_TIME, AUTHENTICATED = 0x01 | 0x02, 0x04, 0x20
KEY_VARIABLES = {"PK": GLOBAL, "KEK": GLOBAL, "db": SECURITY_DATABASE}
# An EFI_TIME (2010-01-01): authenticated variables have one, and later updates must be newer.
ENROLLED_AT = struct.pack("<HBB12x", 2010, 1, 1)
# Of the store in the firmware's memory: after the headers of the volume and of the store itself.
FIRST_VARIABLE = 0x64
START_OF_VARIABLE, ADDED = 0x55AA, 0x3F


class Bus(StrEnum):
    """How a drive is attached."""

    CD = "cd"
    STICK = "stick"
    VIRTIO = "virtio"
    NVME = "nvme"
    SATA = "sata"


DEVICES = {
    Bus.CD: "ide-cd",
    Bus.STICK: "usb-storage,removable=on",
    Bus.VIRTIO: "virtio-blk-pci",
    Bus.NVME: "nvme",
    Bus.SATA: "ide-hd",
}


@dataclass(frozen=True)
class Drive:
    """One drive of a machine.

    Args:
        file: what is on it.
        bus: how it is attached.
        format: of the file: `raw` or `qcow2`.
        serial: what the drive says its serial number is.
        writable: whether the machine may write; a CD's never.
    """

    file: Path
    bus: Bus
    format: str = "raw"
    serial: str = ""
    writable: bool = True


def need_firmware() -> None:
    """Refuse to go on without the firmware.

    Raises:
        LabError: it is not installed.
    """
    if not CODE.exists() or not BLANK.exists():
        raise LabError(
            f"this machine lacks {CODE.name}, the firmware of machines with Secure Boot",
            code="program_missing",
            hint="apt-get install ovmf, or run scripts/setup",
        )


def words(variables: Path, drives: Sequence[Drive]) -> list[str]:
    """The words of QEMU's command line for firmware and drives; boots the first that boots.

    Args:
        variables: the firmware's memory; written to.
        drives: in the order in which the firmware tries them.
    """
    flash = "if=pflash,format=raw"
    argv = [
        # The firmware's memory is changed by the firmware alone, as Secure Boot needs.
        *("-machine", f"{MACHINE_TYPE},smm=on"),
        *("-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-global", "ICH9-LPC.disable_s3=1"),
        *("-drive", f"{flash},unit=0,readonly=on,file={CODE}"),
        *("-drive", f"{flash},unit=1,file={variables}"),
        *("-device", "qemu-xhci"),
    ]
    for number, drive in enumerate(drives):
        argv += drive_words(number, drive)
    return argv


def drive_words(number: int, drive: Drive) -> list[str]:
    """The words for one drive, `number` of the boot order."""
    readonly = "on" if drive.bus is Bus.CD or not drive.writable else "off"
    media = ",media=cdrom" if drive.bus is Bus.CD else ""
    # NVMe has no drive without a serial number.
    serial = drive.serial or (f"drive{number}" if drive.bus is Bus.NVME else "")
    named = f",serial={serial}" if serial else ""
    # Each port of the SATA controller takes one drive, and QEMU does not look for a free one.
    port = f",bus=ide.{number}" if drive.bus in (Bus.CD, Bus.SATA) else ""
    file = f"file={drive.file},format={drive.format},readonly={readonly}"
    return [
        *("-drive", f"if=none,id=drive{number},{file}{media}"),
        *("-device", f"{DEVICES[drive.bus]},drive=drive{number},bootindex={number}{named}{port}"),
    ]


def trusting(lists: Mapping[str, bytes], *, enforced: bool) -> bytes:
    """The memory of a firmware that trusts its owner's keys alone.

    Args:
        lists: EFI signature lists of `PK`, `KEK` and `db`, as the image carries them.
        enforced: whether the firmware refuses what they did not sign.

    Raises:
        LabError: the firmware is not installed.
    """
    need_firmware()
    attributes = KEPT | AT_RUN_TIME | AUTHENTICATED
    records = [variable(name, KEY_VARIABLES[name], attributes, lists[name]) for name in lists]
    records.append(variable("SecureBootEnable", SECURE_BOOT_ENABLE, KEPT, bytes([enforced])))
    written = b"".join(records)
    memory = bytearray(BLANK.read_bytes())
    memory[FIRST_VARIABLE : FIRST_VARIABLE + len(written)] = written
    return bytes(memory)


def variable(name: str, guid: str, attributes: int, data: bytes) -> bytes:
    """One variable as EDK2's authenticated store keeps it.

    Args:
        name: its name.
        guid: whose name it is.
        attributes: who may read and write it.
        data: its value.
    """
    text = f"{name}\0".encode("utf-16-le")
    since = ENROLLED_AT if attributes & AUTHENTICATED else b""
    record = struct.pack("<HBxIQ16s", START_OF_VARIABLE, ADDED, attributes, 0, since)
    record += struct.pack("<III", 0, len(text), len(data)) + UUID(guid).bytes_le + text + data
    return record + b"\xff" * (-len(record) % 4)
