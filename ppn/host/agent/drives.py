"""Gives a running VM a drive of the node for itself, and takes it back (DISK-02, DISK-03).

The VM's sidecar says that the drive is its own before anything is done to the drive: so no other
VM gets it, whoever dies on the way, and a later start of the VM has it again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Protocol

from ppn.host.agent.policy import known
from ppn.host.agent.settling import Guests, Settling, memory_mib
from ppn.host.agent.table import LockTable
from ppn.host.execute import DETACH_SECONDS
from ppn.host.model import NodeState, VmView
from ppn.host.nvme import bind, give_back, hostdev_xml, read_drive
from ppn.host.passthrough import admit_drive, held_drive
from ppn.host.paths import Paths
from ppn.host.settle import Stage
from ppn.host.sidecar import read_sidecar, write_sidecar


class Domains(Guests, Protocol):
    """What giving drives to VMs needs of libvirt; see `ppn.host.backend.Backend`."""

    def drives(self, name: str) -> frozenset[str]:
        """PCI addresses of the node's devices that a running domain has."""

    def attach(self, name: str, xml: str) -> None:
        """Give a running domain a device."""

    def detach(self, name: str, behind: str, *, deadline: float) -> None:
        """Take a device from a running domain, within so many seconds."""

    def set_memory(self, name: str, mib: int) -> None:
        """Move a running domain's balloon."""


@dataclass(frozen=True)
class Place:
    """Where a drive goes to, by the only one who changes that VM now.

    Args:
        vm: its name.
        address: of the drive.
        paths: the node's files.
        domains: a connection to libvirt.
        look: the node as it is, with what other operations will take counted as taken.
    """

    vm: str
    address: str
    paths: Paths
    domains: Domains
    look: Callable[[], NodeState]

    def view(self, node: NodeState) -> VmView:
        """The VM as it is.

        Raises:
            Refusal: not known, or without a readable sidecar.
        """
        return known(self.vm, node)

    def remember(self, *, own: bool) -> None:
        """Write into the VM's sidecar that the drive is its own, or no longer is."""
        file = self.paths.vm(self.vm).sidecar
        sidecar = read_sidecar(file)
        if sidecar is None:
            return
        others = tuple(drive for drive in sidecar.drives if drive != self.address)
        drives = (*others, self.address) if own else others
        if set(drives) != set(sidecar.drives):
            write_sidecar(file, sidecar.model_copy(update={"drives": drives}))

    def give_back(self) -> None:
        """Give the drive back to the node, and forget that it was the VM's."""
        sidecar = read_sidecar(self.paths.vm(self.vm).sidecar)
        held = sidecar.drives if sidecar is not None else ()
        kept = tuple(drive for drive in held if drive != self.address)
        give_back(self.paths.sysfs, self.address, kept=kept)
        self.remember(own=False)


@dataclass
class DriveAttachment:
    """One drive on its way to a VM: what `ppn.host.settle.attach_settled` carries out.

    Args:
        place: where it goes to.
        table: keeps the memory.
        settling: says that the VM is stabilising.
        on_stage: told of each stage.
    """

    place: Place
    table: LockTable
    settling: Settling
    on_stage: Callable[[Stage], None]
    changed: bool = False
    _stages: ExitStack = field(default_factory=ExitStack)

    @property
    def is_attached(self) -> bool:
        """Whether the running VM has the drive."""
        return self.place.address in self.place.domains.drives(self.place.vm)

    def reserve(self) -> None:
        """Admit the drive, keep the memory, and note whose the drive is, in one section.

        A drive that the VM has already needs neither.

        Raises:
            Refusal: see `ppn.host.passthrough.admit_drive`; nothing was changed.
        """
        place = self.place
        with self.table.aggregate.held():
            node = place.look()
            vm = place.view(node)
            if self.is_attached:
                return
            drive = read_drive(place.paths.sysfs, place.address, node.blocks)
            self.table.keep(place.vm, admit_drive(vm, drive, node))
            place.remember(own=True)

    def release(self) -> None:
        """Keep the memory no longer."""
        self.table.keep(self.place.vm, 0)

    def attach(self) -> None:
        """Bind the drive, attach it, and let the VM have all its memory; undone when it fails.

        Raises:
            PpnError: a step failed.
        """
        place, node = self.place, self.place.look()
        if not self.is_attached:
            with ExitStack() as undo:
                undo.callback(self._take_back)
                bind(place.paths.sysfs, place.address, node.blocks)
                place.domains.attach(place.vm, hostdev_xml(place.address))
                undo.pop_all()
            self.changed = True
        # All of it is in use now, whatever the balloon says: so let the guest have it.
        place.domains.set_memory(place.vm, place.view(node).memory.maximum_mib)

    def memory_mib(self) -> int:
        """What the VM has at this moment."""
        return memory_mib(self.place.domains, self.place.vm)

    def report(self, stage: Stage) -> None:
        """Note the stage; the VM is stabilising from then on until it is ready or has failed."""
        if stage is Stage.STABILISING:
            self.settling.add(self.place.vm)
            self._stages.callback(self.settling.remove, self.place.vm)
        if stage in (Stage.READY, Stage.FAILED):
            self._stages.close()
        else:
            self.on_stage(stage)

    def _take_back(self) -> None:
        """What libvirt has taken in spite of an error stays the VM's: a repeat ends it."""
        if not self.is_attached:
            self.place.give_back()


def detach_drive(place: Place) -> None:
    """Take a drive from a VM, running or not, and give it back to the node.

    A run that was killed converges when repeated.

    Args:
        place: where the drive is.

    Raises:
        Refusal: the VM is not known, or has no such drive.
        DiskHeld: the guest does not let go of it; it is the VM's still.
        PpnError: a step failed.
    """
    held_drive(place.view(place.look()), place.address)
    if place.address in place.domains.drives(place.vm):
        place.domains.detach(place.vm, place.address, deadline=DETACH_SECONDS)
    place.give_back()
