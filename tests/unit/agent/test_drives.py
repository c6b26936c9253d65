"""Drives that VMs get for themselves: real table, sidecar and settling; sysfs is a folder.

libvirt is a record of what it was asked: without an IOMMU the real one cannot attach a drive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from ppn.errors import PpnError, Refusal
from ppn.host.agent.drives import DriveAttachment, Place, detach_drive
from ppn.host.agent.report import vm_report
from ppn.host.agent.service import Service
from ppn.host.agent.settling import Settling
from ppn.host.agent.table import LockTable
from ppn.host.apply import Admitted
from ppn.host.backend import Backend, LibvirtFailed
from ppn.host.domain_facts import DomainFacts
from ppn.host.forecast import after, with_buffer
from ppn.host.model import Enforcement, LedgerGrant, NodeState, VmMemory, VmView
from ppn.host.nvme import BindFailed
from ppn.host.paths import Paths
from ppn.host.policy import minimum_of
from ppn.host.settle import OVERHEAD_MIB, Clock, NotSettled, Stage, attach_settled
from ppn.host.sidecar import Sidecar, read_sidecar, write_sidecar
from ppn.host.vm_state import NodeFacts, read_vm
from tests.host_root import write_hardware
from tests.pci import BRIDGE, DRIVE, NVME, PORT, TWIN, Sysfs
from tests.unit.host.builders import UUID, make_node, make_spec, make_view

MAXIMUM, BALLOONED = 2048, 512
SPEC = make_spec(memory_mib=MAXIMUM)


@dataclass
class Libvirt:
    """One running domain, `web`, whose balloon moves by 512 MiB at each look."""

    asked: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    current: int = BALLOONED
    wanted: int = BALLOONED
    fails: str = ""
    takes_all_the_same: bool = False
    on_ask: Callable[[], None] = lambda: None

    def domains(self) -> tuple[DomainFacts, ...]:
        self.current = min(self.current + 512, self.wanted)
        self._ask("look")
        facts = DomainFacts(
            name="web",
            uuid=UUID,
            running=True,
            owner="operator",
            digest="",
            accelerator="tcg",
            vcpus=2,
            maximum_mib=MAXIMUM,
            current_mib=self.current,
            unused_mib=None,
        )
        return (facts,)

    def drives(self, name: str) -> frozenset[str]:
        return frozenset(self.held)

    def attach(self, name: str, xml: str) -> None:
        assert "hostdev" in xml and name == "web"
        if self.takes_all_the_same or self.fails != "attach":
            self.held.add(DRIVE)
        self._ask("attach")

    def detach(self, name: str, behind: str, *, deadline: float) -> None:
        self._ask("detach")
        self.held.remove(behind)

    def set_memory(self, name: str, mib: int) -> None:
        self._ask(f"memory {mib}")
        self.wanted = mib

    def _ask(self, what: str) -> None:
        self.on_ask()
        if self.fails == what:
            raise LibvirtFailed(f"{what} failed")
        if self.asked[-1:] != [what]:
            self.asked.append(what)


class House:
    """A node with the VM `web`, half of it in the balloon, and an NVMe drive."""

    def __init__(self, root: Path, *, iommu: bool = True) -> None:
        self.paths = Paths(root)
        self.sysfs = Sysfs(root)
        if iommu:
            self.sysfs.add(BRIDGE, PORT, "pcieport", 7)
        self.device = self.sysfs.add(DRIVE, NVME, "nvme", 7 if iommu else None)
        file = self.paths.vm("web").sidecar
        file.parent.mkdir(parents=True)
        write_sidecar(file, Sidecar(uuid=UUID, created="", phase="ready", spec=SPEC))
        self.libvirt = Libvirt()
        self.table = LockTable()
        self.settling = Settling(lambda: None)
        self.stages: list[Stage] = []
        self.others: tuple[VmView, ...] = ()
        self.physical_mib = 8192
        self.state = "running"
        self.time = 0.0

    def look(self) -> NodeState:
        memory = VmMemory(maximum_mib=MAXIMUM, minimum_mib=256, current_mib=self.libvirt.current)
        view = make_view(SPEC, memory=memory, drives=self.sidecar().drives, state=self.state)
        return make_node(view, *self.others, physical_mib=self.physical_mib)

    def place(self, vm: str = "web") -> Place:
        return Place(vm, DRIVE, self.paths, self.libvirt, self.look)

    def sidecar(self) -> Sidecar:
        found = read_sidecar(self.paths.vm("web").sidecar)
        assert found is not None
        return found

    def override(self) -> str:
        """The driver the kernel was last told for the drive."""
        return (self.device / "driver_override").read_text()

    def attach(self, vm: str = "web") -> bool:
        """The whole of an attach; whether it changed anything."""
        attachment = DriveAttachment(self.place(vm), self.table, self.settling, self.stages.append)
        with self.table.operation(vm, "attach_nvme", "test-1234"):
            try:
                attach_settled(attachment, Clock(lambda: self.time, self.sleep))
            finally:
                # Before the operation's end, with which its entry goes in any case.
                assert self.table.kept_mib() == 0
        return attachment.changed

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_drive_is_reserved_for_bound_attached_and_settled(house: House) -> None:
    """DISK-02, DISK-03: in that order; `stabilising` and the buffer until the balloon is steady."""
    seen: list[tuple[int, str, frozenset[str], str]] = []
    house.libvirt.on_ask = lambda: seen.append(
        (
            house.table.kept_mib(),
            house.override(),
            house.settling.vms(),
            vm_report(house.look().vms[0], house.settling.vms()).state,
        )
    )
    assert house.attach()
    assert house.libvirt.asked == ["attach", f"memory {MAXIMUM}", "look"]
    assert house.stages == [Stage.RESERVING, Stage.ATTACHING, Stage.STABILISING]
    buffer = MAXIMUM - BALLOONED + OVERHEAD_MIB
    assert {(kept, driver) for kept, driver, _, _ in seen} == {(buffer, "vfio-pci")}
    assert [state for *_, state in seen[:2]] == ["running", "running"]
    assert {(vms, state) for _, _, vms, state in seen[2:]} == {(frozenset({"web"}), "stabilising")}
    assert house.libvirt.current == MAXIMUM and house.sidecar().drives == (DRIVE,)
    assert house.table.kept_mib() == 0 and house.settling.vms() == frozenset()


def test_a_repeat_finds_it_done(house: House) -> None:
    """DISK-02: also when there is no memory left for another attach."""
    assert house.attach()
    house.physical_mib = 1024
    assert not house.attach()
    assert house.libvirt.asked.count("attach") == 1 and house.sidecar().drives == (DRIVE,)


@pytest.mark.parametrize("fails", ["bind", "attach"])
def test_a_failure_gives_everything_back(house: House, fails: str) -> None:
    """DISK-03: buffer, drive and what the sidecar says."""
    before = house.sidecar()
    house.libvirt.fails = fails
    if fails == "bind":
        (house.sysfs.drivers / "nvme/unbind").mkdir()
    with pytest.raises(BindFailed if fails == "bind" else LibvirtFailed):
        house.attach()
    assert house.override() == "\n" and house.sidecar() == before
    assert house.table.kept_mib() == 0 and house.settling.vms() == frozenset()


def test_what_libvirt_took_in_spite_of_an_error_stays(house: House) -> None:
    """DISK-02: a drive in use is never pulled from under its guest; a repeat ends it."""
    house.libvirt.fails, house.libvirt.takes_all_the_same = "attach", True
    with pytest.raises(LibvirtFailed):
        house.attach()
    assert house.override() == "vfio-pci" and house.sidecar().drives == (DRIVE,)
    assert house.table.kept_mib() == 0
    house.libvirt.fails = ""
    assert not house.attach() and house.libvirt.current == MAXIMUM


def test_memory_that_never_settles_is_said_and_the_drive_stays(house: House) -> None:
    """DISK-03."""

    def restless() -> None:
        house.libvirt.current = BALLOONED + int(house.time * 100)

    house.libvirt.on_ask = restless
    with pytest.raises(NotSettled):
        house.attach()
    assert house.sidecar().drives == (DRIVE,) and house.override() == "vfio-pci"
    assert house.table.kept_mib() == 0 and house.settling.vms() == frozenset()


def refused(house: House, vm: str = "web") -> str:
    """The code of a refusal, which changed nothing."""
    before = house.sidecar()
    with pytest.raises(Refusal) as refusal:
        house.attach(vm)
    assert house.sidecar() == before and house.override() == "(null)\n"
    assert house.libvirt.asked == [] and house.table.kept_mib() == 0
    return refusal.value.code


def test_without_an_iommu_nothing_is_changed(tmp_path: Path) -> None:
    """DISK-02."""
    assert refused(House(tmp_path, iommu=False)) == "iommu_missing"


def test_refusals_of_the_vm_change_nothing(house: House) -> None:
    """DISK-02, DISK-03: unknown, without room now or for good, not running."""
    assert refused(house, "other") == "vm_unknown"
    house.physical_mib = 512 + 2 * BALLOONED
    assert refused(house) == "memory_not_free"
    # Free now, but promised to one that is stopped.
    house.physical_mib = 8192
    house.others = (make_view(make_spec(name="big", state="stopped", memory_mib=6000)),)
    assert refused(house) == "memory_exhausted"
    house.others, house.state = (), "stopped"
    assert refused(house) == "vm_not_running"


@pytest.mark.parametrize("held", [DRIVE, TWIN])
def test_a_drive_of_another_vm_is_not_given_away(house: House, held: str) -> None:
    """DISK-02, HOST-18: nor one that shares its IOMMU group; also while that VM is stopped."""
    house.sysfs.add(TWIN, NVME, "vfio-pci", 7)
    spec = make_spec(name="db", state="stopped")
    house.others = (make_view(spec, drives=(held,)),)
    assert refused(house) == "drive_taken"


def test_a_detached_drive_is_the_nodes_again(house: House) -> None:
    """DISK-02: taken from the guest first."""
    house.attach()
    house.libvirt.on_ask = lambda: house.libvirt.asked.append(house.override())
    detach_drive(house.place())
    assert house.libvirt.asked[-2:] == ["vfio-pci", "detach"]
    assert house.override() == "\n" and house.sidecar().drives == ()
    with pytest.raises(Refusal) as unknown:
        detach_drive(house.place())
    assert unknown.value.code == "drive_unknown"


def test_a_guest_that_does_not_let_go_keeps_its_drive(house: House) -> None:
    house.attach()
    house.libvirt.fails = "detach"
    with pytest.raises(PpnError, match="detach failed"):
        detach_drive(house.place())
    assert house.sidecar().drives == (DRIVE,) and house.override() == "vfio-pci"


def test_a_stopped_vm_keeps_its_drive_until_it_is_detached(house: House) -> None:
    house.attach()
    house.libvirt.held.clear()
    house.state = "stopped"
    detach_drive(house.place())
    assert "detach" not in house.libvirt.asked and house.override() == "\n"


def test_kept_memory_is_nobody_elses() -> None:
    """DISK-03, HOST-17."""
    table = LockTable()
    with table.operation("web", "attach_nvme", "test-1234"):
        table.keep("web", 1000)
        assert (table.kept_mib(), table.kept_mib(besides="web")) == (1000, 0)
        node = make_node()
        left = with_buffer(node, table.kept_mib(besides="db")).pool
        assert node.pool.startable_mib - left.startable_mib == 1000
        assert node.pool.free_mib - left.free_mib == 1000
    assert table.kept_mib() == 0
    assert with_buffer(make_node(), 10**6).pool.startable_mib == 0


def test_others_are_admitted_without_what_is_kept(tmp_path: Path) -> None:
    """DISK-03, HOST-17: the VM it is kept for is not."""
    write_hardware(tmp_path, cores=8, memory_mib=8192)
    service = Service(Paths(tmp_path), on_change=lambda: None, report=dict)
    libvirt = cast(Backend, Libvirt())

    def startable(vm: str) -> int:
        spec = make_spec(name=vm)
        work = service._admit(vm, lambda node: Admitted(spec, node, lambda _: ()), libvirt)
        return work.node.pool.startable_mib

    with (
        service.table.operation("web", "attach_nvme", "test-1234"),
        service.table.operation("db", "spawn", "test-1234"),
    ):
        service.table.keep("web", 1000)
        assert startable("web") - startable("db") == 1000


def test_with_a_drive_all_memory_is_the_minimum(house: House) -> None:
    """BAL-10, DISK-03: what a drive may write to cannot be ballooned away."""
    grant = LedgerGrant(vm="web", weight=100, minimum_mib=256)
    unknown = Enforcement(enforced=False)

    def minimum() -> int:
        node = make_node()
        facts = NodeFacts(unknown, unknown, node.topology)
        reading = read_vm(house.paths, "web", domain=None, answers=True, grant=grant, node=facts)
        return reading.view.memory.minimum_mib

    assert minimum() == 256
    house.attach()
    assert minimum() == MAXIMUM
    for drives, wanted in (((), 256), ((DRIVE,), MAXIMUM)):
        node = make_node(make_view(SPEC, drives=drives), grants=(grant,))
        assert minimum_of(SPEC, node) == wanted
        later = after(node, SPEC).vm("web")
        assert later is not None and later.drives == drives
