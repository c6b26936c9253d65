"""The one file that firmware verifies: kernel, initial RAM disk and command line together."""

from __future__ import annotations

from iso.verity import Verity

STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
# Where firmware looks on a removable medium.
BOOT_PATH = "EFI/BOOT/BOOTX64.EFI"


def command_line(verity: Verity) -> str:
    """The kernel's command line, which the signature covers."""
    return " ".join(
        [
            *verity.words(),
            "console=tty0",
            "console=ttyS0,115200",
            "quiet",
            "panic=30",
            # An emulated machine on a busy host fails the check of its timer, and would panic.
            "no_timer_check",
            # Nobody but the installer is here to be kept from what a page of memory held before.
            "init_on_alloc=0",
            "systemd.unit=ppn-installer.target",
            "systemd.firstboot=off",
        ]
    )


def os_release(version: str) -> str:
    """What the image says it is, to boot loaders and tools that read it."""
    return (
        'NAME="ppn installer"\n'
        "ID=ppn\n"
        "ID_LIKE=debian\n"
        f"VERSION_ID={version}\n"
        f'PRETTY_NAME="ppn installer {version}"\n'
    )


def sbat(version: str) -> str:
    """Names the image's generation, so that a bad one can be revoked where shim is used."""
    return f"sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\nppn,1,ppn,ppn,{version},-\n"


def build_command(
    *, kernel: str, initrd: str, uname: str, words: str, release: str, version: str, output: str
) -> list[str]:
    """The command that joins the parts, unsigned.

    Args:
        kernel: path of the kernel's image.
        initrd: path of the initial RAM disk.
        uname: the kernel's version.
        words: its command line.
        release: text of `os-release`.
        version: of the image.
        output: path of the file to make.
    """
    # fmt: off
    return [
        "ukify", "build",
        "--linux", kernel,
        "--initrd", initrd,
        "--cmdline", words,
        "--os-release", release,
        "--uname", uname,
        "--sbat", sbat(version),
        "--stub", STUB,
        "--efi-arch", "x64",
        "--output", output,
    ]
    # fmt: on
