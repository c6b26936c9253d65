"""Initial RAM disks: busybox, a few drivers and a first program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.modules import read_modules
from ppn.host import cpio

APPLETS = (
    "acpid",
    "cat",
    "insmod",
    "ln",
    "mkdir",
    "mount",
    "nproc",
    "poweroff",
    "renice",
    "sh",
    "sleep",
    "switch_root",
)
FOLDERS = ("bin", "dev", "etc", "modules", "proc", "root", "sys")
# ext4 asks for the checksum by name, which no dependency of modules tells.
DISK_DRIVERS = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
DISK_INIT = Path(__file__).with_name("root_init.sh")

# A q35 machine could have 256 root buses and has one: a kernel asks for all 8,160 places of the
# others, which are two thirds of the exits of a guest that boots under KVM.
ONE_BUS = "pci=lastbus=0"
# On a busy machine an emulated timer may seem dead to a kernel that tries it, which then panics.
TRUSTING = "no_timer_check"
# Under emulation each program started costs tens of milliseconds; trials need none of these.
MASKED = (
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "polkit.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-pstore.service",
    "user@0.service",
)
LEANER = " ".join(f"systemd.mask={unit}" for unit in MASKED)
# Under QEMU 10.0's virtualisation a processor that ran a guest has stopped to take interrupts, as
# if one had been lost (two threads change the pending ones). With ticks there is a next one.
TICKING = "nohz=off highres=off"
# QEMU 10.0 sends astray now and then what an emulated processor tells a device while another one
# moves devices about in memory (its issue 3040): an interrupt never ends, and no other comes. So
# there is one processor until the devices have their places; the others are started by what boots.
# Measuring the speed of each that comes later would take it seconds: it is told, as 2.5 GHz, for
# waits that no emulated device needs. Nor is the kernel's code made one for a single processor.
ONE_AT_FIRST = "maxcpus=1 lpj=10000000 noreplace-smp"
# Guarding against other tenants costs time, and a lab's machine has none.
TRUSTED = "mitigations=off init_on_alloc=0"
MACHINE = f"{TRUSTED} {ONE_AT_FIRST} {TICKING} {TRUSTING} {LEANER}"


def initrd(
    busybox: bytes,
    drivers: Sequence[tuple[str, bytes]],
    init: bytes,
    extra: Sequence[cpio.Member] = (),
) -> bytes:
    """An initial RAM disk.

    Args:
        busybox: a statically linked busybox.
        drivers: (file name, content) of kernel modules in loading order.
        init: the script the kernel starts.
        extra: further files.

    Returns:
        The same bytes for the same input.
    """
    order = "".join(f"{name}\n" for name, _ in drivers)
    members = [
        *(cpio.folder(path) for path in FOLDERS),
        cpio.character_device("dev/console", 5, 1),
        cpio.character_device("dev/null", 1, 3),
        cpio.file("bin/busybox", busybox, mode=0o755),
        *(cpio.link(f"bin/{applet}", "busybox") for applet in APPLETS),
        cpio.file("init", init, mode=0o755),
        cpio.file("modules/order", order.encode()),
        *(cpio.file(f"modules/{name}", content) for name, content in drivers),
        *extra,
    ]
    return cpio.archive(members)


def disk_initrd(modules: Path, busybox: Path) -> bytes:
    """An initial RAM disk that starts the system on the first virtio disk.

    Args:
        modules: the kernel's `lib/modules/VERSION`.
        busybox: a statically linked busybox.

    Raises:
        ModuleMissing: the kernel lacks a driver for the disk.
        OSError: a source is missing.
    """
    drivers = read_modules(modules, DISK_DRIVERS)
    return initrd(busybox.read_bytes(), drivers, DISK_INIT.read_bytes())
