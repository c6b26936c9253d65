"""What makes a node a hypervisor: libvirt, QEMU, its settings, the ledger's trust, guest images."""

from __future__ import annotations

from pathlib import Path

from pyinfra.api import deploy

from deploys.declared import Declaration
from deploys.units import unit_file, unit_text
from deploys.vm_network import network_unit
from facts.hardware import Hardware
from operations import files, images, packages, systemd
from operations.files import File
from operations.systemd import Unit

PACKAGES = [
    "busybox-static",
    "iproute2",
    "libvirt-clients",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-system",
    "nftables",
    "python3-libvirt",
    "qemu-system-x86",
    "qemu-utils",
]
QEMU_CONF = "/etc/libvirt/qemu.conf"
SETTINGS = "/etc/ppn/node.json"
DROP_IN = "/etc/systemd/system/libvirtd.service.d/ppn.conf"


def qemu_conf(hardware: Hardware) -> str:
    """libvirt's settings for QEMU on this hardware."""
    lines = ["# Written by ppn; changes made here are undone by the next run."]
    if not hardware.cpu_controller:
        # libvirt refuses to start any guest in a cgroup tree it may not write to.
        lines += ["cgroup_controllers = [ ]"]
    return "\n".join(lines) + "\n"


@deploy("Hypervisor")
def hypervisor(
    declaration: Declaration,
    hardware: Hardware,
    folders: dict[str, str],
    installed: dict[str, File],
) -> None:
    """Make a node able to run VMs.

    Args:
        declaration: the node's settings.
        hardware: what the node has.
        folders: guest images by name, as folders on this machine.
        installed: the marker of the ppn software: the VMs' network is made anew with it.
    """
    packages.installed(name="Packages of a hypervisor", packages=PACKAGES)
    network, network_runs = network_unit(SETTINGS, installed)
    settings = {
        QEMU_CONF: File(qemu_conf(hardware), mode="0600"),
        SETTINGS: File(declaration.settings.model_dump_json(indent=2) + "\n"),
        DROP_IN: File(unit_text("libvirtd.conf")),
        **unit_file("ppn-kvm-probe.service"),
        **network,
    }
    files.rendered(name="Settings of the hypervisor", files=settings)
    systemd.units(
        name="libvirt, the KVM probe and the network of VMs",
        units=(
            Unit("libvirtd.service", restart_after=(QEMU_CONF,)),
            Unit("ppn-kvm-probe.service"),
            network_runs,
        ),
        files={**settings, **installed},
    )
    for image, folder in folders.items():
        images.present(name=f"Guest image {image}", image=image, folder=str(Path(folder)))
