"""Everything about a node in one value: what `ppn host state --json` prints and policy reads."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppn.host.lease import Lease
from ppn.host.spec import ADDRESS_PATTERN, Protocol, VmSpec
from ppn.inventory import DEFAULT_INTERFACE, SERVICE_PORTS, SMALLEST_VM_RANGE

Accelerator = Literal["kvm", "tcg"]
# Moving: it goes to another node and may come back; moved: it is the other node's; arriving: it is
# not this node's yet. In none of these can anybody start, change or remove it here.
Phase = Literal["creating", "ready", "moving", "moved", "arriving"]
IN_TRANSIT: frozenset[Phase] = frozenset({"moving", "moved", "arriving"})


class Frozen(BaseModel):
    """A part of the state: immutable, and tolerant of fields a newer node adds."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", validate_by_name=True, serialize_by_alias=True
    )


class Problem(Frozen):
    """Something that is not as it should be, with a stable code."""

    code: str
    message: str
    hint: str = ""


class Settings(Frozen):
    """What the operator decided about this node.

    Args:
        name: the node's name in the inventory.
        reserved: kept for its own user; no tenant's VM goes there.
        allow_odd_vcpus: VMs with an odd vCPU count are accepted.
        vcpu_buffer: CPUs no VM is promised.
        memory_buffer_mib: memory in MiB no VM is promised.
        mesh_address: the node's own; guests' ports are opened there.
        mesh_interface: the interface that address is on.
        vm_range: the network of its VMs; without one they have no network.
        vm_internet: guests may open connections to public addresses.
        port_first, port_last: ports of the mesh address that may lead to guests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    reserved: bool = False
    allow_odd_vcpus: bool = False
    vcpu_buffer: int = Field(default=0, ge=0)
    memory_buffer_mib: int = Field(default=512, ge=0)
    mesh_address: str | None = Field(default=None, pattern=ADDRESS_PATTERN)
    mesh_interface: str = DEFAULT_INTERFACE
    vm_range: str | None = None
    vm_internet: bool = False
    port_first: int = Field(default=30000, ge=1024, le=65535)
    port_last: int = Field(default=32767, ge=1024, le=65535)

    @field_validator("vm_range")
    @classmethod
    def _check_range(cls, value: str | None) -> str | None:
        if value is not None and IPv4Network(value).prefixlen > SMALLEST_VM_RANGE:
            raise ValueError(f"{value} is smaller than a /{SMALLEST_VM_RANGE}")
        return value

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if self.port_first > self.port_last:
            raise ValueError(f"port_first {self.port_first} is above port_last {self.port_last}")
        if own := [p for p in sorted(SERVICE_PORTS) if self.port_first <= p <= self.port_last]:
            raise ValueError(f"port {own[0]} is for a service of the pool itself")
        return self


class LibvirtStatus(Frozen):
    """Whether libvirt answered."""

    ok: bool
    error: Problem | None = None


class Kvm(Frozen):
    """Whether guest code really ran under KVM in this boot, and why (not) (HOST-09)."""

    usable: bool
    reason: str
    probed: bool = False


class Socket(Frozen):
    """One CPU socket: its logical CPUs, its number of cores, and the CPUs of each core."""

    id: int
    cpus: tuple[int, ...]
    cores: int
    threads: tuple[tuple[int, ...], ...] = ()


class NumaNode(Frozen):
    """One NUMA node: its CPUs, its memory in MiB, and what of it nobody uses at this moment."""

    id: int
    cpus: tuple[int, ...]
    memory_mib: int
    free_mib: int | None = None


class Topology(Frozen):
    """The node's hardware as the kernel shows it; memory in MiB."""

    cpus: int
    sockets: tuple[Socket, ...]
    numa_nodes: tuple[NumaNode, ...] = ()
    memory_mib: int
    cpu_model: str = ""

    @property
    def largest_socket(self) -> int:
        """The most cores one socket has."""
        return max([socket.cores for socket in self.sockets], default=0)


