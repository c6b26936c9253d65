"""Specs and node states for the tests of pure code."""

from __future__ import annotations

from typing import Any

from ppn.host.model import (
    DiskPool,
    Enforcement,
    Image,
    Kvm,
    LedgerGrant,
    LedgerStatus,
    LibvirtStatus,
    NodeState,
    Pool,
    Settings,
    Socket,
    Topology,
    VmDisk,
    VmMemory,
    VmView,
    VmWeight,
)
from ppn.host.plan import MIB_PER_GIB, wanted_disks
from ppn.host.spec import VmSpec, spec_from_data

UUID = "3b5d1f0e-6d0a-4d5c-9f0e-0123456789ab"


def make_spec(**fields: Any) -> VmSpec:
    """A valid spec, with the given fields in place of the usual ones."""
    usual = {"name": "web", "image": "tiny", "vcpus": 2, "memory_mib": 512, "disk_gib": 1}
    return spec_from_data(usual | fields)


def make_view(spec: VmSpec, **fields: Any) -> VmView:
    """A VM that is what its spec says, with the given fields in place of the usual ones."""
    running = spec.state == "running"
    usual: dict[str, Any] = {
        "name": spec.name,
        "spec": spec,
        "uuid": UUID,
        "state": spec.state,
        "phase": "ready",
        "digest": spec.digest(),
        "seed": True,
        "accelerator": "tcg",
        "memory": VmMemory(
            maximum_mib=spec.memory_mib,
            minimum_mib=spec.memory_mib,
            current_mib=spec.memory_mib if running else None,
        ),
        "weight": VmWeight(wanted=100),
        "disks": tuple(
            VmDisk(name=name, size_mib=size * MIB_PER_GIB, attached=running)
            for name, size in wanted_disks(spec)
        ),
        "sidecar": "ok",
    }
    return VmView(**(usual | fields))


def make_node(
    *vms: VmView,
    cpus: int = 8,
    cores: int | None = None,
    physical_mib: int = 8192,
    buffer_mib: int = 512,
    free_mib: int | None = None,
    free_disk_mib: int = 100 * MIB_PER_GIB,
    grants: tuple[LedgerGrant, ...] = (),
    **fields: Any,
) -> NodeState:
    """A node with one socket and the image `tiny`, its pool figures summed over its VMs."""
    held = sum(vm.memory.current_mib or 0 for vm in vms)
    there = physical_mib - held if free_mib is None else free_mib
    settings = fields.pop("settings", Settings(memory_buffer_mib=buffer_mib))
    usual: dict[str, Any] = {
        "settings": settings,
        "boot_id": "b",
        "libvirt": LibvirtStatus(ok=True),
        "kvm": Kvm(usable=False, reason="test", probed=True),
        "topology": Topology(
            cpus=cpus,
            sockets=(Socket(id=0, cpus=tuple(range(cpus)), cores=cores or cpus),),
            memory_mib=physical_mib,
        ),
        "cpu_weight": Enforcement(enforced=True),
        "ledger": LedgerStatus(ok=True, grants=grants),
        "pool": Pool(
            physical_mib=physical_mib,
            available_mib=physical_mib - sum(vm.memory.minimum_mib for vm in vms),
            free_mib=there,
            startable_mib=max(min(there, physical_mib - buffer_mib - held), 0),
            reserved_mib=buffer_mib,
            vcpus=cpus,
            vcpu_buffer=settings.vcpu_buffer,
            vcpus_allocated=sum(vm.spec.vcpus for vm in vms if vm.spec is not None),
        ),
        "disk": DiskPool(total_mib=free_disk_mib, free_mib=free_disk_mib, promised_mib=0),
        "images": (Image(name="tiny", digest="0", direct_boot=True),),
        "vms": vms,
    }
    return NodeState(**(usual | fields))
