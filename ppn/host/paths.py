"""Where a hypervisor node keeps its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """Every file ppn reads or writes on a node, below one root.

    Args:
        root: `/` on a node; a folder of its own in a test.
    """

    root: Path = Path("/")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Paths:
        """The node's paths; `PPN_ROOT` moves them all below another folder."""
        return cls(Path(environment.get("PPN_ROOT", "/")))

    @property
    def settings(self) -> Path:
        """The node's own settings, written at onboarding."""
        return self.root / "etc/ppn/node.json"

    @property
    def operator_key(self) -> Path:
        """The operator's Ed25519 public key: what the ledger is trusted by."""
        return self.root / "etc/ppn/operator.pub"

    @property
    def ledger(self) -> Path:
        """The capability ledger, a whole copy."""
        return self.root / "var/lib/ppn/ledger.jsonl"

    @property
    def images(self) -> Path:
        """The folder of guest images."""
        return self.root / "var/lib/ppn/images"

    @property
    def vms(self) -> Path:
        """The folder with one folder per VM."""
        return self.root / "var/lib/ppn/vms"

    @property
    def runtime(self) -> Path:
        """What does not outlive a boot."""
        return self.root / "run/ppn"

    @property
    def kvm_verdict(self) -> Path:
        """What the KVM probe found in this boot."""
        return self.runtime / "kvm.json"

    @property
    def lock(self) -> Path:
        """The lock under which anything on the node changes."""
        return self.runtime / "host.lock"

    @property
    def agent_settings(self) -> Path:
        """What the host agent is told at onboarding."""
        return self.root / "etc/ppn/agent.json"

    @property
    def agent_socket(self) -> Path:
        """Where the host agent listens."""
        return self.runtime / "agent.sock"

    @property
    def agent_boot(self) -> Path:
        """The boot in which the host agent last put the node in order."""
        return self.root / "var/lib/ppn/agent-boot.json"

    @property
    def timelines(self) -> Path:
        """The folder with the steps of each VM's last operations; it outlives the VMs."""
        return self.root / "var/lib/ppn/timelines"

    @property
    def network_lock(self) -> Path:
        """The lock under which addresses and ports are given, and the rules for them loaded."""
        return self.runtime / "network.lock"

    @property
    def sysfs(self) -> Path:
        """The kernel's view of the hardware."""
        return self.root / "sys"

    @property
    def procfs(self) -> Path:
        """The kernel's view of processes and memory."""
        return self.root / "proc"

    @property
    def boot_id(self) -> Path:
        """The kernel's name for the present boot."""
        return self.procfs / "sys/kernel/random/boot_id"

    @property
    def qemu_conf(self) -> Path:
        """libvirt's settings for QEMU."""
        return self.root / "etc/libvirt/qemu.conf"

    def pid_file(self, domain: str) -> Path:
        """Where libvirt keeps the process id of a running domain."""
        return self.root / f"run/libvirt/qemu/{domain}.pid"

    def qemu_log(self, domain: str) -> Path:
        """Where libvirt keeps what a domain's QEMU says."""
        return self.root / f"var/log/libvirt/qemu/{domain}.log"

    @property
    def boot(self) -> Path:
        """The node's own kernels."""
        return self.root / "boot"

    def vm(self, name: str) -> VmPaths:
        """The files of one VM."""
        return VmPaths(self.vms / name)

    def image(self, name: str) -> Path:
        """The folder of one guest image."""
        return self.images / name


@dataclass(frozen=True)
class VmPaths:
    """The files of one VM, all in its folder."""

    folder: Path

    @property
    def sidecar(self) -> Path:
        """What the VM shall be, beside its disk."""
        return self.folder / "sidecar.json"

    @property
    def known(self) -> bool:
        """Whether the folder is a VM's: it has a sidecar, sound or not."""
        return self.sidecar.exists()

    @property
    def root_disk(self) -> Path:
        """The disk the guest boots from or keeps its state on."""
        return self.folder / "disk.qcow2"

    @property
    def seed(self) -> Path:
        """The cloud-init NoCloud volume."""
        return self.folder / "seed.iso"

    @property
    def serial_log(self) -> Path:
        """What the guest wrote to its serial console."""
        return self.folder / "serial.log"

    def disk(self, name: str) -> Path:
        """The file of a disk by its name; `root` is the root disk."""
        return self.root_disk if name == "root" else self.folder / f"{name}.qcow2"

    @property
    def moving(self) -> Path:
        """What is sent to another node, or comes from one, while the VM moves."""
        return self.folder / "moving"

    def disk_names(self) -> tuple[str, ...]:
        """Names of the disks whose files are there, the root disk's among them."""
        # The root disk's file is not called by the disk's name.
        stems = sorted(path.stem for path in self.folder.glob("[a-z]*.qcow2"))
        return tuple("root" if stem == "disk" else stem for stem in stems)
