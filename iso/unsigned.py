"""A built image that nobody has signed yet: its parts in a folder, and the ISO made of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from iso import esp, medium
from iso.enter import run_in
from iso.errors import IsoError
from iso.manifest import PATH, SIGNATURE_PATH, Manifest, entry_of, parse
from ppn.durable import put_in_place, write_atomic

# A detached signature with its certificate takes about 2 KiB in the boot file.
SIGNATURE_ROOM = 16 << 10


@dataclass(frozen=True)
class Unsigned:
    """The parts of an image.

    Args:
        folder: holds `medium`, the files of the ISO, and `ppn.efi`, the boot file.
    """

    folder: Path

    @property
    def medium(self) -> Path:
        """The files of the ISO, the signature of the manifest aside."""
        return self.folder / "medium"

    @property
    def uki(self) -> Path:
        """The boot file, unsigned."""
        return self.folder / "ppn.efi"

    @property
    def manifest_file(self) -> Path:
        """The manifest, as it is signed."""
        return self.medium / PATH

    def manifest(self) -> Manifest:
        """The manifest, read.

        Raises:
            IsoError: `not_built`: it is written last, so there is none of what was interrupted.
        """
        try:
            return parse(self.manifest_file.read_bytes())
        except FileNotFoundError as error:
            raise IsoError(
                f"{self.folder} holds no whole image",
                code="not_built",
                hint="build it with `ppn iso build`",
            ) from error

    def files(self) -> dict[str, Path]:
        """Every file of the ISO by its path there."""
        found = (path for path in self.medium.rglob("*") if path.is_file())
        return {path.relative_to(self.medium).as_posix(): path for path in sorted(found)}


def image_name(manifest: Manifest, *, signed: bool) -> str:
    """What the ISO is called: a glance must tell an image that nobody should trust."""
    mark = "TEST-KEYS-" if manifest.test_keys else ""
    return f"ppn-{mark}{manifest.version}{'' if signed else '-unsigned'}.iso"


def assemble(
    tools: Path, unsigned: Unsigned, *, uki: Path, signature: Path | None, output: Path
) -> None:
    """Make the ISO.

    Args:
        tools: the tools tree.
        unsigned: its parts.
        uki: the boot file to take, signed or not.
        signature: of the manifest, when there is one.
        output: the file to make; replaced when it is whole.

    Raises:
        Refusal: the boot file is too large for firmware.
        CommandFailed: a tool failed.
    """
    files = unsigned.files()
    if signature is not None:
        files[SIGNATURE_PATH] = signature
    manifest = unsigned.manifest()
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".assemble-", dir=output.parent) as name:
        work = Path(name)
        shutil.copyfile(uki, work / "ppn.efi")
        # Signed or not, the file system has one size.
        size = esp.size_for(unsigned.uki.stat().st_size + SIGNATURE_ROOM)
        for argv in esp.commands("/mnt/work/esp", "/mnt/work/ppn.efi", size, manifest.lock_sha256):
            run_tool(tools, argv, manifest.source_date_epoch, {work: "/mnt/work"})
        tree = work / "medium"
        place(files, tree)
        argv = medium.command(
            folder="/mnt/work/medium",
            esp="/mnt/work/esp",
            output="/mnt/work/iso",
            paths=tuple(files),
            digest=manifest.lock_sha256,
            epoch=manifest.source_date_epoch,
        )
        run_tool(tools, argv, manifest.source_date_epoch, {work: "/mnt/work"})
        (work / "iso").chmod(0o644)
        put_in_place(work / "iso", output)


def place(files: Mapping[str, Path], tree: Path) -> None:
    """Lay files into a folder under their paths, without a second copy of their bytes."""
    for path, source in files.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(source.resolve())


def run_tool(tools: Path, argv: list[str], epoch: int, binds: Mapping[Path, str]) -> str:
    """Run a program of the tools tree with the image's time, and return its output.

    Args:
        tools: the tools tree.
        argv: the program and its arguments.
        epoch: the image's time, in seconds since 1970.
        binds: folders of this machine, and where the program sees them.

    Raises:
        CommandFailed: it failed.
    """
    env = {"SOURCE_DATE_EPOCH": str(epoch)}
    return run_in(tools, argv, binds=binds, timeout=900, env=env).stdout


def write_sum(image: Path) -> str:
    """Write an ISO's SHA-256 beside it, as `sha256sum --check` reads it, and return it."""
    digest = entry_of(image).sha256
    write_atomic(image.with_name(f"{image.name}.sha256"), f"{digest}  {image.name}\n".encode())
    return digest
