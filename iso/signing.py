"""Signs a built image, and puts signatures to it: signing and building are two things."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from iso import keys as keyring
from iso.build import KEYS
from iso.enter import run_in
from iso.errors import IsoError
from iso.given import ALLOWED_SIGNERS
from iso.manifest import NAMESPACE
from iso.times import Times
from iso.unsigned import Unsigned, assemble, image_name, write_sum
from ppn import sshsig
from ppn.durable import write_atomic

MANIFEST_SIGNATURE = "manifest.json.sig"
UKI_SIGNATURE = "ppn.efi.p7"
SECONDS = 120


@dataclass(frozen=True)
class Signatures:
    """The signatures over one built image: with its parts they give the published one.

    Args:
        folder: holds them.
    """

    folder: Path

    @property
    def manifest(self) -> Path:
        """Over the manifest, by ssh-keygen."""
        return self.folder / MANIFEST_SIGNATURE

    @property
    def uki(self) -> Path:
        """Over the boot file: Authenticode, as `sbattach` takes it."""
        return self.folder / UKI_SIGNATURE


def sign(
    unsigned: Unsigned, keys: keyring.Keys, tools: Path, output: Path, passphrase: str | None
) -> Signatures:
    """Sign the boot file and the manifest.

    Args:
        unsigned: what was built.
        keys: the operator's.
        tools: the tools tree.
        output: folder for the signatures.
        passphrase: of the private keys, when they have one.

    Raises:
        IsoError: the image bears other keys than these, or a key cannot be used.
        CommandFailed: a tool failed.
    """
    need_same_keys(unsigned, keys)
    output.mkdir(parents=True, exist_ok=True)
    made = Signatures(output)
    with TemporaryDirectory(prefix="ppn-sign-", dir=keyring.MEMORY) as name:
        work = Path(name)
        clear = keyring.opened(keys.key("db"), passphrase)
        write_atomic(work / "db.key", clear, mode=0o600)
        shutil.copyfile(keys.certificate("db"), work / "db.crt")
        # fmt: off
        argv = [
            "sbsign", "--detached",
            "--key", "/mnt/work/db.key",
            "--cert", "/mnt/work/db.crt",
            "--output", "/mnt/output/" + UKI_SIGNATURE,
            "/mnt/unsigned/ppn.efi",
        ]
        # fmt: on
        binds = {work: "/mnt/work", output: "/mnt/output", unsigned.folder: "/mnt/unsigned"}
        run_in(tools, argv, binds=binds, timeout=SECONDS)
        clear = keyring.opened(keys.signing_key, passphrase, ssh=True)
        write_atomic(work / "ssh.key", clear, mode=0o600)
        text = unsigned.manifest_file.read_text(encoding="ascii")
        signature = sshsig.sign(work / "ssh.key", text, NAMESPACE)
    write_atomic(made.manifest, signature.encode())
    return made


def need_same_keys(unsigned: Unsigned, keys: keyring.Keys) -> None:
    """Refuse to sign an image that would enrol other keys than those that sign it.

    Raises:
        IsoError: `other_keys`.
    """
    on_medium = unsigned.medium / KEYS / "db.cer"
    ours = keys.public / "db.cer"
    if not on_medium.exists() or on_medium.read_bytes() != ours.read_bytes():
        raise IsoError(
            f"the image does not bear the keys of {keys.folder}",
            code="other_keys",
            hint=f"build it with `--keys {keys.public}`, then sign",
        )


def need_fitting(unsigned: Unsigned, signatures: Signatures, tools: Path) -> None:
    """Refuse signatures over anything but these parts, or by others than the image tells to trust.

    Args:
        unsigned: what was built.
        signatures: made now, in a token, or left there by an earlier build.
        tools: the tools tree.

    Raises:
        IsoError: `signature_missing`, `signature_unfit`; `other_keys` when the image bears none.
        CommandFailed: a tool is missing or does not end.
    """
    need_both(signatures)
    signers, certificate = (unsigned.medium / KEYS / name for name in (ALLOWED_SIGNERS, "db.cer"))
    if not (signers.is_file() and certificate.is_file()):
        raise IsoError(
            "the image bears no keys, so nobody could tell whether it is signed",
            code="other_keys",
            hint="build it with `--keys FOLDER`, the public ones of who signs it",
        )
    text = unsigned.manifest_file.read_text(encoding="ascii")
    try:
        sshsig.judge(text, signatures.manifest.read_bytes(), signers, NAMESPACE)
    except sshsig.SignatureWrong as error:
        raise unfit(signatures.manifest, f"the manifest {error.message}") from error
    with TemporaryDirectory(prefix="ppn-judge-") as name:
        pem = x509.load_der_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.PEM)
        (Path(name) / "db.crt").write_bytes(pem)
        # fmt: off
        argv = [
            "sbverify",
            "--cert", "/mnt/work/db.crt",
            "--detached", "/mnt/signatures/" + UKI_SIGNATURE,
            "/mnt/unsigned/ppn.efi",
        ]
        # fmt: on
        binds = {
            Path(name): "/mnt/work",
            signatures.folder: "/mnt/signatures",
            unsigned.folder: "/mnt/unsigned",
        }
        done = run_in(tools, argv, binds=binds, timeout=SECONDS, accept=range(256))
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise unfit(signatures.uki, f"the boot file is not what db signed: {said}")


def unfit(signature: Path, why: str) -> IsoError:
    """The error for a signature that does not make an image of these parts."""
    return IsoError(
        f"{signature} does not fit what was built: {why}",
        code="signature_unfit",
        hint="it may be of an earlier build: sign what is in `unsigned` now",
    )


def need_both(signatures: Signatures) -> None:
    """Refuse to go on without one of the signatures.

    Raises:
        IsoError: `signature_missing`.
    """
    for path in (signatures.manifest, signatures.uki):
        if not path.exists():
            raise IsoError(
                f"the signature {path} is missing",
                code="signature_missing",
                hint="make it with `ppn iso sign --keys`, or with your own tool (docs/iso.md)",
            )


def attach(
    unsigned: Unsigned, signatures: Signatures, tools: Path, output: Path, times: Times
) -> tuple[Path, str]:
    """Put signatures to a built image: the published one, byte for byte.

    Args:
        unsigned: what was built.
        signatures: made now, or published.
        tools: the tools tree.
        output: folder for the ISO.
        times: takes the time of each step.

    Returns:
        The ISO, and its SHA-256 in hex.

    Raises:
        IsoError: a signature is missing.
        CommandFailed: a tool failed.
    """
    need_both(signatures)
    image = output / image_name(unsigned.manifest(), signed=True)
    with times.step("iso", "Make the signed ISO"), TemporaryDirectory(dir=output) as name:
        work = Path(name)
        shutil.copyfile(unsigned.uki, work / "ppn.efi")
        shutil.copyfile(signatures.uki, work / "p7")
        argv = ["sbattach", "--attach", "/mnt/work/p7", "/mnt/work/ppn.efi"]
        run_in(tools, argv, binds={work: "/mnt/work"}, timeout=SECONDS)
        assemble(tools, unsigned, uki=work / "ppn.efi", signature=signatures.manifest, output=image)
        return image, write_sum(image)
