"""Disks that come and go while the guest runs, on a real libvirt with real guests."""

from __future__ import annotations

import json
from typing import Any
from xml.etree.ElementTree import fromstring

from ppn.host.disk import disk_info
from ppn.host.model import VmDisk
from tests.integration.host.node import Node, is_alive, wait_for

DATA = {"name": "data", "size_gib": 1}
LOG = {"name": "log", "size_gib": 1}


def detach(node: Node, disk: str, *words: str) -> dict[str, Any]:
    """`ppn host detach`; the outcome as it was printed."""
    done: dict[str, Any] = json.loads(node.ppn("host", "detach", "web", disk, *words).stdout)
    return done


def files(node: Node) -> set[str]:
    """What QEMU has open as disks."""
    blocks = [block["inserted"]["file"] for block in node.monitor("web", "query-block")]
    return {file.rpartition("/")[2] for file in blocks}


def test_a_disk_goes_and_comes_back_with_its_data(node: Node) -> None:
    """DISK-01, DISK-04, DISK-05: gone in QEMU and guest, VM still up; kept, counted, attached."""
    first = node.apply(disks=[DATA, LOG])
    node.wait_ready("web")
    wait_for("the disks", lambda: node.beat("web").get("disks") == "vda,vdb,vdc,vdd")
    data = node.paths.vm("web").disk("data")
    promised = node.state().disk.promised_mib
    done = detach(node, "data")
    assert done["changed"] and is_alive(first["vm"]["pid"])
    assert files(node) == {"disk.qcow2", "log.qcow2", "seed.iso"}
    wait_for("the guest to lose it", lambda: node.beat("web").get("disks") == "vda,vdc,vdd")
    state = node.state()
    vm = state.vms[0]
    assert vm.disk("data") == VmDisk(name="data", size_mib=1024, attached=False, detached=True)
    assert vm.spec is not None and [disk.name for disk in vm.spec.disks] == ["log"]
    assert state.disk.promised_mib == promised
    assert not detach(node, "data")["changed"]
    assert not node.apply(disks=[LOG])["changed"]
    # QEMU has let go of the file: another program may write to it.
    assert disk_info(data).virtual_mib == 1024
    mark = data.stat().st_ino
    node.apply(disks=[LOG, DATA])
    assert files(node) == {"disk.qcow2", "log.qcow2", "data.qcow2", "seed.iso"}
    assert data.stat().st_ino == mark
    wait_for("the disk back", lambda: len(node.beat("web")["disks"].split(",")) == 4)
    assert node.state().vms[0].pid == first["vm"]["pid"]


def test_a_discarded_disk_leaves_no_file(node: Node) -> None:
    """DISK-01: at once, or later when it was kept at first; also on a stopped VM."""
    node.apply(disks=[DATA, LOG])
    node.wait_ready("web")
    path = node.paths.vm("web").disk
    detach(node, "data")
    assert path("data").exists()
    assert detach(node, "data", "--discard")["actions"] == ["discard disk data of vm web"]
    detach(node, "log", "--discard")
    assert not path("data").exists() and not path("log").exists()
    node.apply(state="stopped")
    node.apply(state="stopped", disks=[DATA])
    assert {disk.name for disk in node.state().vms[0].disks} == {"root", "data"}
    detach(node, "data", "--discard")
    assert not path("data").exists() and node.state().vms[0].state == "stopped"
    node.apply()
    assert files(node) == {"disk.qcow2", "seed.iso"}


def free_port(node: Node) -> str:
    """A root port of the running VM with nothing behind it, by libvirt's name for it."""
    domain = fromstring(node.virsh("dumpxml", "web"))
    ports = {
        port.get("index", "")
        for port in domain.iterfind("devices/controller")
        if port.get("model") == "pcie-root-port"
    }
    places = domain.iterfind("devices//address[@bus]")
    taken = {str(int(place.get("bus", "0"), 16)) for place in places}
    return f"pci.{max(ports - taken, key=int)}"


def has_nvme(node: Node) -> bool:
    """Whether the guest's PCI buses have a drive of class NVMe."""
    return "'class': 264" in str(node.monitor("web", "query-pci"))


def test_a_drive_of_nvmes_kind_comes_and_goes(node: Node) -> None:
    """DISK-02: no IOMMU here, so QEMU's own NVMe drive takes the place of a real one.

    libvirt 11.3 knows no emulated NVMe device, so QEMU is asked through libvirt's monitor; the root
    port is one of those a passed drive would take.
    """
    pid = node.apply()["vm"]["pid"]
    node.wait_ready("web")
    wait_for("the first beat", lambda: node.beat("web"))
    drive = node.root / "nvme.raw"
    drive.write_bytes(bytes(1 << 20))
    back = {"driver": "file", "filename": str(drive), "node-name": "nvme-file"}
    node.order("web", "blockdev-add", back)
    device = {"driver": "nvme", "id": "ua-nvme", "serial": "n1", "drive": "nvme-file"}
    node.order("web", "device_add", device | {"bus": free_port(node)})
    wait_for("the drive", lambda: has_nvme(node))
    node.order("web", "device_del", {"id": "ua-nvme"})
    wait_for("the drive to go", lambda: not has_nvme(node))
    assert node.state().vms[0].pid == pid and is_alive(pid)
    drive.unlink()


def test_refused_detaches_change_nothing(node: Node) -> None:
    """DISK-01: with a stable code; a declaration alone still takes no data."""
    node.apply(state="stopped", disks=[DATA])
    before = node.state()
    for words, code, exit_code in (
        (("web", "root"), "disk_root", 3),
        (("web", "none"), "disk_unknown", 3),
        (("other", "data"), "vm_unknown", 4),
    ):
        failed = node.ppn("host", "detach", *words, "--json", accept=(exit_code,))
        assert json.loads(failed.stderr)["error"]["code"] == code
    assert node.refused(state="stopped")["code"] == "disk_undeclared"
    assert node.state().vms == before.vms


def test_a_guest_that_never_came_up_does_not_hang_a_detach(node: Node) -> None:
    """DISK-01: nobody answers in the guest; libvirt still ends it, or the refusal says so."""
    node.apply(disks=[DATA])
    done = detach(node, "data")
    assert done["vm"]["state"] == "running" and "data.qcow2" not in files(node)
