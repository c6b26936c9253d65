"""Reads a node's whole state: files, kernel, ledger and libvirt, each once."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ppn.errors import PpnError
from ppn.host.cgroup import cpu_weight_support
from ppn.host.hardware import read_blocks, read_cpu_usage
from ppn.host.images import ImageDamaged, read_image
from ppn.host.kvm import known_verdict
from ppn.host.model import (
    DiskPool,
    Image,
    LedgerGrant,
    LedgerStatus,
    LibvirtStatus,
    NodeNetwork,
    NodeState,
    Pool,
    Problem,
    Settings,
    Topology,
    Unmanaged,
    VmView,
)
from ppn.host.network import node_network
from ppn.host.numa import pinning_support
from ppn.host.paths import Paths
from ppn.host.ports import listening
from ppn.host.settings import read_settings
from ppn.host.spec import NAME_PATTERN
from ppn.host.strays import plain, strays
from ppn.host.topology import read_memory, read_topology
from ppn.host.vm_state import NodeFacts, VmReading, read_vm
from ppn.inventory import VM_BRIDGE
from ppn.pool.policy import pool_available

if TYPE_CHECKING:
    from ppn.host.backend import Backend
    from ppn.host.domain_facts import DomainFacts

MIB = 1024 * 1024
CALL_SECONDS = 120.0
VM_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Domains:
    """What libvirt says: its domains by name, or why it says nothing."""

    facts: Mapping[str, DomainFacts]
    error: PpnError | None = None

    @property
    def silent(self) -> frozenset[str]:
        """Those whose QEMU does not answer: nobody can tell whose they are."""
        return frozenset(name for name, facts in self.facts.items() if not facts.answers)


def read_state(
    paths: Paths, uri: str | None = None, *, deadline: float = CALL_SECONDS
) -> NodeState:
    """Everything about this node in one value, also when libvirt does not answer.

    Args:
        paths: the node's files.
        uri: libvirt's connection name; the environment's or the system's when None.
        deadline: seconds a single call of libvirt may take.

    Raises:
        SettingsDamaged: the node's settings cannot be read.
        TopologyUnreadable: the kernel does not say what the hardware is.
    """
    return assemble(paths, _ask_libvirt(uri, deadline))


def state_through(paths: Paths, backend: Backend) -> NodeState:
    """The node's state over a connection that stands already."""
    return assemble(paths, Domains({facts.name: facts for facts in backend.domains()}))


def assemble(paths: Paths, domains: Domains) -> NodeState:
    """Join what libvirt says with the node's files and kernel."""
    settings = read_settings(paths.settings)
    boot_id = read_boot_id(paths)
    topology = read_topology(paths.sysfs, paths.procfs)
    enforcement = cpu_weight_support(paths.sysfs, paths.qemu_conf)
    ledger = read_ledger(paths)
    images, problems = _images(paths)
    pinning = pinning_support(topology, os.sched_getaffinity(0))
    readings = _vms(paths, domains, ledger, NodeFacts(enforcement, pinning, topology))
    error = domains.error
    network = read_network(paths, settings)
    return NodeState(
        settings=settings,
        boot_id=boot_id,
        libvirt=LibvirtStatus(ok=error is None, error=problem_of(error) if error else None),
        kvm=known_verdict(paths, boot_id),
        topology=topology,
        cpu_weight=enforcement,
        pinning=pinning,
        ledger=ledger,
        pool=_pool(paths, settings, topology, readings),
        disk=_disk_pool(paths, readings),
        cpu_usage=read_cpu_usage(paths.procfs),
        blocks=read_blocks(paths.sysfs, paths.procfs),
        network=network,
        images=images,
        vms=tuple(reading.view for reading in readings),
        unmanaged=_unmanaged(paths, domains),
        problems=(*problems, *_network_problems(network)),
    )


def read_boot_id(paths: Paths) -> str:
    """The kernel's name for the present boot; empty when it has none."""
    try:
        return paths.boot_id.read_text().strip()
    except OSError:
        return ""


def read_network(paths: Paths, settings: Settings) -> NodeNetwork | None:
    """The network of the node's VMs with what is taken of it; None when the node has none."""
    busy = listening(paths.procfs, settings.port_first, settings.port_last)
    return node_network(settings, busy)


def _network_problems(network: NodeNetwork | None) -> tuple[Problem, ...]:
    """A bridge that is not there: no VM is reached until one is started or the service runs."""
    if network is None:
        return ()
    try:
        socket.if_nametoindex(VM_BRIDGE)
    except OSError:
        gone = f"the bridge {VM_BRIDGE} of the VMs' network {network.range} is not there"
        hint = "systemctl restart ppn-vm-network"
        return (Problem(code="network_down", message=gone, hint=hint),)
    return ()


