"""The image's initial RAM disk: busybox, dm-verity's tool, storage drivers, our first program."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from iso.enter import run_in
from iso.errors import IsoError
from lab.modules import UNPACKERS, load_order, module_name
from ppn.host import cpio

INIT = Path(__file__).with_name("live") / "init"
FOLDERS = ("bin", "dev", "lib", "lib64", "lib/modules", "newroot", "proc", "run", "sbin", "sys")
APPLETS = (
    "cat",
    "cp",
    "cut",
    "dd",
    "find",
    "grep",
    "losetup",
    "mkdir",
    "modprobe",
    "mount",
    "poweroff",
    "readlink",
    "sh",
    "sleep",
    "sort",
    "switch_root",
    "umount",
    "xargs",
)
DMSETUP = "/usr/sbin/dmsetup"
LOADER = "/lib64/ld-linux-x86-64.so.2"

# Loaded at once, by name: no device announces a need for them.
ALWAYS = ("isofs", "loop", "dm_mod", "dm_verity", "squashfs", "overlay", "sd_mod", "sr_mod")
# Also loaded at once where the kernel has it: the processor's own instructions for what dm-verity
# does with every block. The processor does announce it, in a name longer than busybox reads.
HASH = "sha256_ssse3"
# Loaded when a device asks for them.
REQUIRED = ("ahci", "nvme", "virtio_blk", "virtio_pci", "virtio_scsi")
# Whatever can stand between a processor and the medium, as far as the kernel has it.
PATTERNS = (
    "kernel/arch/x86/crypto/sha256-*",
    "kernel/drivers/ata/*",
    "kernel/drivers/block/xen-blkfront.*",
    "kernel/drivers/cdrom/*",
    "kernel/drivers/hv/hv_vmbus.*",
    "kernel/drivers/message/fusion/*",
    "kernel/drivers/mmc/*",
    "kernel/drivers/nvme/host/nvme.*",
    "kernel/drivers/pci/controller/vmd.*",
    "kernel/drivers/pci/controller/pci-hyperv*",
    "kernel/drivers/scsi/*",
    "kernel/drivers/usb/host/*",
    "kernel/drivers/usb/storage/*",
    "kernel/drivers/virtio/*",
)
# Storage across a network, tapes and test devices: no medium is ever behind them.
NOT = (
    "*/scsi/aic94xx/*",
    "*/scsi/be2iscsi/*",
    "*/scsi/bfa/*",
    "*/scsi/bnx2*",
    "*/scsi/csiostor/*",
    "*/scsi/cxgbi/*",
    "*/scsi/cxlflash/*",
    "*/scsi/elx/*",
    "*/scsi/fcoe/*",
    "*/scsi/fnic/*",
    "*/scsi/*iscsi*",
    "*/scsi/libfc/*",
    "*/scsi/lpfc/*",
    "*/scsi/pcmcia/*",
    "*/scsi/qedf/*",
    "*/scsi/qedi/*",
    "*/scsi/qla*",
    "*/scsi/scsi_debug.*",
    "*/scsi/snic/*",
    "*/scsi/st.*",
    "*/ata/pata_*",
    "*/virtio/virtio_mem.*",
    "*/virtio/virtio_balloon.*",
    "*/virtio/virtio_vdpa.*",
    "*/virtio/virtio_input.*",
)


@dataclass(frozen=True)
class Kernel:
    """A kernel of a root.

    Args:
        root: the root file system.
        version: as `uname -r` says it.
    """

    root: Path
    version: str

    @property
    def modules(self) -> Path:
        """Its module folder."""
        return self.root / "usr/lib/modules" / self.version

    @property
    def image(self) -> Path:
        """What firmware or a boot loader starts."""
        return self.root / "boot" / f"vmlinuz-{self.version}"

    @property
    def initrd(self) -> Path:
        """The initial RAM disk that Debian's programs start it with from a disk."""
        return self.root / "boot" / f"initrd.img-{self.version}"


def kernel_of(root: Path) -> Kernel:
    """The one kernel of a root.

    Raises:
        IsoError: it has none, or several.
    """
    found = sorted(path.name for path in (root / "usr/lib/modules").glob("*"))
    if len(found) != 1:
        raise IsoError(
            f"the root {root} has {len(found)} kernels, not 1: {', '.join(found)}",
            hint="name exactly one linux-image package in iso/node-packages.txt, lock, build again",
        )
    return Kernel(root, found[0])


def wanted(dependencies: str, built_in: str) -> tuple[str, ...]:
    """Module files for the initial RAM disk, dependencies before those who need them.

    Args:
        dependencies: text of the kernel's `modules.dep`.
        built_in: text of the kernel's `modules.builtin`.

    Raises:
        ModuleMissing: the kernel lacks a module without which nothing boots.
    """
    paths = [line.split(":", 1)[0] for line in dependencies.splitlines()]
    storage = [module_name(path) for path in paths if _is_storage(path)]
    return load_order(dependencies, built_in, [*ALWAYS, *REQUIRED, *sorted(storage)])


