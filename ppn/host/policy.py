"""What a node accepts: pure rules over its state, the same on the node and beside the inventory.

Memory is guarded twice. A VM's balloon minimum is promised for good, so the sum of all minimums
and the buffer must fit the physical memory, whether the VMs run or not. A VM starts with its
balloon empty and may touch all its memory, so a VM that is to start must fit, whole, into what
is free at that moment; afterwards the balloon may take it down to its minimum.
"""

from __future__ import annotations

from collections.abc import Iterator

from ppn.errors import Refusal
from ppn.host.model import IN_TRANSIT, Image, NodeState, Phase, VmView
from ppn.host.network import network_refusals
from ppn.host.plan import MIB_PER_GIB, Action, ActionKind, plan, wanted_disks
from ppn.host.spec import VmSpec

__all__ = [
    "Action",
    "ActionKind",
    "admit",
    "in_transit",
    "is_silent",
    "plan",
    "refusals",
    "silent",
    "silent_hint",
]


def admit(spec: VmSpec, node: NodeState, *, minimum_mib: int | None = None) -> None:
    """Refuse a VM that this node cannot or may not make so; change nothing.

    Args:
        spec: the VM as it shall be.
        node: the node as it is.
        minimum_mib: balloon minimum the ledger is about to give it; read from `node` when None.

    Raises:
        Refusal: the first constraint that binds, with its numbers.
    """
    for refusal in refusals(spec, node, minimum_mib=minimum_mib):
        raise refusal


def refusals(spec: VmSpec, node: NodeState, *, minimum_mib: int | None = None) -> Iterator[Refusal]:
    """Every constraint that keeps this node from making the VM so, the most basic first."""
    yield from _name(spec, node)
    actual = node.vm(spec.name)
    if actual is not None and actual.phase in IN_TRANSIT:
        yield in_transit(spec.name, actual.phase)
    if spec.state == "absent":
        return
    if actual is not None and is_silent(actual, node):
        yield silent(spec.name)
    if not plan(spec, actual):
        return
    yield from _knowledge(spec, actual)
    if actual is not None and actual.phase == "ready":
        yield from _change(spec, actual)
    known = actual.spec if actual is not None and actual.phase == "ready" else None
    starting = spec.state == "running" and (actual is None or actual.state != "running")
    changed = known is None or known.digest() != spec.digest()
    if starting or changed:
        yield from _ledger(spec, node)
        yield from _image(spec, node)
    if changed:
        yield from _shape(spec, node)
        yield from _cpu_sum(spec, node, actual)
        yield from _promised_memory(spec, node, actual, minimum_mib)
        yield from _disk_room(spec, node, actual)
        yield from network_refusals(spec, node, actual)
    if starting:
        yield from _free_memory(spec, node)


def in_transit(vm: str, phase: Phase) -> Refusal:
    """The refusal of everything that is asked of a VM between two nodes (MIG-01)."""
    return Refusal(
        f"vm {vm} is {phase}: it is between two nodes",
        code="vm_moving",
        constraint="one node for a VM",
        hint="ask again once the move has ended (ppn vm move shows how far it is)",
    )


def is_silent(vm: VmView, node: NodeState) -> bool:
    """Whether libvirt answers and a VM's QEMU does not answer libvirt."""
    return vm.state == "unknown" and node.libvirt.ok


def silent(vm: str) -> Refusal:
    """The refusal of everything but its end that is asked of a VM whose QEMU does not answer."""
    return Refusal(
        f"vm {vm}: its QEMU does not answer libvirt",
        code="qemu_silent",
        constraint="QEMU",
        hint=silent_hint(vm),
    )


def silent_hint(vm: str) -> str:
    """What to do about a VM whose QEMU does not answer."""
    return (
        f"kill the process of /run/libvirt/qemu/{vm}.pid on the node, then start the vm;"
        " or destroy the vm"
    )


def minimum_of(spec: VmSpec, node: NodeState) -> int:
    """The VM's balloon minimum in MiB: the ledger's, or all its memory.

    It is all when the ledger has no entry, or a drive of the node is the VM's own.
    """
    grant, actual = node.ledger.grant(spec.name), node.vm(spec.name)
    if grant is None or (actual is not None and actual.drives):
        return spec.memory_mib
    return grant.minimum_mib


