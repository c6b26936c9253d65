"""The installation as a list of steps: pure, so that a test can say what is written and in which
order.

The mark comes first and is completed last (`mark`). Before it is complete nothing on the disk can
be started but by the last step but one, so a power cut anywhere leaves a disk that the next start
of the medium installs from the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ppn.installer import render
from ppn.installer.disks import Disk
from ppn.installer.mark import PARTITIONS, Mark, State
from ppn.installer.render import File

MINUTE = 60.0
HALF_HOUR = 30 * MINUTE
ESP, DATA = render.ESP_MOUNT, render.DATA_MOUNT
BY_UUID = Path("/dev/disk/by-partuuid")
# All but the search for what each kernel module needs, which the image's root has had.
KERNEL_PLUGINS = (
    "/usr/lib/kernel/install.d/55-initrd.install",
    "/usr/lib/kernel/install.d/90-loaderentry.install",
)
LABEL_OF_FAT = "PPN-ESP"
LOADER = """# The newest kernel starts at once; hold the space bar for the list.
timeout 0
editor no
"""


@dataclass(frozen=True)
class PutMark:
    """Write the mark, and wait until it is on the disk."""

    mark: Mark


@dataclass(frozen=True)
class Run:
    """Run a program.

    Args:
        argv: the program and its words.
        seconds: its deadline.
        shown: whether its output is for the console.
    """

    argv: tuple[str, ...]
    seconds: float = MINUTE
    shown: bool = False


@dataclass(frozen=True)
class Appear:
    """Wait until partitions are there, and make sure that they are this disk's.

    Args:
        devices: the partitions.
        disk: the device that they must be on.
        seconds: how long to wait.
    """

    devices: tuple[Path, ...]
    disk: Path
    seconds: float = MINUTE


@dataclass(frozen=True)
class WriteFiles:
    """Write files below a folder, by their absolute paths there."""

    folder: Path
    files: Mapping[str, File] = field(hash=False)


@dataclass(frozen=True)
class CopyTree:
    """Copy a file system, with owners, modes, links and attributes."""

    source: Path
    target: Path
    seconds: float = 60 * MINUTE


Action = PutMark | Run | Appear | WriteFiles | CopyTree


@dataclass(frozen=True)
class Step:
    """What the console calls it, and what is done."""

    title: str
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Folders:
    """Where the installer works, in memory.

    Args:
        work: its own files.
    """

    work: Path = Path("/run/ppn/installer")

    @property
    def target(self) -> Path:
        """Where the new system is mounted."""
        return self.work / "target"

    @property
    def definitions(self) -> Path:
        """The partitions' definitions."""
        return self.work / "repart.d"


def installation(
    disk: Disk, mark: Mark, files: Mapping[str, File], root: Path, kernel: str, folders: Folders
) -> tuple[Step, ...]:
    """All steps that make a node of a disk.

    Args:
        disk: the chosen one.
        mark: of this installation, complete.
        files: what makes a node of the copied root.
        root: where the verified root is mounted.
        kernel: release of the kernel in it.
        folders: where to work.
    """
    unfinished = mark.model_copy(update={"state": State.UNFINISHED})
    return (
        Step("Show the partitions to be made", rehearsal(disk, mark, folders)),
        Step(f"Mark {disk.name} as being installed", (PutMark(unfinished),)),
        Step(
            "Make the partitions",
            (
                Run(repart(disk, mark, folders, dry=False), 5 * MINUTE),
                Run(("udevadm", "settle", "--timeout=30")),
                Appear(tuple(device(mark, label) for label in PARTITIONS), Path(disk.path)),
            ),
        ),
        Step("Make the file systems", tuple(map(Run, file_systems(mark), (10 * MINUTE,) * 3))),
        Step("Mount them", tuple(map(Run, mounts(mark, folders)))),
        Step("Copy the system", (CopyTree(root, folders.target),)),
        Step("Write this node's settings", settle_in(files, folders.target)),
        Step(
            "Add the kernel to the boot menu", (Run(kernel_install(kernel, folders), 5 * MINUTE),)
        ),
        Step("Write everything to the disk", (Run(sync(folders), HALF_HOUR),)),
        Step("Install the boot loader", (Run(boot_loader(folders), MINUTE),)),
        Step(
            "Unmount",
            (
                Run(("umount", "--recursive", str(folders.target)), 10 * MINUTE),
                Run(("blockdev", "--flushbufs", disk.path), 10 * MINUTE),
            ),
        ),
        Step(f"Mark {disk.name} as installed", (PutMark(mark),)),
    )