class Enforcement(Frozen):
    """Whether something takes effect on this node, with the reason when it does not."""

    enforced: bool
    reason: str = ""


class LedgerGrant(Frozen):
    """What the ledger's latest entry gives a VM."""

    vm: str
    weight: int
    minimum_mib: int


class LedgerStatus(Frozen):
    """The node's copy of the capability ledger."""

    ok: bool
    entries: int = 0
    head: str = ""
    error: Problem | None = None
    grants: tuple[LedgerGrant, ...] = ()

    def grant(self, vm: str) -> LedgerGrant | None:
        """What the ledger gives this VM; None when it says nothing."""
        return next((grant for grant in self.grants if grant.vm == vm), None)


class Pool(Frozen):
    """The node's memory and CPUs as a pool (BAL-07, NUMA-07).

    Args:
        physical_mib: MemTotal.
        available_mib: physical - sum of all balloon minimums: what could be had.
        free_mib: memory the kernel could hand out now: what is there.
        startable_mib: the largest VM that may start now: the smaller of `free_mib` and
            physical - buffer - what running VMs hold.
        reserved_mib: the memory buffer no VM is promised.
        vcpus: CPUs of the node.
        vcpu_buffer: CPUs no VM is promised.
        vcpus_allocated: sum over all VMs, stopped ones too.
    """

    physical_mib: int
    available_mib: int
    free_mib: int
    startable_mib: int
    reserved_mib: int
    vcpus: int
    vcpu_buffer: int
    vcpus_allocated: int


class DiskPool(Frozen):
    """Room for VM disks in MiB; `promised` is what existing disks may still grow by."""

    total_mib: int
    free_mib: int
    promised_mib: int


class BlockPart(Frozen):
    """A partition, its size in MiB and what uses it."""

    name: str
    size_mib: int
    used_by: tuple[str, ...] = ()


class BlockDevice(Frozen):
    """A block device of the node (HLT-04).

    Args:
        name: the kernel's name for it.
        size_mib: its size in MiB.
        model: what the drive calls itself.
        backing: the file behind a loop device.
        used_by: mount points, `swap`, and devices made on top of it.
        parts: its partitions.
    """

    name: str
    size_mib: int
    model: str = ""
    backing: str = ""
    rotational: bool = False
    removable: bool = False
    read_only: bool = False
    used_by: tuple[str, ...] = ()
    parts: tuple[BlockPart, ...] = ()


class CpuUsage(Frozen):
    """What the node's CPUs did since it booted, in CPU seconds, and the load of the last minute."""

    busy_seconds: float
    idle_seconds: float
    load: float


class Image(Frozen):
    """A guest image on the node; `digest` is the SHA-256 of its manifest."""

    name: str
    digest: str
    direct_boot: bool = False
    disk_mib: int = 0


class NodeNetwork(Frozen):
    """The network of a node's VMs.

    Args:
        range: the addresses; no other network of the pool overlaps them.
        gateway: the node's own address among them.
        mesh_address, mesh_interface: where guests' ports are opened.
        first_port, last_port: the ports that may lead to guests.
        internet: guests may open connections to public addresses.
        busy: ports of that range on which something of the node itself listens.
    """

    range: str
    gateway: str
    mesh_address: str
    mesh_interface: str
    first_port: int
    last_port: int
    internet: bool = False
    busy: tuple[tuple[Protocol, int], ...] = ()


class VmMemory(Frozen):
    """A VM's memory in MiB: the most, what it has, what it keeps, what the guest leaves unused."""

    maximum_mib: int
    current_mib: int | None = None
    minimum_mib: int
    unused_mib: int | None = None


class VmWeight(Frozen):
    """A VM's CPU weight: from the ledger, as the kernel has it, and whether it takes effect."""

    wanted: int
    actual: int | None = None
    enforced: bool = False
    reason: str = ""


class Pins(Frozen):
    """The CPUs a VM holds, one for each vCPU, and the NUMA nodes its memory shall come from."""

    cpus: tuple[int, ...]
    nodes: tuple[int, ...] = ()


