"""A machine into which settings and disks are plugged as it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.firmware import Bus, Drive
from lab.medium import Medium
from lab.qmp import ask
from tests.iso.conftest import memory
from tests.iso.machine import Machine, booted
from tests.lab.pool import eventually

SECONDS = 1500
ANSWER_SECONDS = 60
WAITING = r"ppn-installer: waiting: .*\n"
# Last of the ports of the SATA controller: the drives of the machine itself have the first ones.
SITE, CONTROLLER, PORT = "site", "disks", "ide.5"
# Serial numbers of the disks that are in it all the time; it starts from the first.
STICK, SMALL = "STICK", "SMALL"


class PluggableMachine:
    """A machine that starts with what is first plugged into it.

    Args:
        machine: it has a drive for settings and a controller for disks, and waits to be started.
        socket: where it is told what is plugged in.
        layers: disks (qcow2) by serial number.
    """

    def __init__(self, machine: Machine, socket: Path, layers: Mapping[str, Path]) -> None:
        self.machine, self.socket, self.layers = machine, socket, layers
        self.site = Path()
        self.disks: frozenset[str] = frozenset()
        self.said = ""

    def refusal(self, site: Path, disks: frozenset[str]) -> str:
        """What the console says of the machine with some settings and disks plugged in.

        Args:
            site: the medium with the settings.
            disks: serial numbers; others are taken out.
        """
        if (self.site, self.disks) != (site, disks):
            before = len(self.machine.text())
            self.plug(site, disks)
            self.machine.wait_for(WAITING, seconds=SECONDS, after=before)
            self.said = self.machine.text()[before:]
        return self.said

    def plug(self, site: Path, disks: frozenset[str]) -> None:
        """Have these plugged in and no others, and the machine run."""
        if site != self.site:
            words = {"filename": str(site), "format": "raw", "force": True}
            self.ask("blockdev-change-medium", id=SITE, **words)
        for serial in self.disks - disks:
            self.ask("device_del", id=serial)
        for serial in disks - self.disks:
            self.plug_disk(serial)
        self.ask("cont")
        self.site, self.disks = site, disks

    def plug_disk(self, serial: str) -> None:
        """Plug one in."""
        # One that was taken out before leaves its drive behind, with its name and its lock.
        drive = f"{serial}-{time.monotonic_ns()}"
        file = {"driver": "file", "filename": str(self.layers[serial]), "locking": "off"}
        self.ask("blockdev-add", **{"node-name": drive, "driver": "qcow2", "file": file})
        words = {"driver": "scsi-hd", "bus": f"{CONTROLLER}.0", "id": serial, "serial": serial}
        self.ask("device_add", drive=drive, **words)

    def ask(self, command: str, **arguments: Any) -> None:
        """Have QEMU do something."""
        (answer,) = ask(
            self.socket, {"execute": command, "arguments": arguments}, seconds=ANSWER_SECONDS
        )
        assert "return" in answer, (command, arguments, answer)


@contextmanager
def plugged(medium: Medium, folder: Path, layers: Mapping[str, Path]) -> Iterator[PluggableMachine]:
    """A machine for a block, Secure Boot off; it starts with what is first plugged into it.

    Args:
        medium: the image, of which `STICK` is a layer.
        folder: takes its console and control socket.
        layers: disks (qcow2) by serial number.
    """
    socket = folder / "control"
    socket.unlink(missing_ok=True)
    drives = [
        Drive(layers[STICK], Bus.STICK, "qcow2", STICK),
        Drive(layers[SMALL], Bus.SATA, "qcow2", SMALL),
    ]
    words = ["-S", "-qmp", f"unix:{socket},server=on,wait=off"]
    words += ["-device", f"ide-cd,id={SITE},bus={PORT}"]
    words += ["-device", f"virtio-scsi-pci,id={CONTROLLER}"]
    firmware = memory(medium, folder, enforced=False)
    with booted(folder, firmware, drives, more=words) as running:
        eventually(socket.exists, "QEMU listens")
        yield PluggableMachine(running, socket, layers)
