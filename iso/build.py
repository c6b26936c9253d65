"""Builds an image from a node root: every part, the manifest over them, and the unsigned ISO."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iso import initrd, provenance, sbom, uki, verity
from iso.given import ALLOWED_SIGNERS, TEST_MARK, need_fit, signature_of
from iso.manifest import SITE_PATHS, UNLISTED, Entry, Manifest, document, entry_of, render
from iso.source import Source
from iso.times import Times
from iso.unsigned import Unsigned, assemble, image_name, run_tool, write_sum
from ppn.durable import write_atomic

# 15 takes seven times as long for half a per cent less.
INITRD_LEVEL = 9
KEYS = "ppn/keys"


@dataclass(frozen=True)
class Inputs:
    """Everything that decides the bytes of an image, and where to build it.

    Args:
        root: the node root, for its kernel and the initial RAM disk.
        packed: the same root with ppn in it, as squashfs.
        tools: the tools tree.
        lock: the lock of packages.
        source: which source it is.
        components: what the root is made of, for the bill of materials.
        keys: the operator's public keys and enrolment files; without them none are on the medium,
            and the image trusts no site settings.
        site: signed site settings; their signature lies beside them as `.sig`.
        output: folder for the parts.
    """

    root: Path
    packed: Path
    tools: Path
    lock: Path
    source: Source
    components: Sequence[sbom.Component]
    output: Path
    keys: Path | None = None
    site: Path | None = None


def build(inputs: Inputs, times: Times) -> Unsigned:
    """Build an image.

    Args:
        inputs: what of.
        times: takes the time of each step.

    Raises:
        IsoError: the root cannot become an image, or the keys or settings are not for one.
        CommandFailed: a tool failed.
        OSError: no room, or no right.
    """
    need_fit(inputs.keys, inputs.site)
    made = Unsigned(inputs.output)
    shutil.rmtree(made.folder, ignore_errors=True)
    (made.medium / "ppn").mkdir(parents=True)
    lock_sha256 = entry_of(inputs.lock).sha256
    with times.step("verity", "Make the hash tree"):
        lay_out(inputs, made)
        verified = hash_root(inputs, made, lock_sha256)
    with times.step("initrd", "Make the initial RAM disk"):
        write_initrd(inputs, made)
    with times.step("uki", "Join kernel, initial RAM disk and command line"):
        join(inputs, made, verified)
    with times.step("documents", "Write manifest, bill of materials and provenance"):
        write_documents(inputs, made, verified, lock_sha256)
    return made


def hash_root(inputs: Inputs, made: Unsigned, lock_sha256: str) -> verity.Verity:
    """Make the packed root's hash tree."""
    data, tree = "/mnt/made/medium/ppn/root.squashfs", "/mnt/made/medium/ppn/root.verity"
    argv = verity.format_command(data, tree, lock_sha256)
    said = run_tool(inputs.tools, argv, inputs.source.epoch, {made.folder: "/mnt/made"})
    (made.medium / "ppn/root.verity").chmod(0o644)
    size = (made.medium / "ppn/root.squashfs").stat().st_size
    return verity.made(said, size, lock_sha256)


def write_initrd(inputs: Inputs, made: Unsigned) -> None:
    """Write the initial RAM disk, compressed."""
    trust = inputs.keys / ALLOWED_SIGNERS if inputs.keys is not None else None
    content = initrd.archive(inputs.root, trust.read_bytes() if trust is not None else None)
    plain = made.folder / "initrd"
    write_atomic(plain, content)
    argv = ["zstd", "-q", "--rm", f"-{INITRD_LEVEL}", "-T1", "/mnt/made/initrd"]
    run_tool(inputs.tools, argv, inputs.source.epoch, {made.folder: "/mnt/made"})


def join(inputs: Inputs, made: Unsigned, verified: verity.Verity) -> None:
    """Join the boot file."""
    kernel = initrd.kernel_of(inputs.root)
    argv = uki.build_command(
        kernel=f"/mnt/root/boot/{kernel.image.name}",
        initrd="/mnt/made/initrd.zst",
        uname=kernel.version,
        words=uki.command_line(verified),
        release=uki.os_release(inputs.source.version),
        version=inputs.source.version,
        output="/mnt/made/ppn.efi",
    )
    binds = {inputs.root: "/mnt/root", made.folder: "/mnt/made"}
    run_tool(inputs.tools, argv, inputs.source.epoch, binds)


def lay_out(inputs: Inputs, made: Unsigned) -> None:
    """Lay what was given onto the medium."""
    shutil.copyfile(inputs.packed, made.medium / "ppn/root.squashfs")
    shutil.copyfile(inputs.lock, made.medium / "ppn/packages.lock")
    if inputs.keys is not None:
        (made.medium / KEYS).mkdir()
        for path in sorted(inputs.keys.iterdir()):
            shutil.copyfile(path, made.medium / KEYS / path.name)
    if inputs.site is not None:
        given = (inputs.site, signature_of(inputs.site))
        for source, target in zip(given, SITE_PATHS, strict=True):
            shutil.copyfile(source, made.medium / target)


def write_documents(
    inputs: Inputs, made: Unsigned, verified: verity.Verity, lock_sha256: str
) -> None:
    """Write what the image says of itself; the manifest last, over all the others."""
    boot = entry_of(made.uki)
    subjects = {
        uki.BOOT_PATH: boot,
        **{name: entry_of(made.medium / "ppn" / name) for name in ("root.squashfs", "root.verity")},
    }
    files = listed(made)
    given = {path: entry for path, entry in files.items() if path.startswith(KEYS)}
    bill = sbom.document(inputs.source, lock_sha256, inputs.components)
    origin = provenance.statement(inputs.source, lock_sha256, subjects, given)
    write_atomic(made.medium / "ppn/sbom.spdx.json", document(bill))
    write_atomic(made.medium / "ppn/provenance.json", document(origin))
    manifest = Manifest(
        version=inputs.source.version,
        commit=inputs.source.commit,
        source_date_epoch=inputs.source.epoch,
        lock_sha256=lock_sha256,
        root_hash=verified.root_hash,
        test_keys=inputs.keys is not None and (inputs.keys / TEST_MARK).exists(),
        uki=boot,
        files=listed(made),
    )
    write_atomic(made.manifest_file, render(manifest))


def listed(made: Unsigned) -> dict[str, Entry]:
    """The files that the manifest names."""
    return {p: entry_of(path) for p, path in made.files().items() if p not in UNLISTED}


def build_iso(inputs: Inputs, output: Path, times: Times) -> tuple[Unsigned, Path, str]:
    """Build the parts and the unsigned ISO.

    Args:
        inputs: what of.
        output: folder for the ISO.
        times: takes the time of each step.

    Returns:
        The parts, the ISO, and its SHA-256 in hex.
    """
    made = build(inputs, times)
    image = output / image_name(made.manifest(), signed=False)
    with times.step("iso", "Make the ISO"):
        assemble(inputs.tools, made, uki=made.uki, signature=None, output=image)
        digest = write_sum(image)
    return made, image, digest
