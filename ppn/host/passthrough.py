"""Whether a VM may have a drive of its node for itself: pure rules (DISK-02, DISK-03)."""

from __future__ import annotations

from ppn.errors import Refusal
from ppn.host.model import NodeState, VmView
from ppn.host.nvme import Drive, admit_passthrough
from ppn.host.settle import admit_buffer


def admit_drive(vm: VmView, drive: Drive, node: NodeState) -> int:
    """The memory in MiB to reserve before a drive is given to a VM; change nothing.

    Args:
        vm: the VM as it is.
        drive: what it asks for.
        node: the node as it is, with what others are about to take.

    Raises:
        Refusal: the drive may not be given away, or the VM may not have it.
    """
    _check_holders(vm, drive, node)
    admit_passthrough(drive)
    if vm.phase != "ready":
        raise Refusal(
            f"vm {vm.name}: it is only half made",
            code="vm_creating",
            constraint="VM drives",
            hint="apply it again first",
        )
    buffer_mib = admit_buffer(vm, node)
    _check_promise(vm, node)
    return buffer_mib


def held_drive(vm: VmView, address: str) -> VmView:
    """The VM, if the drive is its own; change nothing.

    Raises:
        Refusal: `drive_unknown`.
    """
    if address in vm.drives:
        return vm
    raise Refusal(
        f"vm {vm.name} has no drive {address} (it has: {', '.join(vm.drives) or 'none'})",
        code="drive_unknown",
        constraint="VM drives",
        hint="name one it has",
    )


def _check_holders(vm: VmView, drive: Drive, node: NodeState) -> None:
    for other in node.vms:
        if other.name != vm.name and (shared := drive.addresses & set(other.drives)):
            address, held = drive.function.address, min(shared)
            what = "it" if held == address else f"{held} of its IOMMU group"
            raise Refusal(
                f"PCI device {address}: vm {other.name} has {what}",
                code="drive_taken",
                constraint="passthrough",
                hint="detach it from that vm, or name another drive",
            )


def _check_promise(vm: VmView, node: NodeState) -> None:
    """With a drive all of a VM's memory is its minimum, and promised for good."""
    memory = vm.memory
    free = node.pool.available_mib + memory.minimum_mib - node.pool.reserved_mib
    if memory.maximum_mib > max(free, memory.minimum_mib):
        raise Refusal(
            f"vm {vm.name}: with a drive it can give no memory back, and all of it does not fit",
            code="memory_exhausted",
            constraint="physical memory less all minimums less buffer",
            wanted=memory.maximum_mib,
            free=max(free, 0),
            unit="MiB",
            hint="destroy other VMs, or give it less memory",
        )
