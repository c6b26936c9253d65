"""The firmware's list of what it starts: our entry, first, and next."""

from __future__ import annotations

import re
from pathlib import Path

from ppn.errors import PpnError
from ppn.run import run

LABEL = "ppn node"
LOADER = r"\EFI\systemd\systemd-bootx64.efi"
VARIABLES = Path("/sys/firmware/efi/efivars")
ENTRY = re.compile(r"^Boot([0-9A-Fa-f]{4})\*? (.*?)(?:\t.*)?$", re.MULTILINE)
SECONDS = 60.0


class FirmwareRefuses(PpnError):
    """The firmware's list cannot be read or changed."""

    code = "firmware_refuses"


def entries(said: str) -> tuple[str, ...]:
    """Numbers of our entries in what efibootmgr says."""
    return tuple(number for number, label in ENTRY.findall(said) if label.strip() == LABEL)


def start_next(disk: str) -> None:
    """Let the firmware start the disk's boot loader: next, and first from then on.

    Args:
        disk: the disk's device, as the kernel names it; its first partition is the ESP.

    Raises:
        FirmwareRefuses: there is no list, or it is not to be changed.
    """
    if not VARIABLES.is_dir() or not any(VARIABLES.iterdir()):
        raise FirmwareRefuses("the firmware shows no list of what it starts")
    try:
        for number in entries(run(["efibootmgr"], timeout=SECONDS).stdout):
            run(["efibootmgr", "-q", "-b", number, "-B"], timeout=SECONDS)
        words = ["--disk", disk, "--part", "1", "--label", LABEL, "--loader", LOADER]
        # A new entry goes to the head of the order.
        made = entries(run(["efibootmgr", "--create", *words], timeout=SECONDS).stdout)
        if not made:
            raise FirmwareRefuses("the firmware has not kept the entry for the disk")
        run(["efibootmgr", "-q", "--bootnext", made[0]], timeout=SECONDS)
    except PpnError as error:
        raise FirmwareRefuses(f"the firmware's list cannot be changed: {error}") from error