def _name(spec: VmSpec, node: NodeState) -> Iterator[Refusal]:
    if not node.libvirt.ok:
        error = node.libvirt.error
        yield Refusal(
            f"vm {spec.name}: libvirt does not answer: {error.message if error else 'no reason'}",
            code="libvirt_unavailable",
            constraint="libvirt",
            hint="start libvirt on the node and run again",
        )
    for other in node.unmanaged:
        if other.name == spec.name:
            yield Refusal(
                f"vm {spec.name}: a {other.kind} of that name came another way",
                code="name_taken",
                constraint="VM name",
                hint=f"remove that {other.kind} by hand or choose another name",
            )


def _knowledge(spec: VmSpec, actual: VmView | None) -> Iterator[Refusal]:
    if actual is not None and actual.sidecar != "ok":
        yield Refusal(
            f"vm {spec.name}: its sidecar is {actual.sidecar}, so what it was cannot be known",
            code=f"sidecar_{actual.sidecar}",
            constraint="VM sidecar",
            hint="put the sidecar back, or declare the vm absent, which removes its disks",
        )


def _change(spec: VmSpec, actual: VmView) -> Iterator[Refusal]:
    was = actual.spec
    if was is None:
        return
    for field, old, new in (
        ("owner", was.owner, spec.owner),
        ("image", was.image, spec.image),
    ):
        if old != new:
            yield Refusal(
                f"vm {spec.name}: its {field} is {old} and cannot become {new}",
                code=f"{field}_fixed",
                constraint=f"VM {field}",
                hint="declare the vm absent first, or choose another name",
            )
    yield from _live_change(spec, was, actual)
    yield from _disk_change(spec, was, actual)


def _live_change(spec: VmSpec, was: VmSpec, actual: VmView) -> Iterator[Refusal]:
    if actual.state != "running" or spec.state != "running":
        return
    for field in ("vcpus", "memory_mib", "cmdline_extra"):
        old, new = getattr(was, field), getattr(spec, field)
        if old != new:
            yield Refusal(
                f"vm {spec.name}: {field} cannot go from {old!r} to {new!r} while it runs",
                code="vm_running",
                constraint=f"VM {field}",
                hint="apply it once with state stopped, then with state running",
            )


def _disk_change(spec: VmSpec, was: VmSpec, actual: VmView) -> Iterator[Refusal]:
    wanted = dict(wanted_disks(spec))
    for name, _ in wanted_disks(was):
        present = actual.disk(name)
        if name not in wanted:
            yield Refusal(
                f"vm {spec.name}: disk {name} is no longer declared; its data would be lost",
                code="disk_undeclared",
                constraint="VM disks",
                hint="declare the disk again, or detach it first (ppn host detach)",
            )
        elif present is None:
            yield Refusal(
                f"vm {spec.name}: the file of disk {name} is gone; an empty one is no replacement",
                code="disk_lost",
                constraint="VM disks",
                hint="put the file back, or declare the vm absent",
            )
    for name, size_gib in wanted.items():
        present = actual.disk(name)
        # Also of a disk that was kept when it was detached.
        if present is not None and present.size_mib > size_gib * MIB_PER_GIB:
            yield Refusal(
                f"vm {spec.name}: disk {name} cannot shrink",
                code="disk_shrinks",
                constraint=f"disk {name}",
                wanted=size_gib,
                free=present.size_mib // MIB_PER_GIB,
                unit="GiB",
                hint="declare at least its present size",
            )


def _ledger(spec: VmSpec, node: NodeState) -> Iterator[Refusal]:
    if not node.ledger.ok:
        error = node.ledger.error
        yield Refusal(
            f"vm {spec.name}: the capability ledger is not usable:"
            f" {error.message if error else 'no reason'}",
            code="ledger_unusable",
            constraint="capability ledger",
            hint="install the operator's ledger again",
        )


def _image(spec: VmSpec, node: NodeState) -> Iterator[Refusal]:
    image = node.image(spec.image)
    if image is None:
        known = ", ".join(image.name for image in node.images) or "none"
        yield Refusal(
            f"vm {spec.name}: the node has no image {spec.image} (it has: {known})",
            code="image_unknown",
            constraint="guest images",
            hint="put the image on the node or name another one",
        )
        return
    yield from _image_fit(spec, image)


