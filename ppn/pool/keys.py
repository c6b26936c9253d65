"""The operator's Ed25519 key pair; its private half never leaves the operator's machine.

`PATH` holds the private key (PEM PKCS8, mode 0600), `PATH.pub` by default the public key (PEM).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ppn.durable import sync_folder
from ppn.errors import PpnError

# A PEM Ed25519 key has about 120 bytes; anything much larger is another file.
MAX_KEY_BYTES = 4096


class KeyUnusable(PpnError):
    """A key file that is missing, exposed, of another kind, or in the way."""

    code = "key_unusable"


def public_path(path: Path) -> Path:
    """Where the public key of a private key file stands: beside it, with `.pub` at the end."""
    return path.with_name(path.name + ".pub")


def public_pem(key: Ed25519PublicKey) -> bytes:
    """The one encoding of a public key that ppn writes and compares."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: Ed25519PublicKey) -> str:
    """Hex SHA-256 of the public key file, as `sha256sum PATH.pub` prints it."""
    return hashlib.sha256(public_pem(key)).hexdigest()


def generate(path: Path, public: Path) -> Ed25519PublicKey:
    """Make the operator's key pair and return the public half.

    Args:
        path: where the private key goes; its folder must exist.
        public: where the public key goes; its folder must exist.

    Raises:
        KeyUnusable: a file stands there already, or the folder cannot be written.
    """
    for taken in (path, public):
        if taken.exists() or taken.is_symlink():
            raise _exists(taken)
    key = Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _create(path, private_pem, mode=0o600)
    _create(public, public_pem(key.public_key()), mode=0o644)
    return key.public_key()


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read the operator's private key.

    Args:
        path: the file `generate` made; nobody but its owner may have access to it.

    Raises:
        KeyUnusable: missing, open to others, not an Ed25519 key, or another key than `PATH.pub`.
    """
    content = _read(path, secret=True)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path, "private") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _not_a_key(path, "private")
    public = public_path(path)
    if public.exists() and public_pem(load_public(public)) != public_pem(key.public_key()):
        raise KeyUnusable(
            f"{public} is not the public key of {path}",
            code="key_mismatch",
            hint=f"find out which pool each belongs to; `{_openssl(path)}` prints the right one",
        )
    return key


def load_public(path: Path) -> Ed25519PublicKey:
    """Read a public key.

    Raises:
        KeyUnusable: missing, or not an Ed25519 public key.
    """
    try:
        key = load_pem_public_key(_read(path, secret=False))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _not_a_key(path, "public") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _not_a_key(path, "public")
    return key


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if secret and stat.S_IMODE(found.st_mode) & 0o077:
                raise KeyUnusable(
                    f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others can reach the key",
                    code="key_loose_mode",
                    hint=f"if nobody read it, `chmod 600 {path}`; else make a new key",
                )
            return file.read(MAX_KEY_BYTES)
    except FileNotFoundError as error:
        raise KeyUnusable(
            f"there is no {'private' if secret else 'public'} key at {path}",
            code="key_missing",
            hint=_how_to_get(path, secret=secret),
        ) from error
    except OSError as error:
        raise KeyUnusable(
            f"cannot read {path}: {error.strerror}",
            code="key_unreadable",
            hint="run as the user who owns the key",
        ) from error


def _how_to_get(path: Path, *, secret: bool) -> str:
    private = path if secret else path.with_name(path.name.removesuffix(".pub"))
    if private != path and private.exists():
        return f"`{_openssl(private)} -out {path}` makes it from the private key"
    return (
        "`ppn ledger keygen` makes the operator's pair, `ppn ca init` the authority's; on a node,"
        " the pool's deploy places the public key"
    )


def _openssl(private: Path) -> str:
    return f"openssl pkey -in {private} -pubout"


def _not_a_key(path: Path, half: str) -> KeyUnusable:
    return KeyUnusable(
        f"{path} is not an Ed25519 {half} key in PEM without a passphrase",
        code="key_wrong_kind",
        hint="`ppn ledger keygen` and `ppn ca init` make pairs that are",
    )


def _exists(path: Path) -> KeyUnusable:
    return KeyUnusable(
        f"{path} exists and is not replaced: what a lost key has signed cannot be signed anew",
        code="key_exists",
        hint="use it, or give the new key another name",
    )


def _create(path: Path, content: bytes, *, mode: int) -> None:
    """Write a new file whole or not at all; never over another, never with a looser mode."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # A hard link, unlike a rename, fails when the name is taken.
            os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise KeyUnusable(
            f"cannot write {path}: {error.strerror}",
            code="key_unwritable",
            hint=f"make the folder first: `mkdir -m 700 -p {path.parent}`",
        ) from error
