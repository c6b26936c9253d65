"""Simulated nodes of a large pool, and what customers ask of it."""

from __future__ import annotations

from ipaddress import IPv4Address
from random import Random

from ppn.fleet.model import Demand
from ppn.fleet.registry import Registry
from ppn.host.model import DiskPool, Image, Kvm, Pool, Socket, Topology
from ppn.wire.heartbeat import Heartbeat, VmNetwork, VmReport

IMAGES = tuple(
    Image(name=name, digest="0" * 64, disk_mib=2048) for name in ("debian-13", "alpine", "tiny")
)
KVM = {usable: Kvm(usable=usable, reason="measured", probed=True) for usable in (True, False)}
SIZES = [(2, 4096, 20), (2, 8192, 20), (2, 2048, 10), (4, 8192, 40), (8, 32768, 100)]


def address_of(number: int) -> IPv4Address:
    """The mesh address of a node."""
    return IPv4Address(0x0A400000 + number)


def name_of(number: int) -> str:
    """The name of a node."""
    return f"node-{number:05}"


def heartbeat(number: int, random: Random, *, cpus: int, memory_mib: int, vms: int) -> Heartbeat:
    """The first heartbeat of a node with two sockets.

    Args:
        number: of the node.
        random: its chance: reservation, KVM, what its VMs hold.
        cpus: logical CPUs, half of them in each socket.
        memory_mib: physical memory in MiB.
        vms: how many VMs it reports, of 4 vCPUs each.
    """
    held = min(vms * 4, cpus)
    used_mib = memory_mib * held // cpus * 9 // 10
    disk_mib = 4_000_000
    sockets = tuple(
        Socket(
            id=half, cpus=tuple(range(half * cpus // 2, (half + 1) * cpus // 2)), cores=cpus // 2
        )
        for half in (0, 1)
    )
    return Heartbeat(
        node=name_of(number),
        session=f"{random.getrandbits(128):032x}",
        sequence=1,
        reserved=random.random() < 0.1,
        kvm=KVM[random.random() < 0.7],
        topology=Topology(cpus=cpus, sockets=sockets, memory_mib=memory_mib),
        pool=Pool(
            physical_mib=memory_mib,
            available_mib=memory_mib - used_mib,
            free_mib=memory_mib - used_mib,
            startable_mib=memory_mib - used_mib - 512,
            reserved_mib=512,
            vcpus=cpus,
            vcpu_buffer=0,
            vcpus_allocated=held,
        ),
        disk=DiskPool(
            total_mib=disk_mib, free_mib=disk_mib, promised_mib=random.randrange(disk_mib // 2)
        ),
        network=VmNetwork(range="10.9.0.0/24", first_port=30000, last_port=32767),
        images=IMAGES,
        vms=tuple(_vm(number, at, used_mib // max(vms, 1), random) for at in range(vms)),
    )


def _vm(number: int, at: int, memory_mib: int, random: Random) -> VmReport:
    return VmReport(
        id=f"vm-{number:05}-{at:03}-{random.getrandbits(32):08x}",
        owner=f"tenant-{random.randrange(2000)}",
        state="running",
        uuid=f"00000000-0000-4000-8000-{random.getrandbits(48):012x}",
        created="2026-01-01T00:00:00Z",
        image="debian-13",
        label=random.choice(("", "web", "db")),
        vcpus=4,
        memory_mib=memory_mib,
        current_mib=memory_mib,
        minimum_mib=memory_mib,
        cpu_seconds=random.random() * 1e6,
        disk_gib=40,
        address=f"10.9.0.{2 + at}",
        accelerator="kvm",
        weight=100,
    )


def demands(count: int, random: Random) -> list[Demand]:
    """What customers ask for: sizes, policies and wishes mixed."""
    found = []
    for _ in range(count):
        vcpus, memory, disk = random.choice(SIZES)
        apart = "web" if random.random() < 0.1 else ""
        demand = Demand(
            owner=f"tenant-{random.randrange(2000)}",
            image="debian-13",
            vcpus=vcpus,
            memory_mib=memory,
            root_gib=disk,
            disk_mib=disk * 1024,
            label=apart,
            anti_affinity=apart,
            kvm=random.random() < 0.8,
            policy=random.choice(("spread", "spread", "pack", "kvm-first")),
        )
        found.append(demand)
    return found


def registry_of(heartbeats: list[Heartbeat]) -> Registry:
    """A registry that has heard these nodes, numbered from 0, at time 0."""
    addresses = {beat.node: address_of(number) for number, beat in enumerate(heartbeats)}
    registry = Registry(addresses, 0.0)
    for beat in heartbeats:
        registry.hear(beat, addresses[beat.node], 0.0)
    return registry
