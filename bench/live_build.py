"""The peer of `bench/iso.py`: Debian's own live-build, with the same packages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iso.archive import mirrors
from iso.trees import remove
from ppn.run import run

SUITE = "trixie"
# live-build itself, and what it does not say that it needs for this kind of image.
PACKAGES = (
    "ca-certificates",
    "cpio",
    "dosfstools",
    "fdisk",
    "live-build",
    "mount",
    "mtools",
    "squashfs-tools",
    "xorriso",
)
# In a mount namespace of its own; it needs the network, for it fetches what it is made of.
ENTER = """set -eu
tree=$1; work=$2; shift 2
mkdir -p "$tree/work"
mount --bind "$work" "$tree/work"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount --rbind /dev "$tree/dev"
exec chroot "$tree" env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    sh -c 'cd /work && exec lb "$@"' lb "$@"
"""
TREE_SECONDS = 600
BUILD_SECONDS = 3600
# Nothing that our image does not have either: no installer, no recommended packages, one boot
# loader, the same compression.
# fmt: off
OPTIONS = (
    "--distribution", SUITE, "--archive-areas", "main", "--linux-flavours", "amd64",
    "--apt-recommends", "false", "--apt-indices", "false", "--memtest", "none",
    "--firmware-chroot", "false", "--firmware-binary", "false", "--debian-installer", "none",
    "--binary-images", "iso-hybrid", "--bootloaders", "grub-efi",
    "--chroot-squashfs-compression-type", "zstd", "--checksums", "sha256",
    # shim's arrival makes systemd-boot look for an ESP, which the build's root has not.
    "--uefi-secure-boot", "disable",
    "--cache", "true", "--cache-packages", "true", "--cache-stages", "bootstrap",
)
# fmt: on


@dataclass(frozen=True)
class LiveBuild:
    """A live-build in a tree of its own.

    Args:
        folder: takes the tree and the build.
        packages: what the image is to have beside Debian's minimal set.
    """

    folder: Path
    packages: Sequence[str]

    @property
    def tree(self) -> Path:
        """The Debian that live-build runs in, so that this machine's versions do not matter."""
        return self.folder / "tree"

    @property
    def work(self) -> Path:
        """The folder of the build."""
        return self.folder / "work"

    def prepare(self) -> None:
        """Make the tree and configure the build; not part of what is measured.

        Raises:
            ArchiveUnusable: nobody says where an archive is.
            CommandFailed: one cannot be reached, or a program failed.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        include = f"--include={','.join(PACKAGES)}"
        argv = ["mmdebstrap", "--mode=root", "--variant=apt", include, SUITE, str(self.tree)]
        run([*argv, mirrors()["debian"]], timeout=TREE_SECONDS)
        self.configure()
        names = self.work / "config/package-lists/node.list.chroot"
        names.write_text("".join(f"{name}\n" for name in self.packages))

    def configure(self) -> None:
        """Say what is built, and from which archives."""
        found = mirrors()
        main, security = found["debian"], found["debian-security"]
        words = [f"--mirror-{stage}={main}" for stage in ("bootstrap", "chroot", "binary")]
        words += [f"--mirror-{stage}-security={security}" for stage in ("chroot", "binary")]
        self.lb("config", *OPTIONS, *words)

    def build(self) -> float:
        """Build the image, and return how long that took, in seconds.

        Raises:
            CommandFailed: live-build failed.
        """
        start = time.monotonic()
        self.lb("build")
        return time.monotonic() - start

    def clean(self) -> None:
        """Remove what a build made and keep live-build's own cache."""
        self.lb("clean")
        # That forgets that there is a configuration, too.
        self.configure()

    def size(self) -> int:
        """Bytes of the image."""
        return max(path.stat().st_size for path in self.work.glob("*.iso"))

    def lb(self, *words: str) -> None:
        """Run live-build in the folder of the build."""
        spaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        script = ["sh", "-c", ENTER, "enter", str(self.tree), str(self.work)]
        run([*spaces, *script, *words], timeout=BUILD_SECONDS)

    def remove(self) -> None:
        """Remove all of it."""
        remove(self.folder)