def _is_storage(path: str) -> bool:
    return any(fnmatch.fnmatch(path, pattern) for pattern in PATTERNS) and not any(
        fnmatch.fnmatch(path, pattern) for pattern in NOT
    )


def dependency_file(dependencies: str, paths: Sequence[str]) -> str:
    """`modules.dep` for modules that lie unpacked in one folder.

    Args:
        dependencies: text of the kernel's `modules.dep`.
        paths: the modules that are taken.
    """
    needs = dict(line.split(":", 1) for line in dependencies.splitlines() if ":" in line)
    return "".join(
        " ".join([f"{_flat(path)}:", *(_flat(need) for need in needs[path].split())]) + "\n"
        for path in sorted(paths)
    )


def alias_file(aliases: str, paths: Iterable[str]) -> str:
    """Those lines of `modules.alias` that name a module that is taken."""
    taken = {module_name(path) for path in paths}
    lines = (line for line in aliases.splitlines() if line.startswith("alias "))
    return "".join(f"{line}\n" for line in sorted(lines) if line.rsplit(" ", 1)[1] in taken)


def _flat(path: str) -> str:
    return f"{PurePosixPath(path).name.split('.', 1)[0]}.ko"


def driver_members(kernel: Kernel) -> list[cpio.Member]:
    """The drivers with what `modprobe` needs to find them.

    Args:
        kernel: whose.

    Raises:
        ModuleMissing: the kernel lacks a module without which nothing boots.
        OSError: the root has no such kernel.
    """
    dependencies = (kernel.modules / "modules.dep").read_text()
    paths = wanted(dependencies, (kernel.modules / "modules.builtin").read_text())
    aliases = alias_file((kernel.modules / "modules.alias").read_text(), paths)
    folder = f"lib/modules/{kernel.version}"
    members = [
        cpio.folder(folder),
        cpio.file(f"{folder}/modules.dep", dependency_file(dependencies, paths).encode()),
        cpio.file(f"{folder}/modules.alias", aliases.encode()),
    ]
    loadable = {module_name(path) for path in paths}
    always = "".join(f"{name}\n" for name in (HASH, *ALWAYS) if name in loadable)
    members.append(cpio.file("modules", always.encode()))
    for path in paths:
        content = UNPACKERS[PurePosixPath(path).suffix]((kernel.modules / path).read_bytes())
        members.append(cpio.file(f"{folder}/{_flat(path)}", content))
    return members


def libraries(listing: str) -> tuple[str, ...]:
    """Paths of the shared libraries in what the dynamic loader lists for a program."""
    return tuple(sorted(re.findall(r"(?:=> )?(/\S+) \(0x[0-9a-f]+\)", listing)))


def dmsetup_members(root: Path) -> list[cpio.Member]:
    """`dmsetup` of a root, with the libraries it is linked to."""
    listing = run_in(root, [LOADER, "--list", DMSETUP], timeout=60).stdout
    needed = {LOADER, *libraries(listing)}
    folders = {str(parent) for path in needed for parent in PurePosixPath(path[1:]).parents}
    members = [cpio.folder(path) for path in folders - {".", *FOLDERS}]
    for path in needed:
        members.append(cpio.file(path[1:], (root / path[1:]).read_bytes(), mode=0o755))
    content = (root / DMSETUP[1:]).read_bytes()
    return [*members, cpio.file("bin/dmsetup", content, mode=0o755)]


def trust_members(allowed_signers: bytes | None) -> list[cpio.Member]:
    """Who may sign site settings, where the image trusts anyone to.

    Args:
        allowed_signers: lines as `ssh-keygen` reads them.
    """
    if allowed_signers is None:
        return []
    return [cpio.folder("trust"), cpio.file("trust/allowed_signers", allowed_signers)]


def archive(root: Path, allowed_signers: bytes | None) -> bytes:
    """The initial RAM disk, not compressed yet; the same bytes for the same root.

    Args:
        root: the node root.
        allowed_signers: who may sign site settings.

    Raises:
        IsoError, ModuleMissing: the root has no kernel that could do it.
        CommandFailed: `dmsetup` is missing.
    """
    busybox = (root / "usr/bin/busybox").read_bytes()
    return cpio.archive(
        [
            *(cpio.folder(path) for path in FOLDERS),
            cpio.character_device("dev/console", 5, 1),
            cpio.character_device("dev/null", 1, 3),
            cpio.file("bin/busybox", busybox, mode=0o755),
            *(cpio.link(f"bin/{applet}", "busybox") for applet in APPLETS),
            # The kernel itself calls it, for example for the fastest SHA-256.
            cpio.link("sbin/modprobe", "../bin/busybox"),
            cpio.file("init", INIT.read_bytes(), mode=0o755),
            *driver_members(kernel_of(root)),
            *dmsetup_members(root),
            *trust_members(allowed_signers),
        ]
    )
