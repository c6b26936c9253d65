"""Giving a VM a whole NVMe drive: what has to change so that VFIO may hand it out (DISK-02).

Reading and writing sysfs is at the edge; what may be given away, and the writes that do it, are
decided by pure functions. A drive is given away with everything in its IOMMU group, for that is
what the hardware can keep apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from ppn.errors import PpnError, Refusal
from ppn.host.model import BlockDevice

ADDRESS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
NVME_CLASS = 0x010802
# Bridges stay with the kernel: VFIO wants only the end points of a group.
BRIDGE_CLASS = 0x0604
VFIO = "vfio-pci"
# The kernel's way to say: whichever driver fits.
ANY_DRIVER = "\n"


class BindFailed(PpnError):
    """The kernel refused to move a device to another driver."""

    code = "vfio_bind_failed"


@dataclass(frozen=True)
class PciFunction:
    """A PCI function: its class code, and the driver that has it now."""

    address: str
    class_code: int
    driver: str | None

    @property
    def is_bridge(self) -> bool:
        """Whether it only leads to other devices."""
        return self.class_code >> 8 == BRIDGE_CLASS


@dataclass(frozen=True)
class Drive:
    """A PCI function that may be an NVMe drive, and what stands around it.

    Args:
        function: the device itself.
        group: everything in its IOMMU group, itself too; None when it is in no group.
        groups: whether the kernel has IOMMU groups at all.
        vfio: whether the driver that hands devices to VMs is loaded.
        used_by: mount points, swap and other devices on top of its namespaces.
    """

    function: PciFunction
    group: tuple[PciFunction, ...] | None
    groups: bool
    vfio: bool
    used_by: tuple[str, ...] = ()

    @property
    def addresses(self) -> frozenset[str]:
        """Everything that goes where the drive goes, itself too."""
        return frozenset({self.function.address, *(member.address for member in self.group or ())})


@dataclass(frozen=True)
class Write:
    """One word for the kernel: `text` into the file `path` below sysfs."""

    path: str
    text: str


def read_drive(sysfs: Path, address: str, blocks: tuple[BlockDevice, ...]) -> Drive:
    """A PCI function as sysfs shows it.

    Args:
        sysfs: the kernel's view of the hardware.
        address: for example `0000:01:00.0`.
        blocks: the node's block devices, to see what uses the drive.

    Raises:
        Refusal: no PCI address, or no such device.
    """
    folder = sysfs / "bus/pci/devices" / address
    if not ADDRESS.fullmatch(address) or not folder.is_dir():
        raise _refusal(
            address, "is no PCI device of this node", "pci_unknown", "lspci -D lists them"
        )
    members = folder / "iommu_group/devices"
    group = tuple(_function(sysfs, member.name) for member in sorted(members.glob("*")))
    return Drive(
        function=_function(sysfs, address),
        group=group or None,
        groups=any((sysfs / "kernel/iommu_groups").glob("*")),
        vfio=(sysfs / "bus/pci/drivers" / VFIO).is_dir(),
        used_by=_used_by(folder, blocks),
    )


def admit_passthrough(drive: Drive) -> tuple[PciFunction, ...]:
    """The functions that go to the VM with the drive; change nothing.

    Raises:
        Refusal: no NVMe drive, no IOMMU group, in use, or a group with devices the node needs.
    """
    address = drive.function.address
    if drive.function.class_code != NVME_CLASS:
        code = f"{drive.function.class_code:06x}"
        raise _refusal(address, f"is no NVMe drive (class {code})", "not_nvme", "name a drive")
    if drive.group is None:
        reason = (
            "is in no IOMMU group"
            if drive.groups
            else "has no IOMMU in front of it: the kernel made no IOMMU groups"
        )
        hint = "switch the IOMMU on in firmware and kernel (intel_iommu=on), or attach a qcow2 disk"
        raise _refusal(address, reason, "iommu_missing", hint)
    if drive.used_by:
        hint = "unmount it on the node first"
        raise _refusal(address, f"is used by {', '.join(drive.used_by)}", "drive_in_use", hint)
    ends = tuple(member for member in drive.group if not member.is_bridge)
    for member in ends:
        if member.address != address and member.driver not in (None, VFIO):
            raise _refusal(
                address,
                f"shares its IOMMU group with {member.address}, which {member.driver} uses",
                "iommu_group_shared",
                "put the drive into another slot",
            )
    if not drive.vfio:
        raise _refusal(address, f"needs the driver {VFIO}", "vfio_missing", f"modprobe {VFIO}")
    return ends


def plan_bind(drive: Drive) -> tuple[Write, ...]:
    """The writes that hand a drive and its group to VFIO; none when VFIO has them.

    Each function is told its driver before it loses the old one, so that no other driver takes it
    in between; every prefix can be repeated.

    Raises:
        Refusal: see `admit_passthrough`.
    """
    return tuple(
        write
        for member in admit_passthrough(drive)
        if member.driver != VFIO
        for write in _move(member, VFIO)
    )


def plan_release(drive: Drive) -> tuple[Write, ...]:
    """The writes that give a drive and its group back to the node's own drivers.

    They also undo a bind that was cut short, whether or not the drive lost its driver.
    """
    writes = (
        write
        for member in drive.group or ()
        if not member.is_bridge and member.driver in (None, VFIO)
        for write in _move(member, ANY_DRIVER)
    )
    if drive.function.driver in (None, VFIO):
        return tuple(writes)
    return (_override(drive.function, ANY_DRIVER), *writes)


def carry_out(sysfs: Path, writes: tuple[Write, ...]) -> None:
    """Write to sysfs, in order.

    Raises:
        BindFailed: the kernel refused; what was written before stands, and may be repeated.
    """
    for write in writes:
        try:
            (sysfs / write.path).write_text(write.text)
        except OSError as error:
            raise BindFailed(
                f"cannot write {write.text.strip() or 'nothing'} to {write.path}: {error.strerror}",
                hint="look at the kernel's log (dmesg)",
            ) from error


def bind(sysfs: Path, address: str, blocks: tuple[BlockDevice, ...]) -> None:
    """Hand a drive and its group to VFIO; nothing when VFIO has them.

    Args:
        sysfs: the kernel's view of the hardware.
        address: of the drive.
        blocks: the node's block devices.

    Raises:
        Refusal: see `read_drive` and `admit_passthrough`; nothing was written.
        BindFailed: the kernel refused.
    """
    carry_out(sysfs, plan_bind(read_drive(sysfs, address, blocks)))


def give_back(sysfs: Path, address: str, *, kept: Collection[str] = ()) -> None:
    """Give a drive and its group back to the node; nothing when it is no longer there.

    Args:
        sysfs: the kernel's view of the hardware.
        address: of the drive.
        kept: drives that stay with the VM; what shares their group stays with VFIO.

    Raises:
        BindFailed: the kernel refused; may be repeated.
    """
    if not (sysfs / "bus/pci/devices" / address).is_dir():
        return
    drive = read_drive(sysfs, address, ())
    if not drive.addresses & set(kept):
        carry_out(sysfs, plan_release(drive))


def hostdev_xml(address: str) -> str:
    """A PCI device as libvirt attaches it while the VM runs."""
    return tostring(hostdev(address), encoding="unicode")


def hostdev(address: str) -> Element:
    """A PCI device of a domain; the drivers were moved before, so not by libvirt.

    Raises:
        Refusal: no PCI address.
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise _refusal(address, "is no PCI address", "pci_unknown", "lspci -D lists them")
    device = Element("hostdev", mode="subsystem", type="pci", managed="no")
    SubElement(device, "driver", name="vfio")
    parts = zip(("domain", "bus", "slot", "function"), found.groups(), strict=True)
    SubElement(SubElement(device, "source"), "address", {name: f"0x{part}" for name, part in parts})
    return device


