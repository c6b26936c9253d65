"""Giving drives away: on a sysfs of the test, where writing works as on a real one."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest

from ppn.errors import Refusal
from ppn.host.hardware import read_blocks
from ppn.host.nvme import (
    BindFailed,
    Drive,
    admit_passthrough,
    carry_out,
    give_back,
    hostdev_xml,
    plan_bind,
    plan_release,
    read_drive,
)
from tests.pci import BRIDGE, DRIVE, ETHERNET, NIC, NVME, PORT, TWIN, Sysfs


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    """A machine with a bridge to an NVMe drive, and an IOMMU."""
    found = Sysfs(tmp_path)
    found.add(BRIDGE, PORT, "pcieport", 7)
    found.add(DRIVE, NVME, "nvme", 7)
    return found


def code_of(drive: Drive) -> str:
    with pytest.raises(Refusal) as refused:
        admit_passthrough(drive)
    return refused.value.code


def words(writes: object) -> list[tuple[str, str]]:
    assert isinstance(writes, tuple)
    return [(write.path.removeprefix("bus/pci/"), write.text) for write in writes]


def test_a_drive_is_told_its_driver_before_it_loses_the_old_one(sysfs: Sysfs) -> None:
    """DISK-02: and the bridge of its group stays with the kernel."""
    assert words(plan_bind(sysfs.drive())) == [
        (f"devices/{DRIVE}/driver_override", "vfio-pci"),
        (f"devices/{DRIVE}/driver/unbind", DRIVE),
        ("drivers_probe", DRIVE),
    ]


def test_the_whole_group_goes(sysfs: Sysfs) -> None:
    """DISK-02: a function nobody drives goes with the drive."""
    sysfs.add(TWIN, "0x108000", None, 7)
    assert [write[1] for write in words(plan_bind(sysfs.drive()))[3:]] == ["vfio-pci", TWIN]


def test_what_vfio_has_is_left_and_can_be_given_back(sysfs: Sysfs) -> None:
    """DISK-02: a bind cut short or done is repeated without harm."""
    driver = sysfs.devices / DRIVE / "driver"
    driver.unlink()
    assert [write[1] for write in words(plan_bind(sysfs.drive()))] == ["vfio-pci", DRIVE]
    driver.symlink_to("../../drivers/vfio-pci")
    assert plan_bind(sysfs.drive()) == ()
    assert words(plan_release(sysfs.drive())) == [
        (f"devices/{DRIVE}/driver_override", "\n"),
        (f"devices/{DRIVE}/driver/unbind", DRIVE),
        ("drivers_probe", DRIVE),
    ]


def test_a_bind_that_was_cut_short_is_undone(sysfs: Sysfs) -> None:
    """DISK-02: before the drive lost its driver, and after; the bridge is left alone."""
    assert words(plan_release(sysfs.drive())) == [(f"devices/{DRIVE}/driver_override", "\n")]
    for address in (DRIVE, BRIDGE):
        (sysfs.devices / address / "driver").unlink()
    assert words(plan_release(sysfs.drive())) == [
        (f"devices/{DRIVE}/driver_override", "\n"),
        ("drivers_probe", DRIVE),
    ]


def test_a_drive_goes_back_unless_another_of_its_group_is_kept(sysfs: Sysfs) -> None:
    """DISK-02: and one that was pulled out is no trouble."""
    sysfs.add(TWIN, NVME, "vfio-pci", 7)
    override = sysfs.devices / DRIVE / "driver_override"
    give_back(sysfs.root / "sys", DRIVE, kept=[TWIN])
    assert override.read_text() == "(null)\n"
    give_back(sysfs.root / "sys", DRIVE, kept=[NIC])
    assert override.read_text() == "\n"
    give_back(sysfs.root / "sys", "0000:09:00.0")


def test_without_an_iommu_it_is_refused_with_the_reason(sysfs: Sysfs, tmp_path: Path) -> None:
    """DISK-02: no IOMMU at all, and a device outside of every group."""
    other = Sysfs(tmp_path / "bare")
    other.add(DRIVE, NVME, "nvme", None)
    with pytest.raises(Refusal, match="no IOMMU in front of it") as refused:
        plan_bind(other.drive())
    assert refused.value.code == "iommu_missing"
    sysfs.add(TWIN, NVME, "nvme", None)
    with pytest.raises(Refusal, match="is in no IOMMU group"):
        plan_bind(sysfs.drive(TWIN))


def test_this_machine_is_judged_as_it_is() -> None:
    """DISK-02: every real PCI device here is refused, none by accident."""
    sysfs, found = Path("/sys"), set()
    for device in (sysfs / "bus/pci/devices").glob("*"):
        found.add(code_of(read_drive(sysfs, device.name, read_blocks(sysfs, Path("/proc")))))
    assert found <= {"not_nvme", "iommu_missing", "drive_in_use", "iommu_group_shared"}


def test_a_neighbour_the_node_needs_keeps_the_drive_here(sysfs: Sysfs) -> None:
    sysfs.add(NIC, ETHERNET, "igb", 7)
    assert code_of(sysfs.drive()) == "iommu_group_shared"


@pytest.mark.parametrize("space", ["nvme0n1", "nvme0c1n1"])
def test_a_drive_in_use_stays(sysfs: Sysfs, space: str) -> None:
    """DISK-02: a mounted partition, also where the drive has several paths."""
    (sysfs.devices / DRIVE / "nvme/nvme0" / space).mkdir(parents=True)
    part = sysfs.root / "sys/block/nvme0n1/nvme0n1p1"
    part.mkdir(parents=True)
    (part.parent / "size").write_text("2097152\n")
    (part / "partition").write_text("1\n")
    (part / "dev").write_text("259:1\n")
    assert plan_bind(sysfs.drive())
    line = "30 1 259:1 / /srv rw shared:1 - ext4 /dev/nvme0n1p1 rw\n"
    (sysfs.root / "proc/self/mountinfo").write_text(line)
    assert sysfs.drive().used_by == ("/srv",)
    assert code_of(sysfs.drive()) == "drive_in_use"


def test_other_devices_and_addresses_are_refused(sysfs: Sysfs) -> None:
    sysfs.add(NIC, ETHERNET, "igb", 9)
    assert code_of(sysfs.drive(NIC)) == "not_nvme"
    (sysfs.drivers / "vfio-pci").rmdir()
    assert code_of(sysfs.drive()) == "vfio_missing"
    for address in ("0000:09:00.0", "../..", "01:00.0", f"{DRIVE}\n"):
        with pytest.raises(Refusal) as refused:
            sysfs.drive(address)
        assert refused.value.code == "pci_unknown"


def test_writes_reach_their_files_in_order(sysfs: Sysfs) -> None:
    """DISK-02: and the first that fails is named."""
    root = sysfs.root / "sys"
    carry_out(root, plan_bind(sysfs.drive()))
    assert (sysfs.devices / DRIVE / "driver_override").read_text() == "vfio-pci"
    assert (sysfs.drivers / "nvme/unbind").read_text() == DRIVE
    assert (root / "bus/pci/drivers_probe").read_text() == DRIVE
    (sysfs.drivers / "nvme/unbind").unlink()
    (sysfs.drivers / "nvme/unbind").mkdir()
    with pytest.raises(BindFailed, match="driver/unbind"):
        carry_out(root, plan_bind(sysfs.drive()))


def test_the_device_as_libvirt_is_told() -> None:
    device = fromstring(hostdev_xml("0000:3b:00.1"))
    assert device.attrib == {"mode": "subsystem", "type": "pci", "managed": "no"}
    address = device.find("source/address")
    assert address is not None and address.attrib == {
        "domain": "0x0000",
        "bus": "0x3b",
        "slot": "0x00",
        "function": "0x1",
    }
    with pytest.raises(Refusal):
        hostdev_xml("0000:3b:00.1\n")
