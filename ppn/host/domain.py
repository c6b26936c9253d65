"""A VM as libvirt domain XML: pure, built as a tree so that no value can break out of its place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from string import ascii_lowercase
from xml.etree.ElementTree import Element, SubElement, indent, register_namespace, tostring

from ppn.host.model import Accelerator, Pins
from ppn.host.network import Interface
from ppn.host.numa import GuestCell
from ppn.host.nvme import hostdev
from ppn.host.paths import VmPaths
from ppn.host.plan import wanted_disks
from ppn.host.spec import VmSpec
from ppn.inventory import VM_BRIDGE

NAMESPACE = "urn:ppn:vm:1"
STATS_PERIOD_SECONDS = 5
# Each virtio device takes a root port; the spare ones are for disks added while the VM runs.
SPARE_PORTS = 4
CPU_MODEL: dict[Accelerator, str] = {"kvm": "host-passthrough", "tcg": "maximum"}
# An emulated processor copies byte by byte where it says that this is the fast way.
SLOW_EMULATED = ("erms", "fsrm")
# The last one is the seed's.
TARGETS = tuple(f"vd{letter}" for letter in ascii_lowercase)
DOMAIN_TYPE: dict[Accelerator, str] = {"kvm": "kvm", "tcg": "qemu"}

register_namespace("ppn", NAMESPACE)


@dataclass(frozen=True)
class DirectBoot:
    """Kernel, initial RAM disk and command line of an image that is booted without firmware."""

    kernel: Path
    initrd: Path | None
    cmdline: str


@dataclass(frozen=True)
class DomainInput:
    """What a domain is made from besides its spec.

    Args:
        uuid: the VM's identity, kept in its sidecar.
        paths: the VM's files.
        boot: set for a direct-boot image.
        accelerator: `kvm` only where guest code was seen to run under it.
        weight: CPU weight; None where the node cannot enforce one.
        pins: the CPUs the VM holds; None where it is not pinned.
        cells: the NUMA nodes its guest sees; none where one is enough.
        interface: its place on the bridge of the node's VMs; None for a VM without a network.
        drives: PCI addresses of the drives that are its own.
    """

    uuid: str
    paths: VmPaths
    boot: DirectBoot | None
    accelerator: Accelerator
    weight: int | None
    pins: Pins | None = None
    interface: Interface | None = None
    drives: tuple[str, ...] = ()
    cells: tuple[GuestCell, ...] = ()


def domain_xml(spec: VmSpec, given: DomainInput) -> str:
    """The libvirt domain of a VM (HOST-04, BAL-04).

    The guest gets no agent channel: the node knows nothing of what runs inside.
    """
    domain = Element("domain", type=DOMAIN_TYPE[given.accelerator])
    _text(domain, "name", spec.name)
    _text(domain, "uuid", given.uuid)
    _metadata(domain, spec)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "currentMemory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus), placement="static")
    _tune(domain, given)
    _cells(domain, given.cells)
    _boot(domain, spec, given.boot)
    features = SubElement(domain, "features")
    SubElement(features, "acpi")
    SubElement(features, "apic")
    _cpu(domain, spec, given)
    clock = SubElement(domain, "clock", offset="utc")
    # QEMU's goes on for ever at the pace a starting kernel gave it, 250 times a second.
    SubElement(clock, "timer", name="hpet", present="no")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    _devices(domain, spec, given)
    indent(domain)
    return tostring(domain, encoding="unicode")


def disk_xml(paths: VmPaths, name: str, target: str) -> str:
    """One qcow2 disk as a device, to attach or detach while the VM runs.

    Args:
        paths: the VM's files.
        name: the disk's name; the guest sees it as serial number.
        target: libvirt's name for its place; see `free_target`.
    """
    return tostring(_disk(paths, name, target), encoding="unicode")


def free_target(taken: Collection[str]) -> str:
    """The first place for a disk that a running domain has free.

    Places are given out in the spec's order when a VM starts; once a disk was detached, a running
    VM's places are no longer in that order.
    """
    return next(target for target in TARGETS if target not in taken)


def _text(parent: Element, tag: str, text: str, **attributes: str) -> None:
    SubElement(parent, tag, attributes).text = text


def _metadata(domain: Element, spec: VmSpec) -> None:
    attributes = {"owner": spec.owner, "digest": spec.digest()}
    SubElement(SubElement(domain, "metadata"), f"{{{NAMESPACE}}}vm", attributes)


def _tune(domain: Element, given: DomainInput) -> None:
    """CPU weight, the CPU of each vCPU and the NUMA nodes of the memory (CPU-07, NUMA-02).

    Memory is preferred from those nodes, not bound to them: the pool counts the memory of the
    whole node, so a bound VM could be killed for want of memory while the node has some left.
    """
    pins = given.pins
    if given.weight is None and pins is None:
        return
    tune = SubElement(domain, "cputune")
    if given.weight is not None:
        _text(tune, "shares", str(given.weight))
    if pins is None:
        return
    for vcpu, cpu in enumerate(pins.cpus):
        SubElement(tune, "vcpupin", vcpu=str(vcpu), cpuset=str(cpu))
    if pins.nodes:
        nodes = ",".join(map(str, pins.nodes))
        SubElement(SubElement(domain, "numatune"), "memory", mode="preferred", nodeset=nodes)


def _cells(domain: Element, cells: Sequence[GuestCell]) -> None:
    """The memory of each of the guest's NUMA nodes, from the machine's own one behind it."""
    if not cells:
        return
    tune = domain.find("numatune")
    if tune is None:
        tune = SubElement(domain, "numatune")
    for at, cell in enumerate(cells):
        node = str(cell.node)
        SubElement(tune, "memnode", cellid=str(at), mode="preferred", nodeset=node)


def _cpu(domain: Element, spec: VmSpec, given: DomainInput) -> None:
    """What the guest sees of CPUs: one socket, or as few as never span two of its NUMA nodes."""
    cpu = SubElement(domain, "cpu", mode=CPU_MODEL[given.accelerator])
    cores = gcd(spec.vcpus, *(len(cell.vcpus) for cell in given.cells))
    sockets = spec.vcpus // cores
    SubElement(cpu, "topology", sockets=str(sockets), cores=str(cores), threads="1")
    if given.accelerator == "tcg":
        for feature in SLOW_EMULATED:
            SubElement(cpu, "feature", policy="disable", name=feature)
    if given.cells:
        numa = SubElement(cpu, "numa")
        for at, cell in enumerate(given.cells):
            vcpus, memory = ",".join(map(str, cell.vcpus)), str(cell.memory_mib)
            SubElement(numa, "cell", id=str(at), cpus=vcpus, memory=memory, unit="MiB")


def _boot(domain: Element, spec: VmSpec, boot: DirectBoot | None) -> None:
    system = SubElement(domain, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    if boot is None:
        SubElement(system, "boot", dev="hd")
        return
    _text(system, "kernel", str(boot.kernel))
    if boot.initrd is not None:
        _text(system, "initrd", str(boot.initrd))
    cmdline = " ".join(part for part in (boot.cmdline, spec.cmdline_extra) if part)
    if cmdline:
        _text(system, "cmdline", cmdline)


def _devices(domain: Element, spec: VmSpec, given: DomainInput) -> None:
    devices = SubElement(domain, "devices")
    disks = [
        _disk(given.paths, name, target)
        for (name, _), target in zip(wanted_disks(spec), TARGETS, strict=False)
    ]
    disks.append(_seed(given.paths))
    SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    others = (3 if given.interface is None else 4) + len(given.drives)
    for index in range(1, len(disks) + others + SPARE_PORTS):
        SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    SubElement(devices, "controller", type="usb", model="none")
    devices.extend(disks)
    if given.interface is not None:
        devices.append(_interface(given.interface))
    devices.extend(hostdev(address) for address in given.drives)
    serial = SubElement(devices, "serial", type="pty")
    SubElement(serial, "log", file=str(given.paths.serial_log), append="on")
    SubElement(serial, "target", type="isa-serial", port="0")
    console = SubElement(devices, "console", type="pty")
    SubElement(console, "target", type="serial", port="0")
    balloon = SubElement(
        devices, "memballoon", model="virtio", autodeflate="off", freePageReporting="on"
    )
    SubElement(balloon, "stats", period=str(STATS_PERIOD_SECONDS))
    random = SubElement(devices, "rng", model="virtio")
    _text(random, "backend", "/dev/urandom", model="random")


def _disk(paths: VmPaths, name: str, target: str) -> Element:
    disk = Element("disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="qcow2", discard="unmap")
    SubElement(disk, "source", file=str(paths.disk(name)))
    SubElement(disk, "target", dev=target, bus="virtio")
    _text(disk, "serial", name)
    return disk


def _interface(interface: Interface) -> Element:
    network = Element("interface", type="bridge")
    SubElement(network, "mac", address=interface.mac)
    SubElement(network, "source", bridge=VM_BRIDGE)
    SubElement(network, "target", dev=interface.tap)
    SubElement(network, "model", type="virtio")
    return network


def _seed(paths: VmPaths) -> Element:
    # A virtio disk, for small kernels have no CD-ROM driver; last, so that no other name moves.
    disk = Element("disk", type="file", device="disk")
    SubElement(disk, "driver", name="qemu", type="raw")
    SubElement(disk, "source", file=str(paths.seed))
    SubElement(disk, "target", dev=TARGETS[-1], bus="virtio")
    SubElement(disk, "readonly")
    _text(disk, "serial", "seed")
    return disk
