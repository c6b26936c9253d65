"""The ledger as a file: extended on the operator's machine, installed whole on the nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ppn.durable import write_atomic
from ppn.errors import PpnError
from ppn.lock import FolderLocked, folder_lock
from ppn.pool.ledger import (
    EMPTY,
    Change,
    Ledger,
    LedgerDamaged,
    append,
    check_extension,
    pending,
    read,
)

MAX_LEDGER_BYTES = 64 << 20


class LedgerUnavailable(PpnError):
    """A ledger file that cannot be read, locked or written; nothing was changed."""

    code = "ledger_unavailable"


@dataclass(frozen=True)
class Installed:
    """What an installation did.

    Args:
        changed: whether the file is another one now.
        ledger: the ledger in force.
        repaired: the damage of the file that was replaced, if it had any.
    """

    changed: bool
    ledger: Ledger
    repaired: LedgerDamaged | None = None


def read_bytes(path: Path) -> bytes | None:
    """The file's bytes, None when there is no such file.

    Raises:
        LedgerUnavailable: not readable, or larger than any ledger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LEDGER_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unavailable("read", path, error) from error
    check_size(data, path.name)
    return data


def check_size(data: bytes, origin: str) -> None:
    """Refuse more bytes than any ledger has.

    Raises:
        LedgerUnavailable: too many.
    """
    if len(data) > MAX_LEDGER_BYTES:
        raise LedgerUnavailable(
            f"{origin} has more than {MAX_LEDGER_BYTES >> 20} MiB",
            code="ledger_too_large",
            hint="check that this is the ledger",
        )


def load(path: Path, trusted: Ed25519PublicKey) -> Ledger:
    """Read and verify a ledger file (LED-01).

    Args:
        path: the file; when it does not exist the ledger has no entries.
        trusted: the operator's public key.

    Raises:
        LedgerDamaged: with the kind of damage and the entry's number.
        LedgerUnavailable: not readable.
    """
    data = read_bytes(path)
    return EMPTY if data is None else read(data, trusted)


def extend(
    path: Path, key: Ed25519PrivateKey, wanted: Mapping[str, Change], now: datetime
) -> tuple[Change, ...]:
    """Sign what a ledger file lacks and append it; nothing when it lacks nothing.

    Args:
        path: the ledger on the operator's machine; made when it does not exist.
        key: the operator's private key.
        wanted: per VM name what should be in force; other VMs are left as they are.
        now: the time the entries record; must carry its time zone.

    Returns:
        The changes that were appended.

    Raises:
        LedgerDamaged: the file does not verify; it is left as it is.
        LedgerUnavailable: not readable, writable, or locked by another process for too long.
    """
    with _locked(path):
        data = read_bytes(path)
        ledger = EMPTY if data is None else read(data, key.public_key())
        changes = pending(ledger, wanted)
        if changes:
            _replace(path, append(data or b"", key, changes, now))
    return changes


def install(path: Path, data: bytes, trusted: Ed25519PublicKey) -> Installed:
    """Put a whole ledger in force on a node (LED-01, CPU-03).

    Args:
        path: the node's copy; its folder is made when it does not exist.
        data: the whole new ledger.
        trusted: the operator's public key.

    Raises:
        LedgerDamaged: the new ledger does not verify.
        NotAnExtension: it takes back or rewrites an entry of the present one.
        LedgerUnavailable: not readable, writable, or locked by another process for too long.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise _unavailable("make the folder of", path, error) from error
    with _locked(path):
        present = read_bytes(path)
        ledger = check_extension(present or b"", data, trusted)
        if present == data:
            return Installed(False, ledger)
        _replace(path, data)
    return Installed(True, ledger, _damage(present, trusted) if present is not None else None)


def _damage(data: bytes, trusted: Ed25519PublicKey) -> LedgerDamaged | None:
    try:
        read(data, trusted)
    except LedgerDamaged as error:
        return error
    return None


def _replace(path: Path, data: bytes) -> None:
    try:
        # We hold the lock: a temporary file can only be left from a process that was killed.
        for left in path.parent.glob(f".{path.name}.*.new"):
            left.unlink(missing_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise _unavailable("write", path, error) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock on the ledger's folder."""
    try:
        with folder_lock(path.parent):
            yield
    except FolderLocked as error:
        raise LedgerUnavailable(error.message, code="ledger_locked", hint=error.hint) from error
    except OSError as error:
        raise _unavailable("lock the folder of", path, error) from error


def _unavailable(verb: str, path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"cannot {verb} {path}: {error.strerror}",
        hint="check the path, its folder's owner and the room on its disk",
    )