class VmPinning(Frozen):
    """Where a VM's vCPUs shall run, where the kernel lets them run, and why not there (NUMA-03).

    Args:
        wanted: the CPUs it holds; None when it holds none of its own.
        actual: for each vCPU the CPUs its thread may run on; empty when it does not run.
        pinned: every thread may run on its own CPU alone.
        reason: why it is not pinned, or not on one socket; empty when all is as it should be.
    """

    wanted: Pins | None = None
    actual: tuple[tuple[int, ...], ...] = ()
    pinned: bool = False
    reason: str = ""


class VmDisk(Frozen):
    """A disk file of a VM.

    Args:
        name: `root`, or the name of a data disk.
        size_mib: virtual size in MiB.
        attached: the running domain has it.
        detached: kept, but not declared; declaring it again attaches it with its data.
    """

    name: str
    size_mib: int
    attached: bool = False
    detached: bool = False


class VmView(Frozen):
    """A VM as it is.

    Args:
        name: its name, known even when the sidecar is not readable.
        spec: what the sidecar says it shall be; None when missing or damaged.
        state: `missing` when libvirt has no such domain, `unknown` when libvirt is silent.
        phase: `creating` until the VM first reached its wanted state; see `Phase`.
        digest: of the spec the domain was defined from; empty when there is no domain.
        seed: the seed volume is there.
        owner: from the sidecar, else from the domain; empty when neither says.
        order: digest of the spec it was first asked for with.
        created: when it was first asked for, RFC 3339 in UTC; empty without a sound sidecar.
        cpu_seconds: CPU time its QEMU has used since it started; None when it does not run.
        lease: its address and the ports that lead to it; None without a network.
        drives: PCI addresses of the node's drives that are its own, also while it is stopped.
    """

    name: str
    spec: VmSpec | None = None
    uuid: str | None = None
    state: Literal["running", "stopped", "missing", "unknown"]
    phase: Phase | None = None
    digest: str = ""
    seed: bool = False
    owner: str = ""
    order: str = ""
    created: str = ""
    cpu_seconds: float | None = None
    accelerator: Accelerator | None = None
    pid: int | None = None
    memory: VmMemory
    weight: VmWeight
    pinning: VmPinning = VmPinning()
    disks: tuple[VmDisk, ...] = ()
    lease: Lease | None = None
    drives: tuple[str, ...] = ()
    sidecar: Literal["ok", "missing", "damaged"]
    problems: tuple[Problem, ...] = ()

    def disk(self, name: str) -> VmDisk | None:
        """One of its disks by name; None when there is no file."""
        return next((disk for disk in self.disks if disk.name == name), None)


class Unmanaged(Frozen):
    """Something that came another way: a domain, or what is no VM's below the folder of VMs."""

    name: str
    kind: Literal["domain", "folder", "disk", "file", "leftover"]


class NodeState(Frozen):
    """A node's VMs, pool, topology and capabilities, read in one go."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    settings: Settings
    boot_id: str
    libvirt: LibvirtStatus
    kvm: Kvm
    topology: Topology
    cpu_weight: Enforcement
    pinning: Enforcement = Enforcement(enforced=False, reason="not known")
    ledger: LedgerStatus
    pool: Pool
    disk: DiskPool
    cpu_usage: CpuUsage | None = None
    blocks: tuple[BlockDevice, ...] = ()
    network: NodeNetwork | None = None
    images: tuple[Image, ...] = ()
    vms: tuple[VmView, ...] = ()
    unmanaged: tuple[Unmanaged, ...] = ()
    problems: tuple[Problem, ...] = ()

    def vm(self, name: str) -> VmView | None:
        """A VM by its name; None when the node has none of that name."""
        return next((vm for vm in self.vms if vm.name == name), None)

    def image(self, name: str) -> Image | None:
        """A guest image by its name; None when the node has none of that name."""
        return next((image for image in self.images if image.name == name), None)
