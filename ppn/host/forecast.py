"""What a node will be once a VM is made so: lets several declarations be judged before any is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ppn.errors import Refusal
from ppn.host.lease import Lease
from ppn.host.model import (
    DiskPool,
    Enforcement,
    Image,
    Kvm,
    LedgerStatus,
    LibvirtStatus,
    NodeState,
    Pins,
    Pool,
    Settings,
    Topology,
    VmDisk,
    VmMemory,
    VmPinning,
    VmView,
    VmWeight,
)
from ppn.host.network import choose_lease, lease_wanted, node_network
from ppn.host.numa import choose_pins
from ppn.host.plan import MIB_PER_GIB, wanted_disks
from ppn.host.policy import minimum_of
from ppn.host.spec import VmSpec


def blank_node(
    settings: Settings, topology: Topology, disk: DiskPool, images: tuple[Image, ...]
) -> NodeState:
    """A node on which nothing of ppn is installed yet, as the hypervisor role will leave it."""
    return NodeState(
        settings=settings,
        boot_id="",
        libvirt=LibvirtStatus(ok=True),
        kvm=Kvm(usable=False, reason="not probed yet"),
        topology=topology,
        cpu_weight=Enforcement(enforced=False, reason="not known yet"),
        ledger=LedgerStatus(ok=True),
        pool=Pool(
            physical_mib=topology.memory_mib,
            available_mib=topology.memory_mib,
            free_mib=topology.memory_mib,
            startable_mib=topology.memory_mib - settings.memory_buffer_mib,
            reserved_mib=settings.memory_buffer_mib,
            vcpus=topology.cpus,
            vcpu_buffer=settings.vcpu_buffer,
            vcpus_allocated=0,
        ),
        disk=disk,
        network=node_network(settings),
        images=images,
    )


def after(node: NodeState, spec: VmSpec, pins: Pins | None = None) -> NodeState:
    """The node once an admitted VM is as its spec says.

    Args:
        node: the node before, with the ledger that will be in force.
        spec: a VM that `admit` accepts on that node.
        pins: the CPUs it was given; what it would be given now when None.
    """
    before = node.vm(spec.name)
    others = tuple(vm for vm in node.vms if vm.name != spec.name)
    view = () if spec.state == "absent" else (_view(spec, node, pins or choose_pins(spec, node)),)
    freed = _held(before)
    taken = _held(view[0]) if view else 0
    pool = node.pool.model_copy(
        update={
            "available_mib": node.pool.available_mib + _minimum(before) - sum(map(_minimum, view)),
            "free_mib": node.pool.free_mib + freed - taken,
            "startable_mib": node.pool.startable_mib + freed - taken,
            "vcpus_allocated": node.pool.vcpus_allocated - _vcpus(before) + sum(map(_vcpus, view)),
        }
    )
    growth = sum(map(_promised, view)) - _promised(before)
    disk = node.disk.model_copy(update={"promised_mib": node.disk.promised_mib + growth})
    return node.model_copy(update={"pool": pool, "disk": disk, "vms": (*others, *view)})


def with_in_flight(node: NodeState, specs: Iterable[VmSpec]) -> NodeState:
    """The node with what changes in flight will take counted as taken already (HOST-17).

    What they will give back is still theirs: each figure is the worse of before and after. A
    change whose effect shows in the state already is not counted twice.

    Args:
        node: the node as it was read after the changes were listed.
        specs: the VMs in flight as they shall be.
    """
    for spec in specs:
        if spec.state != "absent":
            later = after(node, spec)
            node = later.model_copy(
                update={"pool": _worse(node.pool, later.pool), "disk": _fuller(node, later)}
            )
    return node


def with_buffer(node: NodeState, mib: int) -> NodeState:
    """The node with memory in MiB that is kept for a while counted as taken (DISK-03)."""
    pool = node.pool
    left = {
        "free_mib": max(pool.free_mib - mib, 0),
        "startable_mib": max(pool.startable_mib - mib, 0),
    }
    return node.model_copy(update={"pool": pool.model_copy(update=left)})


def with_pins(node: NodeState, held: Mapping[str, Pins], besides: str) -> NodeState:
    """The node as the detailed section of the lock table knows it, for choosing CPUs.

    Args:
        node: the node as it was read.
        held: which CPUs each VM holds by now.
        besides: the VM they are chosen for, whose own stay as they were read.
    """
    vms = {
        vm.name: vm
        if vm.name == besides
        else vm.model_copy(update={"pinning": VmPinning(wanted=held.get(vm.name))})
        for vm in node.vms
    }
    for name, pins in held.items():
        if name not in vms and name != besides:
            # Made since the node was read: of it, its CPUs alone matter here.
            vms[name] = VmView(
                name=name,
                state="unknown",
                memory=VmMemory(maximum_mib=0, minimum_mib=0),
                weight=VmWeight(wanted=0),
                pinning=VmPinning(wanted=pins),
                sidecar="missing",
            )
    return node.model_copy(update={"vms": tuple(vms.values())})


def _worse(before: Pool, later: Pool) -> Pool:
    return later.model_copy(
        update={
            "available_mib": min(before.available_mib, later.available_mib),
            "free_mib": min(before.free_mib, later.free_mib),
            "startable_mib": min(before.startable_mib, later.startable_mib),
            "vcpus_allocated": max(before.vcpus_allocated, later.vcpus_allocated),
        }
    )


def _fuller(before: NodeState, later: NodeState) -> DiskPool:
    promised = max(before.disk.promised_mib, later.disk.promised_mib)
    return later.disk.model_copy(update={"promised_mib": promised})


def _lease(spec: VmSpec, node: NodeState) -> Lease | None:
    before = node.vm(spec.name)
    own = before.lease if before is not None else None
    if node.network is None or (before is not None and not lease_wanted(spec, own)):
        return own
    others = [vm.lease for vm in node.vms if vm.name != spec.name and vm.lease is not None]
    try:
        return choose_lease(spec, node.network, others, own)
    except Refusal:
        # What could be had when it was admitted cannot any more: its creation will say so.
        return own


def _view(spec: VmSpec, node: NodeState, pins: Pins | None) -> VmView:
    before = node.vm(spec.name)
    declared = {name for name, _ in wanted_disks(spec)}
    kept = [disk for disk in before.disks if disk.name not in declared] if before else []
    running = spec.state == "running"
    return VmView(
        name=spec.name,
        spec=spec,
        state="running" if running else "stopped",
        phase="ready",
        digest=spec.digest(),
        seed=True,
        memory=VmMemory(
            maximum_mib=spec.memory_mib,
            current_mib=spec.memory_mib if running else None,
            minimum_mib=minimum_of(spec, node),
        ),
        weight=VmWeight(wanted=0),
        pinning=VmPinning(wanted=pins),
        disks=(
            *(
                VmDisk(name=name, size_mib=size_gib * MIB_PER_GIB, attached=True)
                for name, size_gib in wanted_disks(spec)
            ),
            *(disk.model_copy(update={"attached": False, "detached": True}) for disk in kept),
        ),
        lease=_lease(spec, node),
        drives=before.drives if before is not None else (),
        sidecar="ok",
    )


def _held(vm: VmView | None) -> int:
    """Memory in MiB that a VM holds now."""
    return (vm.memory.current_mib or 0) if vm is not None and vm.state == "running" else 0


def _minimum(vm: VmView | None) -> int:
    return vm.memory.minimum_mib if vm is not None else 0


def _vcpus(vm: VmView | None) -> int:
    return vm.spec.vcpus if vm is not None and vm.spec is not None else 0


def _promised(vm: VmView | None) -> int:
    return sum(disk.size_mib for disk in vm.disks) if vm is not None else 0
