"""Drives for VMs through the agent's socket, with a real libvirt; the PCI devices are files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from ppn.errors import PpnError, Refusal
from tests.integration.agent.agents import Agent
from tests.pci import BRIDGE, DRIVE, NVME, PORT, Sysfs


@pytest.fixture
def sysfs(agent: Agent) -> Iterator[Sysfs]:
    """The node's PCI devices; none at first."""
    yield Sysfs(agent.node.root)
    for folder in ("bus", "kernel"):
        shutil.rmtree(agent.node.paths.sysfs / folder)


def refused(agent: Agent, operation: str, address: str = DRIVE) -> Refusal:
    """The refusal of an operation, which changed nothing."""
    node = agent.node
    before = (
        node.paths.vm("web").sidecar.read_bytes(),
        node.virsh("dumpxml", "web"),
        agent.do("node")["node"]["pool"],
    )
    with pytest.raises(Refusal) as refusal:
        agent.do(operation, vm="web", address=address)
    assert before == (
        node.paths.vm("web").sidecar.read_bytes(),
        node.virsh("dumpxml", "web"),
        agent.do("node")["node"]["pool"],
    )
    assert agent.do("node")["operations"] == []
    assert agent.do("show", vm="web")["vm"]["state"] == "running"
    return refusal.value


def test_without_an_iommu_a_drive_is_refused_and_nothing_changes(
    agent: Agent, sysfs: Sysfs
) -> None:
    """DISK-02: with the reason, and so in the timeline."""
    agent.spawn()
    device = sysfs.add(DRIVE, NVME, "nvme", None)
    refusal = refused(agent, "attach_nvme")
    assert (refusal.code, refusal.constraint) == ("iommu_missing", "passthrough")
    assert "no IOMMU in front of it" in refusal.message and "intel_iommu=on" in refusal.hint
    assert (device / "driver_override").read_text() == "(null)\n"
    assert refused(agent, "attach_nvme", "0000:09:00.0").code == "pci_unknown"
    assert refused(agent, "detach_nvme").code == "drive_unknown"
    told = agent.do("timeline", vm="web")["operations"]
    codes = [operation["code"] for operation in told]
    assert codes == ["", "iommu_missing", "pci_unknown", "drive_unknown"]
    assert [step["name"] for step in told[1]["steps"]] == ["reserving"]


def test_an_attach_that_fails_leaves_the_drive_with_the_node(agent: Agent, sysfs: Sysfs) -> None:
    """DISK-02, DISK-03: admitted and bound, and then refused by libvirt: there is no such drive."""
    agent.spawn()
    sysfs.add(BRIDGE, PORT, "pcieport", 7)
    device = sysfs.add(DRIVE, NVME, "nvme", 7)
    before, pool = agent.node.paths.vm("web").sidecar.read_bytes(), agent.do("node")["node"]["pool"]
    with pytest.raises(PpnError) as failed:
        agent.do("attach_nvme", vm="web", address=DRIVE)
    assert failed.value.code == "libvirt_failed"
    assert failed.value.message.startswith("cannot attach a device to domain web")
    # It was bound before that.
    assert (sysfs.drivers / "nvme/unbind").read_text() == DRIVE
    assert (device / "driver_override").read_text() == "\n"
    assert agent.node.paths.vm("web").sidecar.read_bytes() == before
    after = agent.do("node")
    assert (after["operations"], after["node"]["pool"]) == ([], pool)
    assert agent.do("show", vm="web")["vm"]["state"] == "running"


def test_a_vm_starts_with_its_drives_and_loses_them_with_itself(agent: Agent, sysfs: Sysfs) -> None:
    """DISK-02: bound again at a start, in the domain, shown, given back at the end."""
    agent.spawn(image="tiny")
    agent.node.wait_ready("web")
    agent.do("stop", vm="web")
    sysfs.add(BRIDGE, PORT, "pcieport", 7)
    device = sysfs.add(DRIVE, NVME, "nvme", 7)
    sidecar = agent.node.paths.vm("web").sidecar
    sidecar.write_text(sidecar.read_text().replace('"drives": []', f'"drives": ["{DRIVE}"]'))
    assert agent.do("show", vm="web")["vm"]["drives"] == [DRIVE]
    with pytest.raises(PpnError) as failed:
        agent.do("start", vm="web")
    assert failed.value.code == "libvirt_failed"
    assert failed.value.message.startswith("cannot start domain web")
    assert (device / "driver_override").read_text() == "vfio-pci"
    assert "<hostdev" in agent.node.virsh("dumpxml", "web")
    agent.do("destroy", vm="web")
    assert (device / "driver_override").read_text() == "\n"
    assert agent.node.nothing_is_left()
