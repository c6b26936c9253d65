"""Judges an image: whether every byte that counts is what the signer published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from iso import pe, verity
from iso.enter import run_in
from iso.errors import IsoError
from iso.manifest import (
    NAMESPACE,
    PATH,
    SIGNATURE_PATH,
    SITE_PATHS,
    UNLISTED,
    Entry,
    Manifest,
    entry_of,
    parse,
)
from iso.reading import Opened, take_apart
from iso.times import Times
from iso.uki import BOOT_PATH
from iso.unsigned import Unsigned, assemble
from ppn import sshsig
from ppn.errors import Refusal
from ppn.installer import signature
from ppn.run import CommandFailed, Completed

SECONDS = 300
# Under the names that a signature's faults have everywhere, the manifest's stand for themselves.
MANIFEST_CODE = {
    sshsig.Wrong.DAMAGED: "manifest_signature_damaged",
    sshsig.Wrong.NAMESPACE: "manifest_namespace_wrong",
    sshsig.Wrong.UNKNOWN_SIGNER: "manifest_signer_unknown",
    sshsig.Wrong.ALTERED: "manifest_altered",
}
DO_NOT_BOOT = "do not boot it; get it again from who published it"


@dataclass(frozen=True)
class Verified:
    """An image that is what its signer published.

    Args:
        signer: who signed the manifest, as the allowed signers' file calls him.
        manifest: what he signed.
    """

    signer: str
    manifest: Manifest


def verify(image: Path, *, signers: Path, certificate: Path, tools: Path, times: Times) -> Verified:
    """Judge an image.

    Args:
        image: the ISO.
        signers: whose manifests count, in the form of ssh-keygen's ALLOWED SIGNERS.
        certificate: under which its boot file must be signed, PEM.
        tools: the tools tree.
        times: takes the time of each step.

    Raises:
        IsoError: with a code of its own for each thing that can be wrong.
        CommandFailed: a tool is missing or does not end.
    """
    with TemporaryDirectory(prefix="ppn-verify-") as name:
        work = Path(name)
        with times.step("read", "Take the image apart"):
            opened = take_apart(image, work)
        with times.step("manifest", "Judge the manifest's signature"):
            signer, manifest = judge_manifest(opened.files, signers)
            judge_site(opened.files, signers)
        with times.step("files", "Compare every file with the manifest"):
            compare_files(opened.files, manifest)
        with times.step("boot", "Judge the boot file"):
            boot = judge_boot(opened, manifest, certificate, work, tools)
        with times.step("root", "Compute the root's hash tree"):
            judge_root(boot, manifest, work, tools)
        with times.step("frame", "Compare what stands around the files"):
            compare_frame(image, manifest, work, tools)
    return Verified(signer, manifest)


def bad(code: str, message: str) -> IsoError:
    """The error for an image that is not what its signer published."""
    return IsoError(message, code=code, hint=DO_NOT_BOOT)


def judge_manifest(files: Mapping[str, Path], signers: Path) -> tuple[str, Manifest]:
    """Find out who signed the manifest, and read it.

    Raises:
        IsoError: `manifest_missing`, `manifest_unsigned`, `manifest_signature_damaged`,
            `manifest_namespace_wrong`, `manifest_signer_unknown`, `manifest_altered`,
            `manifest_malformed`.
    """
    if PATH not in files:
        raise bad("manifest_missing", f"the image has no {PATH}")
    if SIGNATURE_PATH not in files:
        raise bad("manifest_unsigned", f"the image has no {SIGNATURE_PATH}: it is not signed")
    content = files[PATH].read_bytes()
    try:
        text = content.decode("ascii")
        signer = sshsig.judge(text, files[SIGNATURE_PATH].read_bytes(), signers, NAMESPACE)
    except UnicodeDecodeError as error:
        raise bad("manifest_altered", "the manifest is not plain text") from error
    except sshsig.SignatureWrong as error:
        raise bad(MANIFEST_CODE[error.wrong], f"the manifest {error.message}") from error
    return signer, parse(content)


def judge_site(files: Mapping[str, Path], signers: Path) -> None:
    """Refuse site settings that the image's own installer would refuse.

    Raises:
        IsoError: `settings_unsigned` or another code of the installer's.
    """
    site, proof = (files.get(path) for path in SITE_PATHS)
    if site is None:
        return
    try:
        signature.verify(site.read_bytes(), proof.read_bytes() if proof else None, signers)
    except Refusal as error:
        raise bad(error.code, f"{SITE_PATHS[0]}: {error.message}") from error


def compare_files(files: Mapping[str, Path], manifest: Manifest) -> None:
    """Compare an image's files with its manifest.

    Raises:
        IsoError: `file_missing`, `file_unnamed`, `file_altered`.
    """
    for path in sorted(manifest.files.keys() - files.keys()):
        raise bad("file_missing", f"{path} is in the manifest and not in the image")
    for path in sorted(files.keys() - manifest.files.keys() - UNLISTED):
        raise bad("file_unnamed", f"{path!r} is in the image and not in the manifest")
    for path, entry in sorted(manifest.files.items()):
        if (found := entry_of(files[path])) != entry:
            raise bad("file_altered", f"{path} is not what was signed: {different(entry, found)}")


def different(wanted: Entry, found: Entry) -> str:
    """How a file differs from its entry."""
    if wanted.size != found.size:
        return f"{found.size} bytes instead of {wanted.size}"
    return f"SHA-256 {found.sha256} instead of {wanted.sha256}"


def judge_boot(
    opened: Opened, manifest: Manifest, certificate: Path, work: Path, tools: Path
) -> bytes:
    """Judge the boot file, and return it.

    Raises:
        IsoError: `boot_file_missing`, `boot_file_unnamed`, `boot_file_unsigned`,
            `boot_file_signer_wrong`, `boot_file_altered`.
    """
    signed, plain = work / "signed", work / "plain"
    (work / "certificate").write_bytes(certificate.read_bytes())
    take_boot_file(work, tools)

    def tool(*argv: str) -> Completed:
        # Judged by what they say and by their exit code.
        binds = {work: "/mnt/work"}
        return run_in(tools, argv, binds=binds, timeout=SECONDS, accept=(0, 1))

    if "signature certificates" not in tool("sbverify", "--list", "/mnt/work/signed").stdout:
        raise bad("boot_file_unsigned", f"{BOOT_PATH} is not signed: firmware refuses it")
    plain.write_bytes(signed.read_bytes())
    tool("sbattach", "--remove", "/mnt/work/plain")
    try:
        plain.write_bytes(pe.without_checksum(plain.read_bytes()))
    except ValueError as error:
        raise bad("boot_file_altered", f"{BOOT_PATH} cannot be read: {error}") from error
    if (found := entry_of(plain)) != manifest.uki:
        how = different(manifest.uki, found)
        raise bad("boot_file_altered", f"{BOOT_PATH} is not what was built: {how}")
    if tool("sbverify", "--cert", "/mnt/work/certificate", "/mnt/work/signed").returncode != 0:
        raise bad("boot_file_signer_wrong", f"{BOOT_PATH} is not signed under {certificate}")
    return plain.read_bytes()


def take_boot_file(work: Path, tools: Path) -> None:
    """Copy the boot file out of the boot file system, which must hold nothing else."""
    wanted = f"::/{BOOT_PATH}"
    binds = {work: "/mnt/work"}
    try:
        # Hidden files too: firmware reads them like any other.
        argv = ["mdir", "-a", "-b", "-/", "-i", "/mnt/work/esp", "::"]
        said = run_in(tools, argv, binds=binds, timeout=SECONDS).stdout.split("\n")
        found = {line.strip() for line in said if line.strip() and not line.strip().endswith("/")}
        if wanted not in found:
            raise bad("boot_file_missing", f"the boot file system has no {BOOT_PATH}")
        for path in sorted(found - {wanted}):
            raise bad("boot_file_unnamed", f"the boot file system has another file: {path!r}")
        argv = ["mcopy", "-n", "-i", "/mnt/work/esp", wanted, "/mnt/work/signed"]
        run_in(tools, argv, binds=binds, timeout=SECONDS)
    except CommandFailed as error:
        raise bad("boot_file_missing", f"no boot file can be read: {error.message}") from error


def judge_root(boot: bytes, manifest: Manifest, work: Path, tools: Path) -> None:
    """Compare the root with what the boot file will demand of it.

    Raises:
        IsoError: `root_hash_mismatch`, `root_altered`.
    """
    try:
        words = pe.section(boot, ".cmdline").decode("ascii", "replace").rstrip("\0")
    except ValueError as error:
        raise bad("root_hash_mismatch", f"{BOOT_PATH} has no command line: {error}") from error
    demanded = verity.read(words)
    said = demanded.root_hash if demanded is not None else "none"
    if said != manifest.root_hash:
        raise bad(
            "root_hash_mismatch",
            f"the boot file wants the root hash {said}, the manifest says {manifest.root_hash}",
        )
    data, tree = "/mnt/files/ppn/root.squashfs", "/mnt/files/ppn/root.verity"
    argv = verity.verify_command(data, tree, manifest.root_hash)
    binds = {work / "files": "/mnt/files"}
    if run_in(tools, argv, binds=binds, timeout=SECONDS, accept=range(256)).returncode != 0:
        raise bad("root_altered", f"the root does not have the hash {manifest.root_hash}")


def compare_frame(image: Path, manifest: Manifest, work: Path, tools: Path) -> None:
    """Compare an image with what its parts make: start code, partitions, boot catalogue, all of it.

    Firmware follows them before it reads any file, and the manifest does not name them. One set of
    parts makes one image, so the parts that were judged are put together again.

    Raises:
        IsoError: `iso_frame_altered`.
    """
    again = Unsigned(work / "again")
    again.folder.mkdir()
    (work / "files").rename(again.medium)
    (work / "plain").rename(again.uki)
    assemble(tools, again, uki=work / "signed", signature=None, output=work / "image")
    if entry_of(work / "image") != entry_of(image):
        raise IsoError(
            f"{image} has more in it than its files, or another order: putting them together "
            "gives another image",
            code="iso_frame_altered",
            hint=f"{DO_NOT_BOOT}; if this checkout is of another version, verify with the one that "
            f"made it: `git checkout {manifest.commit.split('+')[0]}`",
        )
