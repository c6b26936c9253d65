"""The operator's keys for images: Secure Boot's three, and one for manifests and settings.

`private/` holds the keys (0600), `public/` what goes onto the medium and to firmware.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from cryptography.x509.oid import NameOID

from iso.enter import run_in
from iso.errors import IsoError
from iso.given import ALLOWED_SIGNERS, TEST_MARK
from iso.manifest import NAMESPACE
from ppn.durable import sync_folder, write_atomic
from ppn.errors import Refusal
from ppn.sshsig import allowed_line

SITE_NAMESPACE = "ppn-site"
# All firmware takes RSA with 2048 bits; some takes nothing larger.
RSA_BITS = 2048
# Firmware does not look at the dates; other tools do.
VALID = timedelta(days=20 * 365)
VARIABLES = ("PK", "KEK", "db")
# Who may write each variable.
WRITER = {"PK": "PK", "KEK": "PK", "db": "KEK"}
SIGNING_KEY = "image_ed25519"
# Debian's shim brings the certificate that its boot loader and kernels are signed under.
DEBIAN_CA = "usr/share/shim/debian-uefi-ca.der"
DEBIAN_CA_SHA256 = "079646974bce09b1f04da67bd722d1fb0947ae4c4010bccdbba52d5b23cbf1a2"
TEST_WARNING = (
    "These keys are for tests. Their private halves are not kept secret, so anyone can sign for\n"
    "an image that trusts them. Never enrol them on a real machine.\n"
)
# A key without its passphrase is on no disk for a moment: removed files can be read off it later.
MEMORY = Path("/dev/shm")
EFI_TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True)
class Keys:
    """A folder of keys.

    Args:
        folder: as `make` filled it.
    """

    folder: Path

    @property
    def public(self) -> Path:
        """What may be shown to anyone."""
        return self.folder / "public"

    @property
    def private(self) -> Path:
        """What must not."""
        return self.folder / "private"

    def key(self, name: str) -> Path:
        """The private key of a Secure Boot variable, PEM."""
        return self.private / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """The certificate of a Secure Boot variable, PEM."""
        return self.public / f"{name}.crt"

    @property
    def signing_key(self) -> Path:
        """The SSH key that signs manifests and site settings."""
        return self.private / SIGNING_KEY

    @property
    def allowed_signers(self) -> Path:
        """Whose manifests and settings count."""
        return self.public / ALLOWED_SIGNERS

    @property
    def test(self) -> bool:
        """Whether nobody keeps these keys secret."""
        return (self.public / TEST_MARK).exists()


def make(folder: Path, tools: Path, *, test: bool, passphrase: str | None) -> Keys:
    """Make a set of keys.

    Args:
        folder: where to; must not be there yet.
        tools: the tools tree.
        test: whether to mark them as throwaway keys.
        passphrase: protects the private keys.

    Raises:
        Refusal: the folder is there; keys are never replaced.
        CommandFailed: a tool failed.
    """
    if folder.exists():
        raise Refusal(
            f"{folder} is there already, and keys are never replaced",
            code="keys_exist",
            constraint="a new folder",
            hint="name another folder, or move this one away",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fill(Keys(partial), tools, test=test, passphrase=passphrase)
        partial.chmod(0o755)
        os.replace(partial, folder)
    except BaseException:
        # Interrupted too: no private keys stay behind.
        shutil.rmtree(partial)
        raise
    sync_folder(folder.parent)
    return Keys(folder)


def fill(keys: Keys, tools: Path, *, test: bool, passphrase: str | None) -> None:
    """Make all keys in an empty folder.

    Args:
        keys: the folder.
        tools: the tools tree.
        test: whether to mark them as throwaway keys.
        passphrase: protects the private keys.

    Raises:
        CommandFailed: a tool failed.
    """
    keys.public.mkdir()
    keys.private.mkdir(mode=0o700)
    protection: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        protection = BestAvailableEncryption(passphrase.encode())
    mark = "ppn TEST KEY, not secret:" if test else "ppn"
    made = {name: generate_private_key(65537, RSA_BITS) for name in VARIABLES}
    for name, key in made.items():
        write_pair(keys, name, key, f"{mark} {name}", protection)
    write_signing_key(keys, protection, "ppn-test" if test else "ppn")
    if test:
        (keys.public / TEST_MARK).write_text(TEST_WARNING, encoding="utf-8")
    enrol(keys, tools, made)


def write_pair(
    keys: Keys, name: str, key: RSAPrivateKey, subject: str, protection: KeySerializationEncryption
) -> None:
    """Write a Secure Boot key and its certificate, which it signs itself."""
    now = datetime.now(UTC).replace(microsecond=0)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A machine's clock may be behind.
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)
    write_atomic(keys.key(name), private, mode=0o600)
    write_atomic(keys.certificate(name), certificate.public_bytes(Encoding.PEM))
    write_atomic(keys.public / f"{name}.cer", certificate.public_bytes(Encoding.DER))


def write_signing_key(keys: Keys, protection: KeySerializationEncryption, signer: str) -> None:
    """Write the SSH key for manifests and settings, and who it stands for."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, protection)
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    write_atomic(keys.signing_key, private, mode=0o600)
    write_atomic(keys.public / f"{SIGNING_KEY}.pub", f"{line} {signer}\n".encode())
    allowed = allowed_line(signer, line, (NAMESPACE, SITE_NAMESPACE))
    write_atomic(keys.allowed_signers, allowed.encode())


