"""A node's agent in a few lines: what it holds, admits and says of itself.

Its admission is a model of `ppn.host.policy` and `ppn.host.forecast`, cheap enough to run 10^5
schedules; `test_schedules.py` shows that it decides and counts as they do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from random import Random
from typing import Literal, TypeVar

from pydantic import BaseModel

from ppn.fleet.model import Demand
from ppn.host.model import DiskPool, Image, Kvm, Pool, Socket, Topology
from ppn.wire.heartbeat import Heartbeat, VmNetwork, VmReport

Model = TypeVar("Model", bound=BaseModel)

BUFFER_MIB = 512
IMAGES = (Image(name="tiny", digest="0", disk_mib=1024),)
KVM = {usable: Kvm(usable=usable, reason="chance", probed=True) for usable in (True, False)}
TOPOLOGIES = {
    (cpus, memory): Topology(
        cpus=cpus,
        sockets=(Socket(id=0, cpus=tuple(range(cpus)), cores=cpus),),
        memory_mib=memory,
    )
    for cpus in (4, 8)
    for memory in (4096, 8192)
}
# What a node says of any VM that it makes, where VMs do not differ.
REPORT = VmReport(id="vm", owner="acme", state="creating", vcpus=0, memory_mib=0, minimum_mib=0)
NETWORK = VmNetwork(range="10.9.0.0/29", first_port=30000, last_port=30009)


class Vm:
    """A VM on a node; `creating` holds capacity like one that runs."""

    __slots__ = ("address", "demand", "id", "report", "state", "uuid")

    def __init__(self, vm: str, demand: Demand, address: str | None, uuid: str) -> None:
        self.id = vm
        self.demand = demand
        self.address = address
        self.uuid = uuid
        self.report = changed(
            REPORT,
            id=vm,
            owner=demand.owner,
            uuid=uuid,
            image=demand.image,
            label=demand.label,
            vcpus=demand.vcpus,
            memory_mib=demand.memory_mib,
            current_mib=demand.memory_mib,
            minimum_mib=demand.memory_mib,
            disk_gib=demand.root_gib,
            address=address,
        )
        self.state: Literal["creating", "running", "stopped"] = "creating"

    def become(self, state: Literal["running", "stopped"]) -> None:
        """Change its state, and what its node reports of it."""
        self.state = state
        self.report = changed(self.report, state=state)


@dataclass
class Agent:
    """One node.

    Args:
        number: of the node.
        random: its chance; also draws what hardware it has.
    """

    number: int
    random: Random
    vms: dict[str, Vm] = field(default_factory=dict)
    sequence: int = 0

    def __post_init__(self) -> None:
        random = self.random
        self.name = f"n{self.number}"
        self.address = IPv4Address(0x0A080001 + self.number)
        hardware = random.choice((4, 4, 8)), random.choice((4096, 8192))
        self.topology = TOPOLOGIES[hardware]
        self.disk_mib = random.choice((8, 64)) * 1024
        self.odd = random.random() < 0.5
        reserved, kvm, network = (random.random() < odds for odds in (0.3, 0.5, 0.5))
        self.begin()
        self.empty = empty_heartbeat(
            self.name, hardware, self.disk_mib, reserved, kvm, self.odd, network
        )

    def begin(self) -> None:
        """Start a session: no ticket of the one before is good any more."""
        self.session = f"{self.random.getrandbits(128):032x}"
        self.sequence = 0

    def figures(self) -> tuple[int, int, int]:
        """vCPUs, memory in MiB and disk in MiB of all VMs."""
        vcpus = memory = disk = 0
        for vm in self.vms.values():
            vcpus += vm.demand.vcpus
            memory += vm.demand.memory_mib
            disk += vm.demand.disk_mib
        return vcpus, memory, disk

    def refusal(self, vm: str, demand: Demand, address: str | None) -> str | None:
        """The first constraint that keeps a VM from this node; None when it is admitted."""
        vcpus, memory, disk = self.figures()
        if vm in self.vms:
            return "vm_busy" if self.vms[vm].state == "creating" else "vm_exists"
        if address is not None and address in {one.address for one in self.vms.values()}:
            return "address_taken"
        if demand.vcpus > self.topology.cpus:
            return "vcpus_exceed_socket"
        if demand.vcpus % 2 and not self.odd:
            return "vcpus_odd"
        if vcpus + demand.vcpus > self.topology.cpus:
            return "vcpus_exhausted"
        if memory + demand.memory_mib > self.topology.memory_mib - BUFFER_MIB:
            return "memory_exhausted"
        if disk + demand.disk_mib > self.disk_mib:
            return "disk_exhausted"
        return None

    def admit(self, vm: str, demand: Demand, address: str | None) -> None:
        """Enter a VM that nothing refuses."""
        self.vms[vm] = Vm(vm, demand, address, f"{self.random.getrandbits(64):016x}")

    def heartbeat(self) -> Heartbeat:
        """What it says of itself now; not validated again, for speed."""
        self.sequence += 1
        if not self.vms:
            return changed(self.empty, session=self.session, sequence=self.sequence)
        vcpus, memory, disk = self.figures()
        physical = self.topology.memory_mib
        pool = changed(
            self.empty.pool,
            available_mib=physical - memory,
            free_mib=physical - memory,
            startable_mib=physical - BUFFER_MIB - memory,
            vcpus_allocated=vcpus,
        )
        return changed(
            self.empty,
            session=self.session,
            sequence=self.sequence,
            pool=pool,
            disk=changed(self.empty.disk, promised_mib=disk),
            vms=tuple([vm.report for vm in self.vms.values()]),
        )


def changed(model: Model, **fields: object) -> Model:
    """A copy with other values, much faster than `model_copy`: most of a schedule is copies."""
    copy = model.__class__.__new__(model.__class__)
    place = object.__setattr__
    place(copy, "__dict__", model.__dict__ | fields)
    place(copy, "__pydantic_fields_set__", model.__pydantic_fields_set__)
    place(copy, "__pydantic_extra__", None)
    place(copy, "__pydantic_private__", None)
    return copy


@lru_cache(maxsize=4096)
def empty_heartbeat(
    name: str,
    hardware: tuple[int, int],
    disk_mib: int,
    reserved: bool,
    kvm: bool,
    odd: bool,
    network: bool,
) -> Heartbeat:
    """The heartbeat of a node with this hardware, a key of `TOPOLOGIES`, that holds nothing."""
    topology = TOPOLOGIES[hardware]
    return Heartbeat(
        node=name,
        session="0" * 32,
        sequence=0,
        reserved=reserved,
        allow_odd_vcpus=odd,
        kvm=KVM[kvm],
        topology=topology,
        pool=Pool(
            physical_mib=topology.memory_mib,
            available_mib=topology.memory_mib,
            free_mib=topology.memory_mib,
            startable_mib=topology.memory_mib - BUFFER_MIB,
            reserved_mib=BUFFER_MIB,
            vcpus=topology.cpus,
            vcpu_buffer=0,
            vcpus_allocated=0,
        ),
        disk=DiskPool(total_mib=disk_mib, free_mib=disk_mib, promised_mib=0),
        network=NETWORK if network else None,
        images=IMAGES,
    )
