"""What an agent tells every controller, every few seconds and after each change."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ppn.host.model import Accelerator, BlockDevice, CpuUsage, DiskPool, Image, Kvm, Pool, Topology
from ppn.host.spec import Disk
from ppn.wire.model import NodeName, Owner, PciAddress, VmId, Wire

VmState = Literal[
    "creating", "stabilising", "running", "stopped", "missing", "unknown", "moving", "arriving"
]
# On its way between two nodes: neither can run it, and one of them alone will.
IN_TRANSIT: frozenset[VmState] = frozenset({"moving", "arriving"})

# JSON has arrays where these have tuples; the parts stay strict.
MANY = Field(strict=False, max_length=4096)


class Port(Wire):
    """A guest's port as the mesh reaches it: `host` on the node's mesh address."""

    guest: int = Field(ge=1, le=65535)
    protocol: Literal["tcp", "udp"] = "tcp"
    host: int = Field(ge=1, le=65535)


class VmReport(Wire):
    """A VM as its node reports it, from its sidecar and its domain; memory in MiB.

    Args:
        id: the VM's name on its node, and its id in the pool.
        state: `creating` until it first ran; `stabilising` while its memory settles after an
            attach; `unknown` while libvirt is silent; `moving` where it goes from and `arriving`
            where it goes to, and neither can run it.
        created: when it was first asked for, RFC 3339 in UTC.
        address: its address in the node's VM network; None without one.
        drives: PCI addresses of the node's NVMe drives that are its own.
    """

    id: VmId
    owner: Owner
    state: VmState
    uuid: str | None = None
    created: str = ""
    image: str = ""
    label: str = ""
    vcpus: int = Field(ge=0)
    memory_mib: int = Field(ge=0)
    current_mib: int | None = None
    minimum_mib: int = Field(ge=0)
    cpu_seconds: float | None = None
    disk_gib: int = Field(default=0, ge=0)
    disks: Annotated[tuple[Disk, ...], MANY] = ()
    drives: Annotated[tuple[PciAddress, ...], MANY] = ()
    address: str | None = None
    ports: Annotated[tuple[Port, ...], MANY] = ()
    accelerator: Accelerator | None = None
    weight: int | None = None
    problems: Annotated[tuple[str, ...], MANY] = ()


class Alert(Wire):
    """Something on the node that is not as it should be, until it is put right (HLT-06).

    Args:
        code: stable, for example `qemu_gone`.
        subject: the VM, domain or file it is about.
        message: what is wrong.
        hint: the next step a person can take.
    """

    code: str
    subject: str
    message: str
    hint: str = ""


def _network(text: str) -> str:
    """A text that is an IPv4 network."""
    IPv4Network(text)
    return text


class VmNetwork(Wire):
    """The network of a node's VMs: its range, and the host ports guests' ports may take."""

    range: Annotated[str, AfterValidator(_network)]
    first_port: int = Field(ge=1, le=65535)
    last_port: int = Field(ge=1, le=65535)


class Heartbeat(Wire):
    """A node as its agent sees it at one moment.

    Args:
        node: its name in the inventory; accepted from that node's mesh address alone (FLEET-08).
        session: 32 hex digits the agent drew when it started.
        sequence: counts up within a session; an older one never replaces a newer one.
        reserved: kept for its own user.
        allow_odd_vcpus: VMs with an odd vCPU count are accepted.
        topology: sockets, NUMA nodes and memory; which CPUs share a core is the node's own concern.
        pool: memory and CPUs, with operations in flight counted in.
        cpu_usage: what the CPUs did since the node booted (HLT-02).
        blocks: the node's drives and what uses them (HLT-04).
        vms: every VM, those in the making too.
        alerts: what is not as it should be.
    """

    version: Literal[1] = 1
    node: NodeName
    session: str = Field(pattern=r"^[0-9a-f]{32}$")
    sequence: int = Field(ge=0)
    reserved: bool
    allow_odd_vcpus: bool = False
    kvm: Kvm
    topology: Topology
    pool: Pool
    disk: DiskPool
    cpu_usage: CpuUsage | None = None
    blocks: Annotated[tuple[BlockDevice, ...], MANY] = ()
    network: VmNetwork | None = None
    images: Annotated[tuple[Image, ...], MANY] = ()
    vms: Annotated[tuple[VmReport, ...], MANY] = ()
    alerts: Annotated[tuple[Alert, ...], MANY] = ()