def read_ledger(paths: Paths) -> LedgerStatus:
    """The node's copy of the capability ledger, verified; what is wrong with it otherwise."""
    if not paths.ledger.exists():
        return LedgerStatus(ok=True)
    # Imported here: only a ledger needs cryptography, and a new VM waits for our imports.
    from ppn.pool.keys import load_public
    from ppn.pool.store import load

    try:
        ledger = load(paths.ledger, load_public(paths.operator_key))
    except PpnError as error:
        return LedgerStatus(ok=False, error=problem_of(error))
    found = (ledger.latest(vm) for vm in sorted(ledger.grants))
    return LedgerStatus(
        ok=True,
        entries=len(ledger.entries),
        head=ledger.head,
        grants=tuple(
            LedgerGrant(vm=grant.vm, weight=grant.weight, minimum_mib=grant.minimum_mib)
            for grant in found
            if grant is not None
        ),
    )


def problem_of(error: PpnError) -> Problem:
    """An error as a part of the state."""
    return Problem(code=error.code, message=error.message, hint=error.hint)


def _ask_libvirt(uri: str | None, deadline: float) -> Domains:
    try:
        from ppn.host.backend import Backend
    except ImportError as error:
        missing = PpnError(
            f"cannot load libvirt's Python module: {error}",
            code="libvirt_missing",
            hint="install python3-libvirt on the node",
        )
        return Domains({}, missing)
    try:
        with Backend(uri, deadline=deadline) as backend:
            return Domains({facts.name: facts for facts in backend.domains()})
    except PpnError as error:
        return Domains({}, error)


def _images(paths: Paths) -> tuple[tuple[Image, ...], tuple[Problem, ...]]:
    images: list[Image] = []
    problems: list[Problem] = []
    for folder in _folders(paths.images):
        try:
            images.append(read_image(folder).image)
        except ImageDamaged as error:
            problems.append(problem_of(error))
    return tuple(images), tuple(problems)


def _vms(
    paths: Paths, domains: Domains, ledger: LedgerStatus, facts: NodeFacts
) -> tuple[VmReading, ...]:
    managed = {name for name, facts in domains.facts.items() if _is_ours(facts)}
    with_sidecar = {folder.name for folder in _folders(paths.vms) if _is_vm(paths, folder)}
    return tuple(
        read_vm(
            paths,
            name,
            domain=domains.facts[name] if name in managed else None,
            answers=domains.error is None and name not in domains.silent,
            grant=ledger.grant(name),
            node=facts,
        )
        for name in sorted(managed | with_sidecar)
    )


def _is_ours(facts: DomainFacts) -> bool:
    """Whether a domain is a VM of ours; a clone by hand copies the mark, under any name."""
    return facts.owner is not None and VM_NAME.fullmatch(facts.name) is not None


def _is_vm(paths: Paths, folder: Path) -> bool:
    """Whether a folder is a VM's; a copy by hand, `web.old`, is called as no VM can be."""
    return VM_NAME.fullmatch(folder.name) is not None and paths.vm(folder.name).known


def _unmanaged(paths: Paths, domains: Domains) -> tuple[Unmanaged, ...]:
    foreign = [name for name, one in domains.facts.items() if one.answers and not _is_ours(one)]
    managed = domains.facts.keys() - set(foreign)
    folders = _folders(paths.vms)
    ours = [folder for folder in folders if _is_vm(paths, folder) or folder.name in managed]
    return (
        *(Unmanaged(name=name, kind="domain") for name in sorted(foreign)),
        *(Unmanaged(name=plain(one.name), kind="folder") for one in folders if one not in ours),
        *strays(paths, (folder.name for folder in ours)),
    )


def _pool(
    paths: Paths, settings: Settings, topology: Topology, readings: tuple[VmReading, ...]
) -> Pool:
    # Kept for VMs between two nodes, whichever of the two will run them.
    awaited = sum(reading.awaited_mib for reading in readings)
    free = max(read_memory(paths.procfs / "meminfo").get("MemAvailable", 0) - awaited, 0)
    held = sum(_held_mib(reading.view) for reading in readings)
    physical, buffer = topology.memory_mib, settings.memory_buffer_mib
    minimums = [reading.view.memory.minimum_mib for reading in readings]
    return Pool(
        physical_mib=physical,
        available_mib=pool_available(physical, minimums),
        free_mib=free,
        startable_mib=max(min(free, physical - buffer - held - awaited), 0),
        reserved_mib=buffer,
        vcpus=topology.cpus,
        vcpu_buffer=settings.vcpu_buffer,
        vcpus_allocated=sum(reading.vcpus for reading in readings),
    )


def _held_mib(vm: VmView) -> int:
    """The memory in MiB that a VM has; one of which nothing is known may have all of its own."""
    return vm.memory.maximum_mib if vm.state == "unknown" else vm.memory.current_mib or 0


def _disk_pool(paths: Paths, readings: tuple[VmReading, ...]) -> DiskPool:
    place = paths.vms
    while not place.exists():
        place = place.parent
    figures = os.statvfs(place)
    return DiskPool(
        total_mib=figures.f_blocks * figures.f_frsize // MIB,
        free_mib=figures.f_bavail * figures.f_frsize // MIB,
        promised_mib=sum(reading.growth_mib for reading in readings),
    )


def _folders(parent: Path) -> list[Path]:
    """The folders in a folder by name; hidden ones are leftovers of a killed run."""
    try:
        entries = sorted(parent.iterdir())
    except FileNotFoundError:
        return []
    return [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
