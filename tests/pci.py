"""PCI devices of a test's node, as files that can be written as on a real one."""

from __future__ import annotations

from pathlib import Path

from ppn.host.hardware import read_blocks
from ppn.host.nvme import Drive, read_drive

DRIVE, TWIN, NIC, BRIDGE = "0000:01:00.0", "0000:01:00.1", "0000:02:00.0", "0000:00:01.0"
NVME, ETHERNET, PORT = "0x010802", "0x020000", "0x060400"


class Sysfs:
    """A machine's PCI devices as files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.devices = root / "sys/bus/pci/devices"
        self.drivers = root / "sys/bus/pci/drivers"
        self.groups = root / "sys/kernel/iommu_groups"
        for folder in (self.devices, self.groups, self.drivers / "vfio-pci", root / "proc/self"):
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, address: str, code: str, driver: str | None, group: int | None) -> Path:
        """One device, with its driver and its IOMMU group."""
        device = self.devices / address
        device.mkdir()
        (device / "class").write_text(f"{code}\n")
        (device / "driver_override").write_text("(null)\n")
        if driver is not None:
            (self.drivers / driver).mkdir(exist_ok=True)
            (device / "driver").symlink_to(f"../../drivers/{driver}")
        if group is not None:
            members = self.groups / str(group) / "devices"
            members.mkdir(parents=True, exist_ok=True)
            (members / address).symlink_to(device)
            (device / "iommu_group").symlink_to(members.parent)
        return device

    def drive(self, address: str = DRIVE) -> Drive:
        """The device as ppn reads it."""
        blocks = read_blocks(self.root / "sys", self.root / "proc")
        return read_drive(self.root / "sys", address, blocks)
