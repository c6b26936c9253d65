"""The initial RAM disk that an installed node starts with: made once, for every machine."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from iso.enter import run_in
from iso.initrd import Kernel, kernel_of
from iso.lock import Lock
from iso.root import debian_initrd

# One or more of each kind of machine: server, workstation, virtual, and what a cloud calls metal.
STORAGE = (
    "aacraid ahci ata_piix hpsa hv_storvsc megaraid_sas mmc_block mpi3mr mpt3sas mptsas nvme"
    " pci-hyperv qla2xxx sd_mod sdhci-pci smartpqi uas ufshcd-pci usb-storage virtio_blk virtio_pci"
    " virtio_scsi vmd vmw_pvscsi xen-blkfront xhci-pci"
)


def listed(kernel: Kernel) -> list[PurePosixPath]:
    """All files of it, as Debian's own program lists them."""
    argv = ["lsinitramfs", f"/boot/{kernel.initrd.name}"]
    return [PurePosixPath(line) for line in run_in(kernel.root, argv, timeout=60).stdout.split()]


def test_it_has_what_any_disk_of_a_root_hangs_on(trees: tuple[Path, Path]) -> None:
    """ISO-04: whatever disk the installer finds, the system on it finds its root again."""
    files = listed(kernel_of(trees[1]))
    modules = {path.name.split(".", 1)[0] for path in files if "modules" in path.parts}
    built_in = (kernel_of(trees[1]).modules / "modules.builtin").read_text()
    modules |= {PurePosixPath(line).stem for line in built_in.splitlines()}
    assert {*STORAGE.split(), "ext4"} <= modules
    assert PurePosixPath("usr/sbin/fsck.ext4") in files


def test_the_same_root_makes_the_same_bytes(trees: tuple[Path, Path]) -> None:
    """ISO-02: the machine that builds it leaves nothing in it."""
    kernel = kernel_of(trees[1])
    assert debian_initrd(kernel.root, Lock.read().epoch) == kernel.initrd.read_bytes()