def debian_ca(tools: Path) -> bytes:
    """Debian's Secure Boot certificate (DER), from the tools tree.

    Raises:
        IsoError: it is missing, or not the one that is known.
    """
    try:
        content = (tools / DEBIAN_CA).read_bytes()
    except FileNotFoundError as error:
        raise IsoError(f"the tools tree has no {DEBIAN_CA}", hint="lock shim-unsigned") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != DEBIAN_CA_SHA256:
        raise IsoError(
            f"Debian's Secure Boot certificate has the SHA-256 {digest}, not {DEBIAN_CA_SHA256}",
            code="certificate_refused",
            hint="Debian may have changed it: find out, then change iso/keys.py",
        )
    return content


def enrol(keys: Keys, tools: Path, made: Mapping[str, RSAPrivateKey]) -> None:
    """Write what firmware takes: signature lists, and updates that the right key signed.

    Args:
        keys: where the certificates are.
        tools: the tools tree.
        made: the private keys; the tool gets them in a folder that is on no disk.

    Raises:
        CommandFailed: a tool failed.
    """
    owner = str(uuid.uuid4())
    (keys.public / "owner.guid").write_text(f"{owner}\n", encoding="utf-8")
    ca = x509.load_der_x509_certificate(debian_ca(tools)).public_bytes(Encoding.PEM)
    write_atomic(keys.public / "debian.crt", ca)
    with TemporaryDirectory(prefix="ppn-keys-", dir=MEMORY) as place:
        work = Path(place)
        binds = {keys.public: "/mnt/public", work: "/mnt/work"}

        def tool(*argv: str) -> None:
            run_in(tools, argv, binds=binds, timeout=60)

        for name in (*VARIABLES, "debian"):
            esl = f"/mnt/work/{name}.esl"
            tool("cert-to-efi-sig-list", "-g", owner, f"/mnt/public/{name}.crt", esl)
        # The installed system starts Debian's boot loader and kernels, now and after updates.
        lists = {name: (work / f"{name}.esl").read_bytes() for name in (*VARIABLES, "debian")}
        lists["db"] += lists.pop("debian")
        now = datetime.now(UTC).strftime(EFI_TIME)
        for name, content in lists.items():
            write_atomic(keys.public / f"{name}.esl", content)
            writer = WRITER[name]
            clear = made[writer].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            write_atomic(work / "key", clear, mode=0o600)
            signer = ["-k", "/mnt/work/key", "-c", f"/mnt/public/{writer}.crt"]
            files = [name, f"/mnt/public/{name}.esl", f"/mnt/public/{name}.auth"]
            tool("sign-efi-sig-list", "-g", owner, "-t", now, *signer, *files)
            # The tool's own mode is for secrets.
            (keys.public / f"{name}.auth").chmod(0o644)


def opened(path: Path, passphrase: str | None, *, ssh: bool = False) -> bytes:
    """A private key without its passphrase, for a tool that could not ask for it.

    Args:
        path: its file.
        passphrase: that protects it.
        ssh: whether it is in OpenSSH's format.

    Raises:
        IsoError: `key_unusable`.
    """
    given = passphrase.encode() if passphrase is not None else None
    try:
        content = path.read_bytes()
        if ssh:
            key = load_ssh_private_key(content, given)
            return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        pem = load_pem_private_key(content, given)
        return pem.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except (ValueError, TypeError, OSError) as error:
        raise IsoError(
            f"the key {path} cannot be used: {error}",
            code="key_unusable",
            hint="give its passphrase with --passphrase-file, or at the prompt",
        ) from error


def protected(keys: Keys) -> bool:
    """Whether the private keys have a passphrase."""
    return b"ENCRYPTED" in keys.key("db").read_bytes()
