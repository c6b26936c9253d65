"""Signs a built image, and puts signatures to it: signing and building are two things."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from iso import keys as keyring
from iso.enter import run_in
from iso.errors import IsoError
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
    with TemporaryDirectory(prefix="ppn-sign-") as name:
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
        write_atomic(work / "ssh.key", keyring.opened(keys.signing_key, passphrase, ssh=True))
        (work / "ssh.key").chmod(0o600)
        text = unsigned.manifest_file.read_text(encoding="ascii")
        signature = sshsig.sign(work / "ssh.key", text, NAMESPACE)
    write_atomic(made.manifest, signature.encode())
    return made


def need_same_keys(unsigned: Unsigned, keys: keyring.Keys) -> None:
    """Refuse to sign an image that would enrol other keys than those that sign it.

    Raises:
        IsoError: `other_keys`.
    """
    on_medium = unsigned.medium / "ppn/keys/db.cer"
    ours = keys.public / "db.cer"
    if not on_medium.exists() or on_medium.read_bytes() != ours.read_bytes():
        raise IsoError(
            f"the image does not bear the keys of {keys.folder}",
            code="other_keys",
            hint=f"build it with `--keys {keys.public}`, then sign",
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
    for path in (signatures.manifest, signatures.uki):
        if not path.exists():
            raise IsoError(
                f"the signature {path} is missing",
                code="signature_missing",
                hint="make it with `ppn iso sign --keys`, or with your own tool (docs/iso.md)",
            )
    image = output / image_name(unsigned.manifest(), signed=True)
    with times.step("iso", "Make the signed ISO"), TemporaryDirectory(dir=output) as name:
        work = Path(name)
        shutil.copyfile(unsigned.uki, work / "ppn.efi")
        shutil.copyfile(signatures.uki, work / "p7")
        argv = ["sbattach", "--attach", "/mnt/work/p7", "/mnt/work/ppn.efi"]
        run_in(tools, argv, binds={work: "/mnt/work"}, timeout=SECONDS)
        assemble(tools, unsigned, uki=work / "ppn.efi", signature=signatures.manifest, output=image)
        return image, write_sum(image)