def rehearsal(disk: Disk, mark: Mark, folders: Folders) -> tuple[Action, ...]:
    """What shows the partitions and changes nothing on the disk."""
    return (
        Run(("mkdir", "-p", str(folders.target))),
        WriteFiles(folders.definitions, _definitions(mark)),
        Run(repart(disk, mark, folders, dry=True), shown=True),
    )


def device(mark: Mark, label: str) -> Path:
    """The device of a partition of this installation, by its UUID."""
    return BY_UUID / str(mark.partition(label))


def repart(disk: Disk, mark: Mark, folders: Folders, *, dry: bool) -> tuple[str, ...]:
    """The call that makes the partitions, or only shows them."""
    # fmt: off
    return (
        "systemd-repart",
        f"--dry-run={'yes' if dry else 'no'}",
        "--empty=force",
        # Of what it would throw away, the mark must stay.
        "--discard=no",
        f"--seed={mark.seed}",
        f"--definitions={folders.definitions}",
        "--no-pager",
        disk.path,
    )
    # fmt: on


def file_systems(mark: Mark) -> tuple[tuple[str, ...], ...]:
    """The calls that make the three file systems."""
    esp, root, data = (mark.partition(label) for label in PARTITIONS)
    ext4 = ("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,root_owner=0:0")
    paths = [str(device(mark, label)) for label in PARTITIONS]
    return (
        ("mkfs.vfat", "-F", "32", "-n", LABEL_OF_FAT, "-i", f"{esp.int >> 96:08x}", paths[0]),
        (*ext4, "-L", "ppn-root", "-U", str(root), paths[1]),
        # VMs' disks are few and large: room for files, not for many of them.
        (*ext4, "-T", "largefile", "-m", "1", "-L", "ppn-data", "-U", str(data), paths[2]),
    )


def mounts(mark: Mark, folders: Folders) -> tuple[tuple[str, ...], ...]:
    """The calls that mount the new system, with all that a program in it needs."""
    target = folders.target
    parts = [str(device(mark, label)) for label in PARTITIONS]
    esp, data, udev = (f"{target}{where}" for where in (ESP, DATA, "/run/udev"))
    kernel_folders = [f"{target}/{name}" for name in ("dev", "proc", "sys")]
    return (
        ("mount", "-t", "ext4", parts[1], str(target)),
        ("mkdir", "-p", esp, data, *kernel_folders, f"{target}/run"),
        ("mount", "-t", "vfat", "-o", "umask=0077", parts[0], esp),
        ("mount", "-t", "ext4", parts[2], data),
        *(("mount", "--rbind", "--make-rslave", f"/{Path(f).name}", f) for f in kernel_folders),
        ("mount", "-t", "tmpfs", "tmpfs", f"{target}/run"),
        ("mkdir", "-p", udev),
        ("mount", "--bind", "/run/udev", udev),
    )


def settle_in(files: Mapping[str, File], target: Path) -> tuple[Action, ...]:
    """What turns the copied root into this one node's."""
    return (
        WriteFiles(target, {**files, f"{ESP}/loader/loader.conf": File(LOADER)}),
        Run(("systemd-machine-id-setup", f"--root={target}")),
    )


def kernel_install(kernel: str, folders: Folders) -> tuple[str, ...]:
    """The call that puts the kernel into the boot loader's list, as Debian's updates will do."""
    plugins = f"KERNEL_INSTALL_PLUGINS={' '.join(KERNEL_PLUGINS)}"
    words = ("env", plugins, "kernel-install", "add", kernel, f"/boot/vmlinuz-{kernel}")
    return ("chroot", str(folders.target), *words)


def sync(folders: Folders) -> tuple[str, ...]:
    """The call that writes out all three file systems; the last one flushes the disk's cache."""
    return ("sync", "-f", *(f"{folders.target}{where}" for where in (ESP, DATA, "/")))


def boot_loader(folders: Folders) -> tuple[str, ...]:
    """The call that installs the boot loader; the firmware's own list is changed at the end."""
    # fmt: off
    words = (
        "bootctl", "install", "--no-variables", f"--esp-path={ESP}", "--no-pager",
        "--make-entry-directory=no",
    )
    # fmt: on
    return ("chroot", str(folders.target), *words)


def _definitions(mark: Mark) -> dict[str, File]:
    return {f"/{name}": File(text) for name, text in render.repart_definitions(mark).items()}
