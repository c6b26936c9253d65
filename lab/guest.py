"""Guest images for trials and tests: a tiny one that boots in seconds, and a real Debian."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from iso.cache import Cache
from iso.lock import Lock
from iso.root import guest_recipe
from iso.trees import building, packages_place, remove
from lab.image import Image, ensure, make_disk, node_image
from lab.initrd import (
    APPLETS,
    DISK_DRIVERS,
    DISK_INIT,
    LEANER,
    ONE_AT_FIRST,
    ONE_BUS,
    TRUSTED,
    TRUSTING,
    disk_initrd,
    initrd,
)
from lab.kernel import unpack
from lab.modules import read_modules
from lab.paths import cache_folder
from lab.steps import step
from ppn.durable import write_atomic
from ppn.host import cpio
from ppn.run import run

HERE = Path(__file__).parent
DRIVERS = (
    "virtio_pci",
    "virtio_blk",
    "virtio_balloon",
    "virtio_net",
    "isofs",
    "button",
    "evdev",
    "qemu_fw_cfg",
)
# What the tiny guest needs besides what every first program does.
WORKING_APPLETS = (
    *("awk", "dd", "httpd", "ip", "mkfifo", "nc", "rm"),
    *("sha256sum", "sync", "umount"),
)
# What it shows itself with: `ppn.show=1`.
SHOWING_APPLETS = ("base64", "cp", "dmesg", "find", "grep", "gzip", "ping", "sed", "tar", "xargs")
MORE_APPLETS = (*WORKING_APPLETS, *SHOWING_APPLETS)
MORE_FOLDERS = ("seed", "seen", "www", "www/cgi-bin")
INIT, BURN = HERE / "guest_init.sh", HERE / "guest_burn.sh"
POWER_BUTTON = b"#!/bin/sh\nexec poweroff -f\n"
# What a kernel does to guard itself, to test its ciphers, to make sure of its clock, to look for a
# keyboard and to show its insides is half of a trial's boot, and a trial has no secret to keep.
UNUSED = (
    "crypto_kdf108_init",
    "i8042_init",
    "init_encrypted",
    "jent_mod_init",
    "load_system_certificate_list",
    "param_sysfs_builtin_init",
    "slab_late_init",
    "trace_eval_init",
)
UNGUARDED = (
    "mitigations=off rodata=off apparmor=0 audit=0 tsc=reliable"
    f" cryptomgr.notests initcall_blacklist={','.join(UNUSED)}"
)
TINY_CMDLINE = f"console=ttyS0 quiet {ONE_AT_FIRST} {TRUSTING} {ONE_BUS} {UNGUARDED}"
DEBIAN_CMDLINE = f"root=/dev/vda rw console=ttyS0 quiet net.ifnames=0 {TRUSTED} {TRUSTING} {LEANER}"
# Room to boot in; a VM's own disk is larger, and the guest grows into it.
DEBIAN_DISK = "2G"


def build(output: Path, kernel: Path, modules: Path, busybox: Path) -> Path:
    """Build the tiny guest's image folder.

    Args:
        output: folder to fill; made when absent.
        kernel: the kernel's boot image.
        modules: the same kernel's `lib/modules/VERSION`.
        busybox: a statically linked busybox.

    Returns:
        `output`, holding `kernel`, `initrd` and, written last, `manifest.json`.

    Raises:
        LabError: the kernel cannot be unpacked.
        ModuleMissing: it lacks a driver the guest needs.
        OSError: a source is missing or the folder cannot be written.
    """
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "initrd", tiny_initrd(modules, busybox))
    unpack(kernel, output / "kernel")
    described = manifest("tiny", output, ("initrd", "kernel"), TINY_CMDLINE)
    write_atomic(output / "manifest.json", described)
    return output


def tiny_initrd(modules: Path, busybox: Path) -> bytes:
    """The tiny guest's whole system."""
    button = cpio.file("bin/power-button", POWER_BUTTON, mode=0o755)
    drivers = read_modules(modules, DRIVERS)
    more = [
        *(cpio.link(f"bin/{applet}", "busybox") for applet in MORE_APPLETS),
        *(cpio.folder(path) for path in MORE_FOLDERS),
        cpio.file("www/cgi-bin/burn", BURN.read_bytes(), mode=0o755),
        cpio.link("www/cgi-bin/rest", "burn"),
    ]
    return initrd(busybox.read_bytes(), drivers, INIT.read_bytes(), (button, *more))


def cached() -> Path:
    """The tiny guest's image folder, made now, with the node image, if it is not there yet.

    Raises:
        LabError: an image cannot be built.
    """
    image = node_image()
    # The RAM disk is quickly made: its own bytes are the name, so that no change is missed.
    content = tiny_initrd(image.modules, image.busybox)
    digest = hashlib.sha256(content + TINY_CMDLINE.encode() + image.digest.encode()).hexdigest()
    folder = cache_folder() / f"tiny-{digest[:12]}"
    with building(cache_folder(), folder.name):
        if not (folder / "manifest.json").exists():
            build(folder, image.kernel, image.modules, image.busybox)
    return folder


def cached_debian() -> Path:
    """A Debian guest's image folder, with cloud-init, made now if it is not there yet.

    Raises:
        LabError: it cannot be built.
    """
    recipe = guest_recipe()
    start = [DEBIAN_CMDLINE, DEBIAN_DISK, *APPLETS, *DISK_DRIVERS, DISK_INIT.read_text()]
    digest = hashlib.sha256("\0".join([recipe.digest(Lock.read()), *start]).encode()).hexdigest()
    folder = cache_folder() / f"debian-{digest[:12]}"
    with building(cache_folder(), folder.name):
        if not (folder / "manifest.json").exists():
            image = ensure(recipe)
            build_debian(folder, image)
            # The disk holds all of it, and whoever wants it waits for this lock.
            remove(image.folder)
            remove(packages_place(recipe, Lock.read(), Cache(cache_folder())))
    return folder


def build_debian(output: Path, image: Image) -> Path:
    """Build the Debian guest's image folder from its root file system."""
    output.mkdir(parents=True, exist_ok=True)
    with step("Make the Debian guest's disk"):
        raw, disk = output / "disk.raw", output / "disk.qcow2"
        make_disk(image.root, raw, DEBIAN_DISK)
        converted = ["-f", "raw", "-O", "qcow2", str(raw), f"{disk}.new"]
        run(["qemu-img", "convert", *converted], timeout=300)
        os.replace(f"{disk}.new", disk)
        raw.unlink()
        write_atomic(output / "kernel", image.kernel.read_bytes())
        write_atomic(output / "initrd", disk_initrd(image.modules, image.busybox))
        files = ("disk.qcow2", "initrd", "kernel")
        described = manifest("debian", output, files, DEBIAN_CMDLINE, disk=disk.name)
        write_atomic(output / "manifest.json", described)
    return output


def manifest(
    name: str, folder: Path, files: Sequence[str], cmdline: str, disk: str | None = None
) -> bytes:
    """The image folder's description, as the nodes read it.

    Args:
        name: name of the image.
        folder: where its files are.
        files: their names.
        cmdline: the kernel's command line.
        disk: file name of the base disk, if there is one.
    """
    digests = {}
    for file in sorted(files):
        with (folder / file).open("rb") as content:
            digests[file] = hashlib.file_digest(content, "sha256").hexdigest()
    fields = {
        "name": name,
        "disk": disk,
        "kernel": "kernel",
        "initrd": "initrd",
        "cmdline": cmdline,
        "sha256": digests,
    }
    return json.dumps(fields, indent=2).encode() + b"\n"
