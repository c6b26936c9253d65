"""Nodes as machines: QEMU's own processor, the image's root as a disk, one tap as the network."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path

from iso.trees import building
from lab.errors import LabError
from lab.image import Image, ensure_disk
from lab.initrd import MACHINE, disk_initrd
from lab.network import TAP, hardware_address
from lab.paths import LabPaths, NodePaths
from lab.process import Process, spawn
from lab.qmp import ask
from lab.topology import LabNode
from lab.wiring import inside
from ppn.durable import write_atomic
from ppn.run import run

CMDLINE = f"root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 {MACHINE}"
QMP_SECONDS = 60
# All that QEMU emulates, but for two words that make kernels and libraries copy byte by byte,
# which is fast in a real processor: without them a boot of the image takes a tenth less. And but
# for MWAIT, in which firmware has processors wait for the kernel: QEMU has them go round and round.
PROCESSOR = "max,erms=off,fsrm=off,monitor=off"
# A timer that no kernel needs, and that QEMU keeps going once a kernel has tried it.
MACHINE_TYPE = "q35,hpet=off"
CPUS = 2
# What systemd does for a machine that was started with one processor (lab/initrd.py).
SWITCH = "w /sys/devices/system/cpu/cpu{}/online - - - - 1\n"
ALL_PROCESSORS = {"tmpfiles.extra": "".join(map(SWITCH.format, range(1, CPUS)))}
# 7.2 loses the kernel in kmalloc with more than one processor; 10.0 was found sound.
SOUND_QEMU = 10


def need_sound_qemu() -> None:
    """Refuse a QEMU whose emulation Debian 13's kernel does not survive.

    Raises:
        LabError: it is older than the first one known to be sound.
    """
    words = run(["qemu-system-x86_64", "--version"], timeout=60).stdout
    found = re.search(r"version (\d+)\.", words)
    if found is None or int(found[1]) < SOUND_QEMU:
        raise LabError(
            f"machines need QEMU {SOUND_QEMU} or newer, here is: {words.splitlines()[0]}",
            code="qemu_too_old",
            hint="on Debian 12 take it from bookworm-backports, as scripts/setup does",
        )


def ensure_boot_files(image: Image) -> tuple[Path, Path]:
    """The disk and the initial RAM disk that machines of an image start from."""
    disk = ensure_disk(image)
    start = image.folder / "machine-initrd"
    with building(image.folder.parent, image.folder.name):
        content = disk_initrd(image.modules, image.busybox)
        if not start.exists() or start.read_bytes() != content:
            write_atomic(start, content)
    return disk, start


def credentials(node: LabNode, authorized_keys: str) -> dict[str, str]:
    """What systemd in the machine takes from the firmware at boot."""
    gateway = f"Gateway={node.gateway}\n" if node.gateway else ""
    network = (
        f"[Match]\nName=eth0\n\n[Network]\nAddress={node.address}/24\n{gateway}"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\n"
    )
    return {
        "network.network.10-lab": network,
        "ssh.authorized_keys.root": authorized_keys,
        "system.hostname": node.name,
        **ALL_PROCESSORS,
    }


def command(
    node: LabNode, paths: NodePaths, kernel: Path, start: Path, given: Mapping[str, str]
) -> list[str]:
    """The command that runs a node as a machine.

    Args:
        node: which node.
        paths: its files.
        kernel: the kernel to boot.
        start: the initial RAM disk.
        given: systemd credentials.
    """
    # Version 1.0 of AMD's virtualisation, emulated: guests inside run under a working KVM.
    processor = PROCESSOR if node.nested_kvm else f"{PROCESSOR},svm=off"
    argv = [
        *emulator(node, processor),
        *("-machine", MACHINE_TYPE),
        *("-kernel", str(kernel), "-initrd", str(start), "-append", CMDLINE),
        # A lab's disk survives a killed QEMU; it need not survive this machine's power cut.
        *("-drive", f"file={paths.disk},if=virtio,format=qcow2,cache=unsafe,discard=unmap"),
        *network_card(node),
        *("-serial", f"file:{paths.console_log}"),
        *control(paths),
    ]
    return argv + credential_words(given)


def credential_words(credentials: Mapping[str, str]) -> list[str]:
    """The words that tell systemd in a machine its credentials, by their names."""
    argv: list[str] = []
    for key, value in sorted(credentials.items()):
        encoded = base64.b64encode(value.encode()).decode()
        argv += ["-smbios", f"type=11,value=io.systemd.credential.binary:{key}={encoded}"]
    return argv


def emulator(node: LabNode, processor: str, count: int = CPUS) -> list[str]:
    """The words every machine's command line begins with.

    Args:
        node: which node.
        processor: QEMU's name of what it emulates.
        count: of its processors.
    """
    return [
        *("qemu-system-x86_64", "-name", f"{node.name},debug-threads=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # With its processors at a reset, for a kernel that is lost says nothing.
        *("-accel", "tcg,thread=multi", "-cpu", processor, "-d", "cpu_reset"),
        *processors(node, count),
        *("-device", "virtio-rng-pci"),
    ]


def network_card(node: LabNode, *, plugged: bool = True) -> list[str]:
    """The words for a machine's only network card.

    Args:
        node: which node.
        plugged: whether it is at the tap of its namespace, or its cable leads nowhere.
    """
    tap = f"tap,id=net,ifname={TAP},script=no,downscript=no,vhost=off"
    return [
        *("-netdev", tap if plugged else "hubport,id=net,hubid=0"),
        *("-device", f"virtio-net-pci,netdev=net,mac={address_of(node)}"),
    ]


def address_of(node: LabNode) -> str:
    """The Ethernet address of a machine's network card."""
    return hardware_address(node.name, "machine")


