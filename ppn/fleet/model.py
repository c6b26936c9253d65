"""What placement reads: a node as it may be used, and a VM as it is wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ppn.host.addresses import places
from ppn.host.plan import MIB_PER_GIB
from ppn.host.spec import Disk
from ppn.wire.fleet import PolicyName, VmOrder
from ppn.wire.heartbeat import Heartbeat, VmReport

# Memory in MiB that placement leaves on every node, for what the node itself needs suddenly.
MARGIN_MIB = 512
# Shares are whole millionths, so that two controllers never differ by rounding.
WHOLE = 1_000_000

# An owner and a label of theirs.
Label = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Demand:
    """What a VM needs of a node, and where its owner wants it.

    Args:
        owner: whose it is.
        image: the guest image the node must have.
        vcpus: virtual CPUs.
        memory_mib: memory in MiB.
        root_gib: root disk in GiB; at least the image's size.
        disk_mib: most that all its disks can grow to, in MiB.
        label: its own label; empty without one.
        affinity: only nodes that hold a VM of this owner with this label; empty for any.
        anti_affinity: only nodes that hold none of this owner with this label; empty for any.
        kvm: nodes with usable KVM first.
        network: it needs the node's VM network, for a port of it is to be reached.
        policy: how to choose between nodes that fit.
    """

    owner: str
    image: str
    vcpus: int
    memory_mib: int
    root_gib: int
    disk_mib: int
    label: str = ""
    affinity: str = ""
    anti_affinity: str = ""
    kvm: bool = True
    network: bool = False
    policy: PolicyName = "spread"


class NodeView(NamedTuple):
    """What may still be placed on a node: what it reported, less what was placed there since.

    A tuple, for one is made, and compared with the one before, for every heartbeat.

    Args:
        name: the node.
        reserved: a candidate only when no other node fits.
        kvm: guests run under KVM.
        allow_odd: VMs with an odd vCPU count are accepted.
        largest_socket: most vCPUs one VM may have.
        vcpus: CPUs that VMs may have in all, the node's buffer taken off.
        free_vcpus: of these, still free.
        memory_mib: memory that VMs may have in all, the node's buffer taken off.
        free_memory_mib: of this, still free, the placement margin taken off.
        disk_mib: disk in all.
        free_disk_mib: still free, what disks may grow by taken off.
        images: guest images by name, with the least root disk in MiB of each.
        labels: those its VMs have.
        addresses: free addresses of its VM network; None when it has no VM network.
    """

    name: str
    reserved: bool
    kvm: bool
    allow_odd: bool
    largest_socket: int
    vcpus: int
    free_vcpus: int
    memory_mib: int
    free_memory_mib: int
    disk_mib: int
    free_disk_mib: int
    images: Mapping[str, int]
    labels: frozenset[Label] = frozenset()
    addresses: int | None = None

    @property
    def share(self) -> int:
        """Of its fullest resource, in millionths: what placement policies rank by."""
        return max(
            used_share(self.vcpus, self.free_vcpus),
            used_share(self.memory_mib, self.free_memory_mib + MARGIN_MIB),
            used_share(self.disk_mib, self.free_disk_mib),
        )


def used_share(whole: int, free: int) -> int:
    """How much of a resource is used, in millionths; all of it when there is none."""
    if whole <= 0 or free <= 0:
        return WHOLE
    return max(whole - free, 0) * WHOLE // whole


def disks_mib(root_gib: int, disks: Iterable[Disk]) -> int:
    """The most that a VM's disks can grow to, in MiB."""
    return MIB_PER_GIB * (root_gib + sum(disk.size_gib for disk in disks))


def demand_of(order: VmOrder) -> Demand:
    """What an order needs of a node."""
    return Demand(
        owner=order.owner,
        image=order.image,
        vcpus=order.vcpus,
        memory_mib=order.memory_mib,
        root_gib=order.disk_gib,
        disk_mib=disks_mib(order.disk_gib, order.disks),
        label=order.label,
        affinity=order.affinity,
        anti_affinity=order.anti_affinity,
        kvm=order.kvm,
        network=bool(order.ports),
        policy=order.policy,
    )


def view_of(
    heartbeat: Heartbeat, placed: Sequence[Demand] = (), gone: Sequence[VmReport] = ()
) -> NodeView:
    """A node as it may be used now.

    Args:
        heartbeat: the newest of the node.
        placed: VMs placed there that the heartbeat does not count yet.
        gone: VMs destroyed there that the heartbeat still counts.
    """
    pool, disk, network = heartbeat.pool, heartbeat.disk, heartbeat.network
    vms: Sequence[VmReport] = heartbeat.vms
    vcpus = pool.vcpus - pool.vcpu_buffer
    free_vcpus = vcpus - pool.vcpus_allocated
    # What is promised for good, and what is there: a VM counts against both.
    promised = pool.available_mib - pool.reserved_mib
    startable = pool.startable_mib
    free_disk = disk.free_mib - disk.promised_mib
    if gone:
        lost = {vm.id for vm in gone}
        vms = [vm for vm in vms if vm.id not in lost]
        free_vcpus += sum(vm.vcpus for vm in gone)
        promised += sum(vm.minimum_mib for vm in gone)
        startable += sum(vm.current_mib or 0 for vm in gone)
        free_disk += sum(disks_mib(vm.disk_gib, vm.disks) for vm in gone)
    labels = {(vm.owner, vm.label) for vm in vms if vm.label}
    addresses = {vm.address for vm in vms if vm.address is not None}
    for demand in placed:
        free_vcpus -= demand.vcpus
        promised -= demand.memory_mib
        startable -= demand.memory_mib
        free_disk -= demand.disk_mib
        if demand.label:
            labels.add((demand.owner, demand.label))
    return NodeView(
        name=heartbeat.node,
        reserved=heartbeat.reserved,
        kvm=heartbeat.kvm.usable,
        allow_odd=heartbeat.allow_odd_vcpus,
        largest_socket=heartbeat.topology.largest_socket,
        vcpus=vcpus,
        free_vcpus=free_vcpus,
        memory_mib=pool.physical_mib - pool.reserved_mib,
        free_memory_mib=min(promised, startable) - MARGIN_MIB,
        disk_mib=disk.total_mib,
        free_disk_mib=free_disk,
        images={image.name: image.disk_mib for image in heartbeat.images},
        labels=frozenset(labels),
        addresses=places(network.range) - len(addresses) - len(placed) if network else None,
    )