def _image_fit(spec: VmSpec, image: Image) -> Iterator[Refusal]:
    if spec.cmdline_extra and not image.direct_boot:
        yield Refusal(
            f"vm {spec.name}: image {image.name} boots its own kernel; cmdline_extra has no effect",
            code="cmdline_without_kernel",
            constraint="guest image",
            hint="leave cmdline_extra out",
        )
    if spec.disk_gib * MIB_PER_GIB < image.disk_mib:
        yield Refusal(
            f"vm {spec.name}: its root disk is smaller than image {image.name}",
            code="disk_below_image",
            constraint="root disk",
            wanted=spec.disk_gib,
            free=-(-image.disk_mib // MIB_PER_GIB),
            unit="GiB",
            hint="declare at least the image's size",
        )


def _shape(spec: VmSpec, node: NodeState) -> Iterator[Refusal]:
    largest = node.topology.largest_socket
    if spec.vcpus > largest:
        yield Refusal(
            f"vm {spec.name}: more vCPUs than the largest socket has cores",
            code="vcpus_exceed_socket",
            constraint="cores of the largest socket",
            wanted=spec.vcpus,
            free=largest,
            unit="vCPU",
            hint="ask for fewer vCPUs",
        )
    if spec.vcpus % 2 and not node.settings.allow_odd_vcpus:
        yield Refusal(
            f"vm {spec.name}: odd vCPU counts are not allowed on this node",
            code="vcpus_odd",
            constraint="even vCPU count",
            wanted=spec.vcpus,
            free=spec.vcpus + 1,
            unit="vCPU",
            hint="ask for an even count, or set allow_odd_vcpus for the node",
        )
    most = node.pool.physical_mib - node.pool.reserved_mib
    if spec.memory_mib > most:
        yield Refusal(
            f"vm {spec.name}: more memory than the node has beyond its buffer",
            code="memory_exceeds_node",
            constraint="physical memory",
            wanted=spec.memory_mib,
            free=most,
            unit="MiB",
            hint="ask for less memory or choose a larger node",
        )


def _cpu_sum(spec: VmSpec, node: NodeState, actual: VmView | None) -> Iterator[Refusal]:
    own = actual.spec.vcpus if actual is not None and actual.spec is not None else 0
    free = node.pool.vcpus - node.pool.vcpu_buffer - (node.pool.vcpus_allocated - own)
    if spec.vcpus > max(free, own):
        yield Refusal(
            f"vm {spec.name}: not enough vCPUs left on the node",
            code="vcpus_exhausted",
            constraint="CPUs less buffer less all VMs",
            wanted=spec.vcpus,
            free=max(free, 0),
            unit="vCPU",
            hint="ask for fewer vCPUs or choose another node",
        )


def _promised_memory(
    spec: VmSpec, node: NodeState, actual: VmView | None, minimum_mib: int | None
) -> Iterator[Refusal]:
    minimum = minimum_of(spec, node) if minimum_mib is None else minimum_mib
    if minimum > spec.memory_mib:
        yield Refusal(
            f"vm {spec.name}: its balloon minimum is more than its memory",
            code="minimum_exceeds_memory",
            constraint="balloon minimum",
            wanted=minimum,
            free=spec.memory_mib,
            unit="MiB",
            hint="lower the minimum in the ledger or raise memory_mib",
        )
    own = actual.memory.minimum_mib if actual is not None else 0
    free = node.pool.available_mib + own - node.pool.reserved_mib
    if minimum > max(free, own):
        yield Refusal(
            f"vm {spec.name}: its balloon minimum does not fit the memory pool",
            code="memory_exhausted",
            constraint="physical memory less all minimums less buffer",
            wanted=minimum,
            free=max(free, 0),
            unit="MiB",
            hint="ask for less, lower the minimum in the ledger, or choose another node",
        )


def _free_memory(spec: VmSpec, node: NodeState) -> Iterator[Refusal]:
    if spec.memory_mib > node.pool.startable_mib:
        yield Refusal(
            f"vm {spec.name}: not enough free memory to start it",
            code="memory_not_free",
            constraint="memory free now",
            wanted=spec.memory_mib,
            free=max(node.pool.startable_mib, 0),
            unit="MiB",
            hint="take memory from other VMs (ppn host balloon), stop one, or choose another node",
        )


def _disk_room(spec: VmSpec, node: NodeState, actual: VmView | None) -> Iterator[Refusal]:
    growth = 0
    for name, size_gib in wanted_disks(spec):
        present = actual.disk(name) if actual is not None else None
        growth += max(size_gib * MIB_PER_GIB - (present.size_mib if present else 0), 0)
    free = node.disk.free_mib - node.disk.promised_mib
    if growth > 0 and growth > free:
        yield Refusal(
            f"vm {spec.name}: not enough disk left on the node",
            code="disk_exhausted",
            constraint="free disk less what disks may still grow by",
            wanted=growth,
            free=max(free, 0),
            unit="MiB",
            hint="ask for smaller disks or choose another node",
        )
