"""Nodes, heartbeats and demands for the tests of the fleet controller."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from zlib import crc32

from ppn.fleet.index import Index
from ppn.fleet.model import MARGIN_MIB, Demand, NodeView
from ppn.host.model import DiskPool, Image, Kvm, Pool, Socket, Topology
from ppn.host.plan import MIB_PER_GIB
from ppn.wire.heartbeat import Heartbeat, VmNetwork, VmReport

SESSION = "0" * 32
DEMAND = Demand(
    owner="acme",
    image="tiny",
    vcpus=2,
    memory_mib=1024,
    root_gib=10,
    disk_mib=10 * MIB_PER_GIB,
    kvm=False,
)
NODE = NodeView(
    name="node",
    reserved=False,
    kvm=False,
    allow_odd=False,
    largest_socket=16,
    vcpus=16,
    free_vcpus=16,
    memory_mib=32768,
    free_memory_mib=32768 - MARGIN_MIB,
    disk_mib=1000 * MIB_PER_GIB,
    free_disk_mib=1000 * MIB_PER_GIB,
    images={"tiny": 1024},
    addresses=253,
)


def demand(**fields: Any) -> Demand:
    """What a small VM needs, with the given fields in place of the usual ones."""
    return replace(DEMAND, **fields)


def node(name: str = "node", **fields: Any) -> NodeView:
    """An empty node, with the given fields in place of the usual ones."""
    return NODE._replace(name=name, **fields)


def index_of(*nodes: NodeView) -> Index:
    """An index of these nodes."""
    index = Index()
    for view in nodes:
        index.put(view)
    return index


def report(vm: str = "web", **fields: Any) -> VmReport:
    """A running VM with 2 vCPUs and 1 GiB, with the given fields in place of the usual ones."""
    usual: dict[str, Any] = {
        "id": vm,
        "owner": "acme",
        "state": "running",
        "uuid": vm,
        "image": "tiny",
        "vcpus": 2,
        "memory_mib": 1024,
        "current_mib": 1024,
        "minimum_mib": 1024,
        "disk_gib": 10,
        "address": f"10.9.2.{2 + crc32(vm.encode()) % 250}",
    }
    return VmReport(**(usual | fields))


def heartbeat(
    name: str = "node",
    *vms: VmReport,
    sequence: int = 1,
    cpus: int = 16,
    physical_mib: int = 32768,
    buffer_mib: int = 512,
    **fields: Any,
) -> Heartbeat:
    """What a node with one socket says of itself, its figures summed over its VMs."""
    held = sum(vm.current_mib or 0 for vm in vms)
    disks = sum(vm.disk_gib for vm in vms) * MIB_PER_GIB
    usual: dict[str, Any] = {
        "node": name,
        "session": SESSION,
        "sequence": sequence,
        "reserved": False,
        "kvm": Kvm(usable=False, reason="no /dev/kvm", probed=True),
        "topology": Topology(
            cpus=cpus,
            sockets=(Socket(id=0, cpus=tuple(range(cpus)), cores=cpus),),
            memory_mib=physical_mib,
        ),
        "pool": Pool(
            physical_mib=physical_mib,
            available_mib=physical_mib - sum(vm.minimum_mib for vm in vms),
            free_mib=physical_mib - held,
            startable_mib=physical_mib - held - buffer_mib,
            reserved_mib=buffer_mib,
            vcpus=cpus,
            vcpu_buffer=0,
            vcpus_allocated=sum(vm.vcpus for vm in vms),
        ),
        "disk": DiskPool(
            total_mib=1000 * MIB_PER_GIB, free_mib=1000 * MIB_PER_GIB, promised_mib=disks
        ),
        "network": VmNetwork(range="10.9.2.0/24", first_port=30000, last_port=32767),
        "images": (Image(name="tiny", digest="0", disk_mib=1024),),
        "vms": vms,
    }
    return Heartbeat(**(usual | fields))