def _move(function: PciFunction, driver: str) -> tuple[Write, ...]:
    device = f"bus/pci/devices/{function.address}"
    override = _override(function, driver)
    probe = Write("bus/pci/drivers_probe", function.address)
    if function.driver is None:
        return (override, probe)
    return (override, Write(f"{device}/driver/unbind", function.address), probe)


def _override(function: PciFunction, driver: str) -> Write:
    return Write(f"bus/pci/devices/{function.address}/driver_override", driver)


def _function(sysfs: Path, address: str) -> PciFunction:
    folder = sysfs / "bus/pci/devices" / address
    try:
        class_code = int((folder / "class").read_text(), 16)
    except (OSError, ValueError):
        class_code = 0
    driver = folder / "driver"
    return PciFunction(address, class_code, driver.resolve().name if driver.exists() else None)


def _used_by(folder: Path, blocks: tuple[BlockDevice, ...]) -> tuple[str, ...]:
    # With several paths to a drive the namespace of one path is called nvme0c1n1.
    names = {re.sub(r"c\d+n", "n", space.name) for space in folder.glob("nvme/nvme*/nvme*n*")}
    drives = [block for block in blocks if block.name in names]
    uses = [drive.used_by for drive in drives]
    uses += [part.used_by for drive in drives for part in drive.parts]
    return tuple(use for each in uses for use in each)


def _refusal(address: str, reason: str, code: str, hint: str) -> Refusal:
    return Refusal(f"PCI device {address} {reason}", code=code, constraint="passthrough", hint=hint)