def control(paths: NodePaths) -> list[str]:
    """The words for a machine's control socket."""
    return ["-qmp", f"unix:{paths.qmp},server=on,wait=off"]


def processors(node: LabNode, count: int) -> list[str]:
    """The words for a machine's processors and memory, socket by socket."""
    sockets = min(node.numa_nodes, count)
    cores = count // sockets
    argv = ["-smp", f"{count},sockets={sockets},cores={cores},threads=1"]
    argv += ["-m", str(node.memory_mib)]
    for number in range(sockets):
        memory = f"id=memory{number},size={node.memory_mib // sockets}M"
        cpus = f"cpus={number * cores}-{(number + 1) * cores - 1}"
        argv += ["-object", f"memory-backend-ram,{memory}"]
        argv += ["-numa", f"node,nodeid={number},memdev=memory{number},{cpus}"]
    return argv


def start(lab: LabPaths, node: LabNode, image: Image) -> Process:
    """Start a node as a machine.

    Args:
        lab: whose node; its network must be there.
        node: which node.
        image: its root.

    Raises:
        LabError: it could not be started.
        CommandFailed: its disk could not be made.
    """
    paths = lab.node(node.name)
    paths.folder.mkdir(parents=True, exist_ok=True)
    disk, initial = ensure_boot_files(image)
    if not paths.disk.exists():
        make_overlay(disk, paths.disk)
    paths.qmp.unlink(missing_ok=True)
    paths.console_log.unlink(missing_ok=True)
    given = credentials(node, lab.ssh_trust.read_text())
    argv = command(node, paths, image.kernel, initial, given)
    log = paths.folder / "qemu.log"
    return spawn(inside(lab, node.name, argv), log=log, record=paths.process, env={})


def make_overlay(base: Path, disk: Path) -> None:
    """A disk that holds what differs from its base; it appears whole or not at all."""
    partial = disk.with_suffix(".partial")
    backing = ["-F", "raw", "-b", str(base)]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(partial)], timeout=60)
    partial.rename(disk)


def order(paths: NodePaths, verb: str) -> None:
    """Tell a machine's control socket something: `system_powerdown` or `quit`.

    Args:
        paths: the node's files.
        verb: the command.

    Raises:
        LabError: its control socket does not answer.
    """
    try:
        ask(paths.qmp, {"execute": verb}, seconds=QMP_SECONDS)
    except (OSError, ValueError) as error:
        raise LabError(f"{paths.name} does not answer on {paths.qmp}: {error}") from error
